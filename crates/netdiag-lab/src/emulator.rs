//! What happens to packets between the two ends of a link: the loops that take them from one stage to the next.
//!
//! Each direction is bottleneck → delay → loss: a lost packet has used the link, and a blackout takes what is under way. Queues,
//! delay and timers are rattan-core's, the loops are ours. Its `RattanRadix` brings an environment that other processes share
//! (names, addresses and lock files), keeps its packet sockets and with them its namespace until the process ends, cannot be
//! dropped inside an asynchronous task, and seeds the losses of both directions alike, so that they fall together.
//!
//! One thread does it all, for every link of a lab: stages exchange packets with no wake-up of another core, and an idle link
//! sleeps in the kernel.
//!
//! Invariant: what a direction does after its n-th change is a function of the seed and n, so that two runs of a schedule meet
//! the same link however much they send.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};
use rattan_core::cells::delay::{DelayCell, DelayCellConfig, DelayCellControlInterface};
use rattan_core::cells::{Cell, CellState, ControlInterface, Egress, Ingress, Packet, StdPacket};
use rattan_core::error::Error;
use rattan_core::metal::timer::Timer;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tun::Tun;

use crate::bottleneck::Bottleneck;
use crate::device::MTU;
use crate::jitter::Jitter;
use crate::loss::Losses;
use crate::spec::LinkSpec;

/// Room for the Ethernet header that rattan-core's packets have and TUN's have not.
const ETHERNET: usize = 14;

/// How much earlier than its time a packet may go from the bottleneck to the delay, which lets none out before its time. On a
/// link with rate to spare this is a wake-up less for each packet, a third of what it costs. Queues seem so much shorter.
const AHEAD: Duration = Duration::from_micros(500);

/// The controls of one direction.
#[derive(Clone)]
pub(crate) struct OneWay {
    changes: mpsc::UnboundedSender<LinkSpec>,
    delay: Arc<DelayCellControlInterface>,
    /// A way beside the first for packets that are to be overtaken.
    detour: Arc<DelayCellControlInterface>,
    chance: Arc<Mutex<Chance>>,
}

/// What is left to chance.
struct Chance {
    jitter: Jitter,
    /// Of each packet, and with what probability.
    is_late: (Xoshiro256PlusPlus, f64),
    losses: Losses,
    /// Gives each change its own seeds.
    seeds: SplitMix64,
}

impl OneWay {
    /// Carries packets from one end to the other in `tasks`, which end only when the device fails. `seed` makes losses
    /// and jitter the same in every run. To be called inside the runtime that is to do it.
    pub(crate) fn build(
        from: Arc<Tun>,
        to: Arc<Tun>,
        spec: &LinkSpec,
        seed: u64,
        tasks: &mut JoinSet<io::Result<()>>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let bottleneck = Bottleneck::new(spec, now);
        let delay = DelayCell::<StdPacket>::new(least_delay(spec))?;
        let detour = DelayCell::<StdPacket>::new(least_delay(spec) + spec.reordering().late_by)?;
        let chance = Arc::new(Mutex::new(Chance::new(spec, seed, now)));
        let (changes, changed) = mpsc::unbounded_channel();
        let controls = Self {
            changes,
            delay: delay.control_interface(),
            detour: detour.control_interface(),
            chance: Arc::clone(&chance),
        };
        let ways = [delay.sender(), detour.sender()];
        for way in [delay, detour] {
            let way = way.into_receiver();
            // `RattanCore` would do this by a message to all.
            way.change_state(CellState::Normal);
            tasks.spawn(deliver(way, Arc::clone(&chance), Arc::clone(&to)));
        }
        let forward = move |mut packet: StdPacket| {
            let (held, is_late) = lock(&chance).of(packet.get_timestamp());
            packet.delay_by(held);
            ways[usize::from(is_late)].enqueue(packet).map_err(io::Error::other)
        };
        tasks.spawn(squeeze(from, bottleneck, changed, Timer::new()?, forward));
        Ok(controls)
    }

    /// Changes the direction. Whatever reaches the link from now on sees the change.
    pub(crate) fn set(&self, spec: &LinkSpec) -> Result<(), Error> {
        lock(&self.chance).set(spec, Instant::now());
        let least = least_delay(spec);
        self.delay.set_config(DelayCellConfig::new(least))?;
        self.detour.set_config(DelayCellConfig::new(least + spec.reordering().late_by))?;
        let ended = |_| Error::ChannelError("the emulator has ended".to_owned());
        self.changes.send(spec.clone()).map_err(ended)
    }
}

impl Chance {
    fn new(spec: &LinkSpec, seed: u64, now: Instant) -> Self {
        Self::drawn(spec, SplitMix64::seed_from_u64(seed), now)
    }

    fn set(&mut self, spec: &LinkSpec, now: Instant) {
        *self = Self::drawn(spec, self.seeds.clone(), now);
    }

    fn drawn(spec: &LinkSpec, mut seeds: SplitMix64, now: Instant) -> Self {
        let jitter = Jitter::new(2 * spec.jitter(), seeds.next_u64(), now);
        let random = Xoshiro256PlusPlus::seed_from_u64(seeds.next_u64());
        let losses = Losses::new(spec.losses(), seeds.next_u64());
        let losses = if spec.is_blackout() { Losses::blackout() } else { losses };
        Self { jitter, is_late: (random, spec.reordering().share), losses, seeds }
    }

    /// How long a packet that came at `time` is held, and whether it is one to be overtaken.
    fn of(&mut self, time: Instant) -> (Duration, bool) {
        let (random, share) = &mut self.is_late;
        (self.jitter.hold(time), *share > 0.0 && random.random_bool(*share))
    }
}

/// Jitter is on top of this, from zero to twice its size.
fn least_delay(spec: &LinkSpec) -> Duration {
    spec.delay().saturating_sub(spec.jitter())
}

/// Reads packets as they come and hands them on as the bottleneck lets them out.
async fn squeeze(
    from: Arc<Tun>,
    mut bottleneck: Bottleneck,
    mut changes: mpsc::UnboundedReceiver<LinkSpec>,
    mut timer: Timer,
    forward: impl Fn(StdPacket) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = [0; ETHERNET + MTU];
    loop {
        let now = Instant::now();
        while let Some(packet) = bottleneck.depart(now + AHEAD) {
            forward(packet)?;
        }
        let due = bottleneck.due().map(|due| due - AHEAD);
        tokio::select! {
            biased;
            // None when the lab is being dropped: nothing changes any more.
            Some(spec) = changes.recv() => bottleneck.set(&spec, Instant::now()),
            _ = timer.sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            length = from.recv(&mut buffer[ETHERNET..]) => {
                bottleneck.arrive(StdPacket::from_raw_buffer(&buffer[..ETHERNET + length?]));
            }
        }
    }
}

/// Writes what comes out of the delay, but for what is lost.
async fn deliver(
    mut delayed: impl Egress<StdPacket>,
    chance: Arc<Mutex<Chance>>,
    to: Arc<Tun>,
) -> io::Result<()> {
    loop {
        let Some(packet) = delayed.dequeue().await else { continue };
        if lock(&chance).losses.takes_next() {
            continue;
        }
        if let Err(error) = to.send(&packet.as_slice()[ETHERNET..]).await {
            // That of an interface which somebody has deleted, and which nobody can bring back.
            if Errno::from_io_error(&error) == Some(Errno::BADFD) {
                return Err(io::Error::other("its interface has been deleted"));
            }
            // As on a cable that was pulled: whoever took the interface down may put it up again.
            tracing::debug!(%error, "packet dropped at its destination");
        }
    }
}

fn lock(chance: &Mutex<Chance>) -> MutexGuard<'_, Chance> {
    chance.lock().unwrap_or_else(PoisonError::into_inner)
}
