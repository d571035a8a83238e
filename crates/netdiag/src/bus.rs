//! The message bus as commands use it: on a thread of its own, so that a broker's troubles are nobody else's.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_hints::Board;
use netdiag_hints::bus::{
    Bus, BusSettings, BusStatus, Member, MemberSettings, PublishSettings, publish,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::own_peers::OwnPeers;
use crate::stop::Stop;

/// How often it is asked where the broker is.
const FIND: Duration = Duration::from_secs(10);

/// A publisher that runs.
#[derive(Debug)]
pub(crate) struct Publishing {
    thread: JoinHandle<()>,
    /// What becomes of it.
    pub(crate) status: Arc<BusStatus>,
}

impl Publishing {
    /// Publishes the newest of `boards` until the stop, and takes part in a fleet. Tells `own_peers` where the broker is.
    pub(crate) fn start(
        (bus, settings): (BusSettings, PublishSettings),
        member: Option<(Member, MemberSettings)>,
        boards: watch::Receiver<Arc<Board>>,
        own_peers: OwnPeers,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let status = Arc::new(BusStatus::default());
        let (counted, stop) = (Arc::clone(&status), stop.clone());
        let runtime = runtime()?;
        let thread = std::thread::Builder::new()
            .name("bus".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut finding = std::pin::pin!(find(&bus, &own_peers));
                    let bus = tokio::select! {
                        bus = Bus::connect(&bus) => bus,
                        () = &mut finding => return,
                        () = stop.asked() => return,
                    };
                    let newest = boards.clone();
                    let publishing = publish(&bus, &settings, boards, &counted, stop.asked());
                    let host = || {
                        let board = newest.borrow();
                        board.present(board.host.clone(), settings.stale_after, settings.when_stale)
                    };
                    let sharing = async {
                        if let Some((member, settings)) = member {
                            member.take_part(&bus, &settings, host, stop.asked()).await;
                        }
                    };
                    tokio::select! {
                        _ = async { tokio::join!(publishing, sharing) } => {}
                        () = finding => {}
                    }
                });
                // A name that takes its time to be resolved delays nobody.
                runtime.shutdown_background();
            })
            .context("cannot start the message bus's thread")?;
        Ok(Self { thread, status })
    }

    /// Waits for the end, which a [`Stop`] brings about.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the message bus's thread panicked"))
    }
}

/// Finds out where the broker is, again and again: names move.
async fn find(bus: &BusSettings, own_peers: &OwnPeers) {
    loop {
        own_peers.set("bus", &bus.addresses().await);
        tokio::time::sleep(FIND).await;
    }
}

/// What a broker is spoken to on.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the message bus")
}
