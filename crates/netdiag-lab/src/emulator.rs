//! What happens to packets between the two ends: rattan-core's cells, and the loops that feed them.
//!
//! Each direction is rate → delay → loss: a lost packet has used the link, and a blackout takes what is under way. The
//! cells are rattan-core's, the loops are ours. Its `RattanRadix` brings an environment that other processes share
//! (names, addresses and lock files), keeps its packet sockets and with them its namespace until the process ends,
//! cannot be dropped inside an asynchronous task, and seeds the losses of both directions alike, so that they fall
//! together.
//!
//! One thread does it all: cells exchange packets with no wake-up of another core, and an idle link sleeps in the kernel.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bandwidth::Bandwidth;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rattan_core::cells::bandwidth::queue::{DropTailQueue, DropTailQueueConfig};
use rattan_core::cells::bandwidth::{
    BwCell, BwCellConfig, BwCellControlInterface, BwType, MAX_BANDWIDTH,
};
use rattan_core::cells::delay::{DelayCell, DelayCellConfig, DelayCellControlInterface};
use rattan_core::cells::loss::{LossCell, LossCellConfig, LossCellControlInterface};
use rattan_core::cells::{Cell, CellState, ControlInterface, Egress, Ingress, Packet, StdPacket};
use rattan_core::error::Error;
use tokio::task::JoinSet;
use tokio_tun::Tun;

use crate::device::MTU;
use crate::jitter::Jitter;
use crate::spec::LinkSpec;

/// Room for the Ethernet header that rattan-core's packets have and TUN's have not.
const ETHERNET: usize = 14;

/// What may wait for a slow link, packets: as much as in netem.
const QUEUE: usize = 1000;

type Queue = DropTailQueue<StdPacket>;

/// The controls of one direction.
pub(crate) struct OneWay {
    rate: Arc<BwCellControlInterface<StdPacket, Queue>>,
    delay: Arc<DelayCellControlInterface>,
    jitter: Arc<Mutex<Jitter>>,
    loss: Arc<LossCellControlInterface>,
}

impl OneWay {
    /// Carries packets from one end to the other in `tasks`, which end only when the device fails. `seed` makes losses
    /// and jitter the same in every run. To be called inside the runtime that is to do it.
    pub(crate) fn build(
        from: Arc<Tun>,
        to: Arc<Tun>,
        seed: u64,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> Result<Self, Error> {
        let queue = DropTailQueueConfig::new(QUEUE, None, BwType::NetworkLayer);
        let rate = BwCell::<StdPacket, Queue>::new(MAX_BANDWIDTH, Queue::new(queue), None)?;
        let delay = DelayCell::<StdPacket>::new(Duration::ZERO)?;
        let loss = LossCell::<StdPacket, StdRng>::new([0.0], StdRng::seed_from_u64(seed))?;
        let jitter = Arc::new(Mutex::new(Jitter::new(!seed)));
        let controls = Self {
            rate: rate.control_interface(),
            delay: delay.control_interface(),
            jitter: jitter.clone(),
            loss: loss.control_interface(),
        };
        let (rate_in, delay_in, loss_in) = (rate.sender(), delay.sender(), loss.sender());
        let mut rate = started(rate);
        let mut delay = started(delay);
        let mut loss = started(loss);
        tasks.spawn(async move {
            let mut buffer = [0; ETHERNET + MTU];
            loop {
                let length = from.recv(&mut buffer[ETHERNET..]).await?;
                let packet = StdPacket::from_raw_buffer(&buffer[..ETHERNET + length]);
                rate_in.enqueue(packet).map_err(io::Error::other)?;
            }
        });
        tasks.spawn(async move {
            loop {
                let Some(mut packet) = rate.dequeue().await else { continue };
                let now = packet.get_timestamp();
                let held = jitter.lock().unwrap_or_else(PoisonError::into_inner).hold(now);
                packet.delay_by(held);
                delay_in.enqueue(packet).map_err(io::Error::other)?;
            }
        });
        tasks.spawn(async move {
            loop {
                let Some(packet) = delay.dequeue().await else { continue };
                loss_in.enqueue(packet).map_err(io::Error::other)?;
                // None is a packet lost.
                let Some(packet) = loss.dequeue().await else { continue };
                if let Err(error) = to.send(&packet.as_slice()[ETHERNET..]).await {
                    // As on a cable that was pulled: whoever took the interface down may put it up again.
                    tracing::debug!(%error, "packet dropped at its destination");
                }
            }
        });
        Ok(controls)
    }

    /// Changes the direction. Whatever reaches the link from now on sees the change.
    pub(crate) fn set(&self, spec: LinkSpec) -> Result<(), Error> {
        let jitter = spec.jitter();
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).set(2 * jitter);
        self.delay.set_config(DelayCellConfig::new(spec.delay().saturating_sub(jitter)))?;
        let lost = if spec.is_blackout() { 1.0 } else { spec.loss() };
        self.loss.set_config(LossCellConfig::new([lost]))?;
        let rate = spec.rate().map_or(MAX_BANDWIDTH, Bandwidth::from_bps);
        self.rate.set_config(BwCellConfig::new(rate, None, None))
    }
}

/// The cell's way out, set to work. `RattanCore` would do this by a message to all.
fn started<C: Cell<StdPacket>>(cell: C) -> C::EgressType {
    let out = cell.into_receiver();
    out.change_state(CellState::Normal);
    out
}
