//! Setting up a link, changing it, running things at its ends, and taking it down.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bandwidth::Bandwidth;
use rattan_core::cells::bandwidth::queue::{InfiniteQueue, InfiniteQueueConfig};
use rattan_core::cells::bandwidth::{BwCell, BwCellConfig, BwCellControlInterface};
use rattan_core::cells::delay::{DelayCell, DelayCellConfig};
use rattan_core::cells::loss::{LossCell, LossCellConfig, LossCellControlInterface};
use rattan_core::cells::{ControlInterface, StdPacket};
use rattan_core::config::RattanConfig;
use rattan_core::env::{StdNetEnvConfig, StdNetEnvMode};
use rattan_core::metal::io::af_packet::AfPacketDriver;
use rattan_core::radix::RattanRadix;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::jitter::Jitter;
use crate::leftovers::{self, Record};
use crate::spec::LinkSpec;

/// What stands for "no limit": far above what user space can move.
const UNLIMITED_BPS: u64 = 100_000_000_000;

/// A direction of the link, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client: where tokens go.
    Down,
}

/// Where the server's end of the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerSide {
    /// In a namespace of its own. Any number of labs run beside each other.
    #[default]
    Namespace,
    /// In the namespace of the calling thread. One lab at a time, since all clients have the same address.
    Host,
}

/// Why a lab could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, veth pairs or packet sockets were refused.
    #[error("emulating a link needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_NET_RAW): {0}")]
    NotPermitted(String),
    /// The emulator failed.
    #[error("link emulation: {0}")]
    Emulator(String),
    /// The record of what is to be undone could not be written.
    #[error("cannot keep a record in /run/netdiag-lab: {0}")]
    Record(#[source] io::Error),
    /// A namespace could not be entered.
    #[error("cannot enter network namespace {path}: {source}")]
    Enter {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

type Queue = InfiniteQueue<StdPacket>;
type Rate = BwCellControlInterface<StdPacket, Queue>;

/// A running link.
pub struct Lab {
    up: OneWay,
    down: OneWay,
    client: PathBuf,
    server: PathBuf,
    // Dropped in this order: the emulator with its namespaces, then the record that they exist.
    radix: RattanRadix<AfPacketDriver>,
    _record: Record,
}

/// The controls of one direction.
struct OneWay {
    rate: Arc<Rate>,
    loss: Arc<LossCellControlInterface>,
    delay: Jitter,
}

impl Lab {
    /// Starts a link with the same properties in both directions.
    pub fn start(spec: LinkSpec, server: ServerSide) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotPermitted("the effective user is not root".to_owned()));
        }
        match leftovers::remove() {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::warn!(?removed, "removed what a killed run left behind"),
            Err(error) => tracing::warn!(%error, "cannot remove what a killed run left behind"),
        }
        let record = Record::announce().map_err(LabError::Record)?;
        let mode = match server {
            ServerSide::Namespace => StdNetEnvMode::Isolated,
            ServerSide::Host => StdNetEnvMode::Compatible,
        };
        let config = RattanConfig::<StdPacket> {
            env: StdNetEnvConfig { mode, ..StdNetEnvConfig::default() },
            ..RattanConfig::default()
        };
        let mut radix = RattanRadix::new(config).map_err(emulator)?;
        let identifier = radix.get_rattan_id().clone();
        record.name(&identifier).map_err(LabError::Record)?;
        let up = OneWay::build(&mut radix, "up", "left", "right", 1)?;
        let down = OneWay::build(&mut radix, "down", "right", "left", 2)?;
        radix.spawn_rattan().map_err(emulator)?;
        radix.start_rattan().map_err(emulator)?;
        let server = match server {
            ServerSide::Namespace => format!("/run/netns/ns-right-{identifier}").into(),
            ServerSide::Host => "/proc/self/ns/net".into(),
        };
        let client = format!("/run/netns/ns-left-{identifier}").into();
        let lab = Self { up, down, client, server, radix, _record: record };
        lab.set(spec)?;
        Ok(lab)
    }

    /// Changes both directions at once.
    pub fn set(&self, spec: LinkSpec) -> Result<(), LabError> {
        self.set_direction(Direction::Up, spec)?;
        self.set_direction(Direction::Down, spec)
    }

    /// Changes one direction. Packets under way keep the delay they began with, unless it is the new one that is
    /// shorter for those behind them.
    pub fn set_direction(&self, direction: Direction, spec: LinkSpec) -> Result<(), LabError> {
        match direction {
            Direction::Up => self.up.set(spec),
            Direction::Down => self.down.set(spec),
        }
    }

    /// The client's address.
    pub fn client_ip(&self) -> IpAddr {
        self.radix.left_ip(1)
    }

    /// The server's address, reachable from the client over the link.
    pub fn server_ip(&self) -> IpAddr {
        self.radix.right_ip(1)
    }

    /// The client's network namespace.
    pub fn client_netns(&self) -> &Path {
        &self.client
    }

    /// The server's network namespace.
    pub fn server_netns(&self) -> &Path {
        &self.server
    }

    /// Runs `task` on a thread inside the client's namespace and waits for it. Sockets it opens belong there for good.
    pub fn on_client<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        run_inside(&self.client, task)
    }

    /// Runs `task` on a thread inside the server's namespace and waits for it.
    pub fn on_server<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        run_inside(&self.server, task)
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("client", &self.client).field("server", &self.server).finish()
    }
}

impl OneWay {
    /// Builds the cells from `source` to `sink`: rate, then delay, then loss.
    fn build(
        radix: &mut RattanRadix<AfPacketDriver>,
        name: &str,
        source: &str,
        sink: &str,
        seed: u64,
    ) -> Result<Self, LabError> {
        let cell = |kind: &str| format!("{name}-{kind}");
        let rate = radix
            .build_cell(cell("rate"), |runtime| {
                let _inside = runtime.enter();
                BwCell::<StdPacket, Queue>::new(
                    Bandwidth::from_bps(UNLIMITED_BPS),
                    InfiniteQueue::new(InfiniteQueueConfig::new()),
                    None,
                )
            })
            .map_err(emulator)?;
        let delay = radix
            .build_cell(cell("delay"), |runtime| {
                let _inside = runtime.enter();
                DelayCell::<StdPacket>::new(std::time::Duration::ZERO)
            })
            .map_err(emulator)?;
        let loss = radix
            .build_cell::<LossCell<StdPacket, _>, _>(
                cell("loss"),
                LossCellConfig::new([0.0]).into_factory(),
            )
            .map_err(emulator)?;
        radix.link_cell(source.to_owned(), cell("rate"));
        radix.link_cell(cell("rate"), cell("delay"));
        radix.link_cell(cell("delay"), cell("loss"));
        radix.link_cell(cell("loss"), sink.to_owned());
        let delay = Jitter::start(seed, move |value| {
            // The channel closes when the lab is taken down.
            let _ = delay.set_config(DelayCellConfig::new(value));
        });
        Ok(Self { rate, loss, delay })
    }

    fn set(&self, spec: LinkSpec) -> Result<(), LabError> {
        self.delay.set(spec.delay(), spec.jitter());
        self.loss.set_config(LossCellConfig::new([spec.loss()])).map_err(emulator)?;
        let rate = Bandwidth::from_bps(spec.rate().unwrap_or(UNLIMITED_BPS));
        self.rate.set_config(BwCellConfig::new(rate, None, None)).map_err(emulator)
    }
}

fn emulator(error: rattan_core::error::Error) -> LabError {
    let text = error.to_string();
    if text.contains("EPERM") || text.contains("Operation not permitted") {
        LabError::NotPermitted(text)
    } else {
        LabError::Emulator(text)
    }
}

fn run_inside<T: Send>(netns: &Path, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    let failed = |source: io::Error| LabError::Enter { path: netns.to_owned(), source };
    let file = File::open(netns).map_err(failed)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok::<T, rustix::io::Errno>(task())
        });
        match thread.join() {
            Ok(result) => result.map_err(|errno| failed(errno.into())),
            // The task's panic is the caller's.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
