//! A lab: one server, clients, and a link from each client to it; setting it up, changing it, running things in it, and taking
//! it down.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::link::{Direction, Link};
use crate::netns::Netns;
use crate::playback::Playback;
use crate::schedule::Schedule;
use crate::setup::emulate;
use crate::spec::{Duplex, LinkSpec};
use crate::subnet::Address;

/// The seed of a lab that is given none: a test that fails fails again.
const SEED: u64 = 1;

/// Where the server is.
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
#[non_exhaustive]
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
    /// As many namespaces as the kernel allows are there already.
    #[error("{doing}: {source} (the limit is reached: raise it with `sysctl {sysctl}=15000`)")]
    TooManyNamespaces {
        /// What was refused.
        doing: &'static str,
        /// The limit.
        sysctl: &'static str,
        /// How the kernel put it, which speaks of space on a device.
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
    /// There is nothing to emulate.
    #[error("a lab without links: give it one at least")]
    NoLinks,
    /// Links without a schedule, or schedules without a link.
    #[error("{schedules} schedules for {links} links: give one for each, in the same order")]
    Schedules {
        /// How many were given.
        schedules: usize,
        /// How many there should be.
        links: usize,
    },
    /// A link has failed, and with it all of them, or could not be made.
    #[error("link emulation: {0}")]
    Emulator(String),
}

/// Running links. They are gone when this is dropped, or its process has ended in any way at all.
pub struct Lab {
    parts: Parts,
    /// Why the emulator has ended, if it has ended of its own accord.
    failure: Arc<OnceLock<String>>,
    /// Dropped to end the emulator.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the emulator's thread hands over when the links stand.
pub(crate) struct Parts {
    /// At least one.
    pub(crate) links: Vec<Link>,
    pub(crate) server: Arc<Netns>,
    /// The server's, in the subnet of the first link.
    pub(crate) address: Address,
}

impl Lab {
    /// Starts a lab with one client, behind a link with the same properties in both directions or with each direction's own.
    pub fn start(link: impl Into<Duplex>, server: ServerSide) -> Result<Self, LabError> {
        Self::start_links([link.into()], server, SEED)
    }

    /// Starts a lab with a client behind each of `links`. With the same `seed` and the same changes, packets meet the same
    /// fate: the n-th after a change is lost in both or in neither, and jitter is the same at the same time after it.
    pub fn start_links(
        links: impl IntoIterator<Item = Duplex>,
        server: ServerSide,
        seed: u64,
    ) -> Result<Self, LabError> {
        let links: Vec<Duplex> = links.into_iter().collect();
        if links.is_empty() {
            return Err(LabError::NoLinks);
        }
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let failure = Arc::new(OnceLock::new());
        let failed = Arc::clone(&failure);
        // A runtime must neither start nor end inside another, which the caller may have.
        let thread = std::thread::Builder::new()
            .name("netdiag-lab".to_owned())
            .spawn(move || emulate(&links, server, seed, &ready, stopped, &failed))
            .map_err(|source| LabError::System { doing: "starting the emulator", source })?;
        let parts = match started.recv() {
            Ok(result) => result?,
            Err(_) => return Err(LabError::Emulator("it ended before it began".to_owned())),
        };
        Ok(Self { parts, failure, stop: Some(stop), thread: Some(thread) })
    }

    /// Why the lab carries nothing any more; `None` while it does. Then the clients' streams stall, and what is measured of them
    /// is worth nothing. That an interface was deleted is noticed with the next packet to it.
    pub fn failed(&self) -> Option<LabError> {
        let ended = || self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        let why = match self.failure.get() {
            Some(why) => why.clone(),
            None if ended() => "its thread has ended".to_owned(),
            None => return None,
        };
        Some(LabError::Emulator(why))
    }

    /// The links, in the order in which they were given.
    pub fn links(&self) -> &[Link] {
        &self.parts.links
    }

    /// Changes every link. Packets sent from now on, and those under way, are treated by the new properties; order is kept.
    pub fn set(&self, spec: impl Into<Duplex>) -> Result<(), LabError> {
        let spec = spec.into();
        self.parts.links.iter().try_for_each(|link| link.set(&spec))
    }

    /// Changes every link as its schedule says, from now on until the end or until what is returned is dropped. Each step is
    /// a [`Link::set`].
    pub fn play(&self, schedules: &[Schedule]) -> Result<Playback, LabError> {
        Playback::start(&self.parts.links, schedules)
    }

    /// The server's address, the same for every client.
    pub fn server_ip(&self) -> IpAddr {
        self.parts.address.v4.into()
    }

    /// The server's IPv6 address, the same for every client. Where the kernel has no IPv6 nothing answers to it.
    pub fn server_ipv6(&self) -> IpAddr {
        self.parts.address.v6.into()
    }

    /// The server's network namespace: a path that `setns` and `nsenter --net=` take while the lab runs.
    pub fn server_netns(&self) -> &Path {
        self.parts.server.path()
    }

    /// The inode number of the server's network namespace, which is how the kernel names it.
    pub fn server_netns_inode(&self) -> u64 {
        self.parts.server.inode()
    }

    /// Runs `task` on a thread inside the server's namespace and waits for it. The sockets it opens and the processes it
    /// starts stay there for good.
    pub fn on_server<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        enter(&self.parts.server, task)
    }
}

/// The first link's, for labs that have no other.
impl Lab {
    /// [`Link::set_direction`] of the first link.
    pub fn set_direction(
        &self,
        direction: Direction,
        spec: impl Into<LinkSpec>,
    ) -> Result<(), LabError> {
        self.first().set_direction(direction, spec)
    }

    /// [`Link::client_ip`] of the first link.
    pub fn client_ip(&self) -> IpAddr {
        self.first().client_ip()
    }

    /// [`Link::client_ipv6`] of the first link.
    pub fn client_ipv6(&self) -> IpAddr {
        self.first().client_ipv6()
    }

    /// [`Link::client_netns`] of the first link.
    pub fn client_netns(&self) -> &Path {
        self.first().client_netns()
    }

    /// [`Link::client_netns_inode`] of the first link.
    pub fn client_netns_inode(&self) -> u64 {
        self.first().client_netns_inode()
    }

    /// [`Link::on_client`] of the first link.
    pub fn on_client<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.first().on_client(task)
    }

    fn first(&self) -> &Link {
        &self.parts.links[0]
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
            .field("server", &self.server_netns())
            .field("links", &self.parts.links)
            .finish()
    }
}

/// Runs `task` inside a namespace.
pub(crate) fn enter<T: Send>(
    netns: &Netns,
    task: impl FnOnce() -> T + Send,
) -> Result<T, LabError> {
    netns.run(task).map_err(|error| refused("entering a network namespace", "CAP_SYS_ADMIN", error))
}

/// The error for what the kernel would not do.
pub(crate) fn refused(
    doing: &'static str,
    capability: &'static str,
    source: io::Error,
) -> LabError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => LabError::NotPermitted { doing, capability, source },
        _ => LabError::System { doing, source },
    }
}
