//! Where flow telemetry comes from: an eBPF probe in the kernel, or netlink `sock_diag` without privileges.
//!
//! [`Probe`] hides which of the two is at work. It is polled: [`Probe::snapshot`] returns every matching flow as it is
//! now, and nothing happens in user space between two polls, however many packets pass.
//!
//! With eBPF, each poll also dumps the sockets once: an eBPF hook is silent when the path is silent, so liveness
//! (unacknowledged data, backoff, who limits the sender) can only come from asking.
//!
//! Everything here blocks briefly (system calls, no waiting); run it on a thread of its own.

mod config;
mod ebpf;
mod error;
mod estimate;
mod netns;
mod sockdiag;
mod sockets;
pub mod support;

use std::collections::{HashMap, HashSet};

use netdiag_telemetry::{FlowKey, FlowSnapshot, Source};

pub use config::{DEFAULT_MAX_FLOWS, FlowFilter, ProbeConfig, SourceChoice};
pub use error::ProbeError;

use ebpf::Ebpf;
use netns::Netns;
use sockets::{Dumped, Sockets};

/// A source of flow telemetry, open and attached.
#[derive(Debug)]
pub struct Probe {
    ebpf: Option<Ebpf>,
    sockets: Sockets,
    filter: FlowFilter,
    /// Inode of our own network namespace.
    own_netns: u32,
    fallback_reason: Option<String>,
    dump_failing: bool,
}

/// What the probe had no room for, cumulative. All zero on a healthy host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events of flows that are not tracked in the kernel because the table had no slot for them (`--max-flows`).
    pub flows: u64,
    /// RTT samples not counted because the histogram map was full.
    pub rtt_samples: u64,
    /// Closing records lost because user space was too slow to drain them.
    pub closings: u64,
}

impl Probe {
    /// Opens the source that `config` asks for. With [`SourceChoice::Auto`], falls back from eBPF to `sock_diag` and
    /// remembers why in [`Probe::fallback_reason`].
    pub fn open(config: &ProbeConfig) -> Result<Self, ProbeError> {
        let only = match &config.filter.netns {
            None => None,
            Some(path) => {
                let inode = netns::inode_of(path)
                    .map_err(|source| ProbeError::Netns { path: path.clone(), source })?;
                Some(Netns { inode, path: path.clone() })
            }
        };
        let (ebpf, fallback_reason) = match config.source {
            SourceChoice::Sockdiag => (None, None),
            choice => {
                let netns = only.as_ref().map(|ns| ns.inode);
                match Ebpf::open(&config.filter, netns, config.max_flows) {
                    Ok(ebpf) => (Some(ebpf), None),
                    Err(error) if choice == SourceChoice::Ebpf => return Err(error),
                    Err(error) => (None, Some(error.to_string())),
                }
            }
        };
        let own = netns::own_inode().map_err(ProbeError::SockDiag)?;
        let sockets = Sockets::new(own, only);
        Ok(Self {
            ebpf,
            sockets,
            filter: config.filter.clone(),
            own_netns: own,
            fallback_reason,
            dump_failing: false,
        })
    }

    /// Which source is at work.
    pub fn source(&self) -> Source {
        if self.ebpf.is_some() { Source::Ebpf } else { Source::Sockdiag }
    }

    /// Why `auto` did not use eBPF, in one sentence; `None` if it did or was not asked to.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback_reason.as_deref()
    }

    /// Every matching flow as it is now, and every one that closed since the last call (marked `closed`).
    ///
    /// The first call gives the baseline of connections that were open before the probe; make it at once.
    pub fn snapshot(&mut self) -> Result<Vec<FlowSnapshot>, ProbeError> {
        let mut flows = self.counted_and_dumped()?;
        flows.retain(|flow| flow.key.netns != self.own_netns || !self.filter.excepts(&flow.key));
        Ok(flows)
    }

    fn dumped(&mut self) -> Result<Vec<FlowSnapshot>, ProbeError> {
        let dumped = self.sockets.dump([].into_iter()).map_err(ProbeError::SockDiag)?;
        let flows = dumped.into_iter().map(|socket| socket.flow);
        Ok(flows.filter(|flow| self.filter.matches(&flow.key)).collect())
    }

    fn counted_and_dumped(&mut self) -> Result<Vec<FlowSnapshot>, ProbeError> {
        let Some(ebpf) = &mut self.ebpf else { return self.dumped() };
        let sockets = &mut self.sockets;
        let reading = ebpf.read(|flows| sockets.dump(flows.iter().map(|flow| flow.key.netns)))?;
        let dumped = match reading.between {
            Ok(dumped) => dumped,
            // eBPF goes on without liveness; say so once.
            Err(error) => {
                if !std::mem::replace(&mut self.dump_failing, true) {
                    tracing::warn!(%error, "sock_diag failed; stalls cannot be seen");
                }
                Vec::new()
            }
        };
        let filter = &self.filter;
        let dumped = dumped.into_iter().filter(|socket| filter.matches(&socket.flow.key));
        Ok(merge(reading.flows, reading.rtt, dumped))
    }

    /// What there was no room for so far.
    pub fn losses(&self) -> Losses {
        self.ebpf.as_ref().map(Ebpf::losses).unwrap_or_default()
    }

    /// Names and kernel identifiers of the attached BPF programs, for their run-time statistics; empty without eBPF.
    pub fn program_ids(&self) -> Vec<(&'static str, u32)> {
        self.ebpf.as_ref().map(Ebpf::program_ids).unwrap_or_default()
    }
}

/// Joins what the kernel programs counted with what the dump showed.
///
/// A socket in both has its RTT samples from the programs and everything else from the dump, which is the newer. Only
/// where no hook passed although something was delivered (CLOSE_WAIT, FIN_WAIT) does the dump's estimate serve.
fn merge(
    flows: Vec<ebpf::Flow>,
    mut rtt: HashMap<u64, netdiag_telemetry::RttSamples>,
    dumped: impl Iterator<Item = Dumped>,
) -> Vec<FlowSnapshot> {
    let mut merged: Vec<FlowSnapshot> = Vec::with_capacity(flows.len());
    let mut open: HashMap<FlowKey, usize> = HashMap::with_capacity(flows.len());
    let (open_flows, closed_flows): (Vec<_>, Vec<_>) =
        flows.into_iter().partition(|flow| !flow.closed);
    let closed: HashSet<FlowKey> = closed_flows.iter().map(|flow| flow.key).collect();
    // Closed flows first: if a port was reused within the interval, the table must see the old connection end before
    // the new one begins.
    for flow in closed_flows.into_iter().chain(open_flows) {
        if !flow.closed {
            open.insert(flow.key, merged.len());
        }
        merged.push(FlowSnapshot {
            key: flow.key,
            opened: flow.opened.then_some(flow.id),
            closed: flow.closed,
            counters: flow.counters,
            rtt: rtt.remove(&flow.id).unwrap_or_default(),
            srtt: flow.srtt,
            rttvar: flow.rttvar,
            cwnd: flow.cwnd,
            liveness: None,
        });
    }
    for Dumped { flow: socket, hooked } in dumped {
        match open.get(&socket.key) {
            Some(&index) => {
                let flow = &mut merged[index];
                let rtt = std::mem::take(&mut flow.rtt);
                let rtt = if rtt.is_empty() && !hooked { socket.rtt } else { rtt };
                *flow = FlowSnapshot { opened: flow.opened, rtt, ..socket };
            }
            // It closed after the dump had seen it.
            None if closed.contains(&socket.key) => {}
            // Known to the dump alone: open before the probe and silent since, or the flow map is full. Whether it was
            // opened under our eyes only the programs can say.
            None => merged.push(FlowSnapshot { opened: None, ..socket }),
        }
    }
    merged
}
