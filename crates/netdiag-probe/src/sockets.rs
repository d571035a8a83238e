//! Every socket of every namespace that can be entered, dump after dump.
//!
//! Remembers per socket what turns cumulative state into news: the RTT estimator and whether the socket was there when
//! its namespace was first seen. Namespaces are looked for again when one turns up that is not known, and every few
//! seconds.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use netdiag_telemetry::{FlowKey, FlowSnapshot, Liveness, RttSamples, give_back};

use crate::estimate::RttEstimator;
use crate::netns::{self, Netns};
use crate::sockdiag::{self, Entry};

/// How long a new namespace may go unnoticed by the dumps. Looking costs a pass over /proc (some milliseconds with
/// hundreds of processes), so not every time.
const REDISCOVER: Duration = Duration::from_secs(5);

/// `TCP_ESTABLISHED` of `include/net/tcp_states.h`: the state whose packets pass the eBPF hook.
const ESTABLISHED: u8 = 1;

/// `TCP_FIN_WAIT1`, `TCP_LAST_ACK`, `TCP_CLOSING`: the application has closed the socket, and what is left of its data
/// delays nobody.
const CLOSED_BY_US: [u8; 3] = [4, 9, 11];

/// One socket of a dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(crate) flow: FlowSnapshot,
    /// The eBPF hooks see its RTT samples: established, and with SACK (without, the kernel keeps no RACK state).
    pub(crate) hooked: bool,
}

/// The dumps' memory.
#[derive(Debug)]
pub(crate) struct Sockets {
    own: u32,
    /// Look into this namespace alone.
    only: Option<Netns>,
    foreign: Vec<Netns>,
    looked: Option<Instant>,
    /// Namespaces whose sockets have been dumped before: a socket new in them was opened since.
    seen: HashSet<u32>,
    /// Namespaces that refused us; they are not tried again.
    refused: HashSet<u32>,
    /// Namespaces with flows that no process and no name leads to; not looked for again before the next look is due.
    hidden: HashSet<u32>,
    known: HashMap<FlowKey, Known>,
    round: u64,
}

#[derive(Debug)]
struct Known {
    cookie: u64,
    opened: Option<u64>,
    estimator: RttEstimator,
    round: u64,
}

impl Sockets {
    pub(crate) fn new(own: u32, only: Option<Netns>) -> Self {
        Self {
            own,
            only,
            foreign: Vec::new(),
            looked: None,
            seen: HashSet::new(),
            refused: HashSet::new(),
            hidden: HashSet::new(),
            known: HashMap::new(),
            round: 0,
        }
    }

    /// Dumps the namespaces: our own and all others that can be entered, or the one that was asked for. `expected` are
    /// namespaces that are known to have flows. Fails only if no namespace at all could be dumped.
    pub(crate) fn dump(&mut self, expected: impl Iterator<Item = u32>) -> io::Result<Vec<Dumped>> {
        self.round += 1;
        self.look_for_namespaces(expected);
        let mut results = Vec::new();
        if self.only.as_ref().is_none_or(|only| only.inode == self.own) {
            results.push((self.own, sockdiag::dump(self.own)));
        }
        let foreign = std::mem::take(&mut self.foreign);
        let visited = netns::visit(&foreign, |ns| sockdiag::dump(ns.inode));
        results.extend(foreign.iter().map(|ns| ns.inode).zip(visited));
        self.foreign = foreign;

        let mut flows = Vec::new();
        let mut failure = None;
        let mut dumped = false;
        for (inode, result) in results {
            match result {
                Ok(entries) => {
                    dumped = true;
                    let first = self.seen.insert(inode);
                    flows.extend(entries.into_iter().map(|entry| self.snapshot(entry, first)));
                }
                Err(error) => {
                    tracing::debug!(netns = inode, %error, "namespace not dumped");
                    self.foreign.retain(|ns| ns.inode != inode);
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        self.refused.insert(inode);
                    }
                    failure = Some(error);
                }
            }
        }
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        give_back(&mut self.known);
        match failure {
            Some(error) if !dumped => Err(error),
            _ => Ok(flows),
        }
    }

    fn snapshot(&mut self, entry: Entry, first: bool) -> Dumped {
        let Entry { key, cookie, info, queued } = entry;
        let fresh = || Known {
            cookie,
            opened: (!first).then_some(cookie),
            estimator: RttEstimator::default(),
            round: 0,
        };
        let known = self.known.entry(key).or_insert_with(fresh);
        if known.cookie != cookie {
            *known = fresh();
        }
        let rtt = if known.round == 0 && known.opened.is_none() {
            // It was there before us: its average is history, not a sample of this interval.
            known.estimator = RttEstimator::new(&info);
            None
        } else {
            known.estimator.advance(&info)
        };
        known.round = self.round;
        let liveness = || Liveness { queued: Some(queued), ..info.liveness() };
        let flow = FlowSnapshot {
            key,
            opened: known.opened,
            closed: false,
            counters: info.counters(),
            rtt: rtt.map(RttSamples::one).unwrap_or_default(),
            srtt: info.srtt(),
            rttvar: info.srtt().map(|_| info.rttvar),
            cwnd: info.snd_cwnd,
            liveness: (!CLOSED_BY_US.contains(&info.state)).then(liveness),
        };
        Dumped { flow, hooked: info.state == ESTABLISHED && info.sack }
    }

    fn look_for_namespaces(&mut self, expected: impl Iterator<Item = u32>) {
        if let Some(only) = &self.only {
            self.foreign = Vec::from_iter((only.inode != self.own).then(|| only.clone()));
            return;
        }
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= REDISCOVER);
        if due {
            self.hidden.clear();
        }
        let missing: HashSet<u32> = expected.filter(|inode| !self.is_known(*inode)).collect();
        if due || !missing.is_empty() {
            self.foreign = netns::discover();
            // Inodes are used again: a namespace that went and one that came may share one.
            self.refused.retain(|inode| self.foreign.iter().any(|ns| ns.inode == *inode));
            self.foreign.retain(|ns| ns.inode != self.own && !self.refused.contains(&ns.inode));
            let present: HashSet<u32> = self.foreign.iter().map(|ns| ns.inode).collect();
            let own = self.own;
            self.seen.retain(|inode| *inode == own || present.contains(inode));
            self.looked = Some(Instant::now());
            self.hidden.extend(missing.difference(&present));
        }
    }

    fn is_known(&self, inode: u32) -> bool {
        inode == self.own
            || self.refused.contains(&inode)
            || self.hidden.contains(&inode)
            || self.foreign.iter().any(|ns| ns.inode == inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_went_is_not_refused_any_more() {
        let mut sockets = Sockets::new(0, None);
        let ours = netns::own_inode().expect("a namespace");
        sockets.refused.extend([ours, u32::MAX]);
        sockets.look_for_namespaces(std::iter::empty());
        assert_eq!(sockets.refused, HashSet::from([ours]));
    }
}
