//! Which source to use and which flows to look at.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ipnet::IpNet;
use netdiag_telemetry::FlowKey;

use crate::netns;

/// Which source to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// eBPF where it loads, else `sock_diag`.
    #[default]
    Auto,
    /// eBPF, or fail.
    Ebpf,
    /// `sock_diag`, even where eBPF would load.
    Sockdiag,
}

/// How many flows are tracked in the kernel unless the user asks for another number: several times the sockets of a busy
/// host, and some 22 MB of kernel memory.
pub const DEFAULT_MAX_FLOWS: u32 = 16_384;

/// How to open a probe.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Which source.
    pub source: SourceChoice,
    /// Which flows.
    pub filter: FlowFilter,
    /// Most flows tracked in the kernel at once.
    pub max_flows: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            source: SourceChoice::default(),
            filter: FlowFilter::default(),
            max_flows: DEFAULT_MAX_FLOWS,
        }
    }
}

impl ProbeConfig {
    /// Whether network namespaces besides our own are looked into, which takes privileges for as long as the probe is open.
    pub fn looks_around(&self) -> bool {
        let only = self.filter.netns.as_deref().and_then(|path| netns::inode_of(path).ok());
        only.is_none() || only != netns::own_inode().ok()
    }
}

/// Which flows to look at. Empty lists mean "all".
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Local ports.
    pub ports: Vec<u16>,
    /// Networks the remote address must be in.
    pub peers: Vec<IpNet>,
    /// Include flows that never leave the host.
    pub loopback: bool,
    /// Only this network namespace: a path such as `/run/netns/NAME` or `/proc/PID/ns/net`. `None` for all that can be
    /// seen.
    pub netns: Option<PathBuf>,
    /// Leave out this port of our own network namespace, at either end of a connection that stays on the host: those who
    /// ask a server for what it sees would otherwise be seen themselves.
    pub except_ports: Vec<u16>,
    /// Leave out connections of our own network namespace to these, at either end of one that stays on the host: those that
    /// we ourselves are the client of. Whoever finds out where those are may say so later.
    pub except_peers: Arc<RwLock<Vec<SocketAddr>>>,
}

impl FlowFilter {
    /// Whether a flow of our own namespace is one of those to leave out.
    pub(crate) fn excepts(&self, key: &FlowKey) -> bool {
        let here = key.is_loopback();
        let is_port = |&port: &u16| key.local.port() == port || (here && key.peer.port() == port);
        let is_peer = |&peer: &SocketAddr| key.peer == peer || (here && key.local == peer);
        self.except_ports.iter().any(is_port) || self.peers_excepted().iter().any(is_peer)
    }

    fn peers_excepted(&self) -> RwLockReadGuard<'_, Vec<SocketAddr>> {
        // Each change is complete in itself.
        self.except_peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a flow passes, its namespace and what is excepted there aside.
    pub fn matches(&self, key: &FlowKey) -> bool {
        (self.loopback || !key.is_loopback())
            && (self.ports.is_empty() || self.ports.contains(&key.local.port()))
            && (self.peers.is_empty() || self.peers.iter().any(|net| net.contains(&key.peer.ip())))
    }
}
