//! Setting up a link, changing it, running things at its ends, and taking it down.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::device;
use crate::emulator::OneWay;
use crate::netns::Netns;
use crate::spec::LinkSpec;
use crate::subnet::{Address, Subnet};

/// What the emulator's thread asks for. Packets are late while it waits for a core, and on a machine that also builds
/// and tests that is most of the error: the highest priority short of real time.
const NICENESS: i32 = -20;

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
    /// In a namespace of its own, whose TCP counters are nobody else's.
    #[default]
    Namespace,
    /// In the namespace of the calling thread.
    Host,
}

/// Why a lab could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A capability is missing.
    #[error("{doing}: {source} (run as root, or with {capability})")]
    NotPermitted {
        /// What was refused.
        doing: &'static str,
        /// What would have allowed it.
        capability: &'static str,
        /// How the kernel put it.
        source: io::Error,
    },
    /// The kernel has no TUN driver, or the container no device for it.
    #[error(
        "/dev/net/tun: {0} (load the module with `modprobe tun`, or give the container the device)"
    )]
    NoTun(#[source] io::Error),
    /// Anything else that the system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was refused.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The emulator has ended; the log says why.
    #[error("link emulation: {0}")]
    Emulator(String),
}

/// A running link. It is gone when this is dropped, or its process has ended in any way at all.
pub struct Lab {
    parts: Parts,
    /// Dropped to end the emulator.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the emulator's thread hands over when the link stands.
struct Parts {
    up: OneWay,
    down: OneWay,
    client: Netns,
    server: Netns,
    subnet: Subnet,
}

impl Lab {
    /// Starts a link with the same properties in both directions.
    pub fn start(spec: LinkSpec, server: ServerSide) -> Result<Self, LabError> {
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        // A runtime must neither start nor end inside another, which the caller may have.
        let thread = std::thread::Builder::new()
            .name("netdiag-lab".to_owned())
            .spawn(move || emulate(server, &ready, stopped))
            .map_err(|source| LabError::System { doing: "starting the emulator", source })?;
        let parts = match started.recv() {
            Ok(result) => result?,
            Err(_) => return Err(LabError::Emulator("it ended before it began".to_owned())),
        };
        let lab = Self { parts, stop: Some(stop), thread: Some(thread) };
        lab.set(spec)?;
        Ok(lab)
    }

    /// Changes both directions at once.
    pub fn set(&self, spec: LinkSpec) -> Result<(), LabError> {
        self.set_direction(Direction::Up, spec)?;
        self.set_direction(Direction::Down, spec)
    }

    /// Changes one direction. Packets sent from now on, and those under way, are treated by the new properties; order
    /// is kept.
    pub fn set_direction(&self, direction: Direction, spec: LinkSpec) -> Result<(), LabError> {
        let one_way = match direction {
            Direction::Up => &self.parts.up,
            Direction::Down => &self.parts.down,
        };
        one_way.set(spec).map_err(|error| LabError::Emulator(error.to_string()))
    }

    /// The client's address.
    pub fn client_ip(&self) -> IpAddr {
        self.parts.subnet.client().v4.into()
    }

    /// The server's address, reachable from the client over the link.
    pub fn server_ip(&self) -> IpAddr {
        self.parts.subnet.server().v4.into()
    }

    /// The client's IPv6 address. Where the kernel has no IPv6 nothing answers to it.
    pub fn client_ipv6(&self) -> IpAddr {
        self.parts.subnet.client().v6.into()
    }

    /// The server's IPv6 address. Where the kernel has no IPv6 nothing answers to it.
    pub fn server_ipv6(&self) -> IpAddr {
        self.parts.subnet.server().v6.into()
    }

    /// The client's network namespace: a path that `setns` and `nsenter --net=` take while the lab runs.
    pub fn client_netns(&self) -> &Path {
        self.parts.client.path()
    }

    /// The server's network namespace: a path that `setns` and `nsenter --net=` take while the lab runs.
    pub fn server_netns(&self) -> &Path {
        self.parts.server.path()
    }

    /// The inode number of the client's network namespace, which is how the kernel names it.
    pub fn client_netns_inode(&self) -> u64 {
        self.parts.client.inode()
    }

    /// The inode number of the server's network namespace, which is how the kernel names it.
    pub fn server_netns_inode(&self) -> u64 {
        self.parts.server.inode()
    }

    /// Runs `task` on a thread inside the client's namespace and waits for it. The sockets it opens and the processes it
    /// starts stay there for good.
    pub fn on_client<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        enter(&self.parts.client, task)
    }

    /// Runs `task` on a thread inside the server's namespace and waits for it. The sockets it opens and the processes it
    /// starts stay there for good.
    pub fn on_server<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        enter(&self.parts.server, task)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // The interfaces are gone when it has ended, and with them their addresses and routes.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("client", &self.client_netns())
            .field("server", &self.server_netns())
            .field("subnet", &self.parts.subnet)
            .finish()
    }
}

/// The life of the emulator's thread.
fn emulate(
    server: ServerSide,
    ready: &mpsc::Sender<Result<Parts, LabError>>,
    stopped: oneshot::Receiver<()>,
) {
    // Without CAP_SYS_NICE it stays as it is.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let runtime = match Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = ready.send(Err(LabError::System { doing: "starting the emulator", source }));
            return;
        }
    };
    let mut tasks = JoinSet::new();
    // Who waits for the answer is not dropped meanwhile.
    let _ = match set_up(&runtime, server, &mut tasks) {
        Ok(parts) => ready.send(Ok(parts)),
        Err(error) => ready.send(Err(error)),
    };
    runtime.block_on(async {
        tokio::select! {
            _ = stopped => {}
            Some(ended) = tasks.join_next() => {
                tracing::error!(?ended, "the emulated link has failed and carries nothing");
            }
        }
    });
}

fn set_up(
    runtime: &Runtime,
    server: ServerSide,
    tasks: &mut JoinSet<io::Result<()>>,
) -> Result<Parts, LabError> {
    let subnet = Subnet::reserve()
        .map_err(|source| LabError::System { doing: "reserving addresses for the link", source })?;
    let new_namespace = || {
        let namespace = Netns::create()?;
        namespace.run(device::loopback_up)??;
        Ok(namespace)
    };
    let namespace_error =
        |error| refused("making a network namespace", "CAP_SYS_ADMIN and CAP_NET_ADMIN", error);
    let client = new_namespace().map_err(namespace_error)?;
    let server = match server {
        ServerSide::Namespace => new_namespace(),
        ServerSide::Host => Netns::current(),
    }
    .map_err(namespace_error)?;
    let device = |namespace: &Netns, address: Address| {
        let made = namespace.run(|| device::create(runtime.handle(), address));
        made.flatten().map(Arc::new).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LabError::NoTun(error),
            _ => refused("making a TUN interface", "CAP_NET_ADMIN", error),
        })
    };
    let client_end = device(&client, subnet.client())?;
    let server_end = device(&server, subnet.server())?;
    let _inside = runtime.enter();
    // Fixed seeds: a test that fails fails again.
    let mut one_way = |from: &Arc<_>, to: &Arc<_>, seed| {
        OneWay::build(Arc::clone(from), Arc::clone(to), seed, tasks)
            .map_err(|error| LabError::Emulator(error.to_string()))
    };
    let up = one_way(&client_end, &server_end, 1)?;
    let down = one_way(&server_end, &client_end, 2)?;
    Ok(Parts { up, down, client, server, subnet })
}

fn enter<T: Send>(netns: &Netns, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    netns.run(task).map_err(|error| refused("entering a network namespace", "CAP_SYS_ADMIN", error))
}

fn refused(doing: &'static str, capability: &'static str, source: io::Error) -> LabError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => LabError::NotPermitted { doing, capability, source },
        _ => LabError::System { doing, source },
    }
}
