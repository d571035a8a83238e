//! From a tick to hints: one pacer per scope, kept as long as its flows are there.
//!
//! Invariant: memory follows the flows of the last tick and nothing else; a scope whose flows are gone is forgotten,
//! and presumed healthy if it comes back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use netdiag_hints::{Board, StreamEntry};
use netdiag_pacer::{Classic, Observation, TpsRange};
use netdiag_telemetry::{Bytes, FlowKey, LinkSample, Liveness, Scope, StreamSample, Tick};
use tokio::time::Instant;

/// Share of an interval with a full receive window from which on the reader is the one to name: beyond half, it held
/// the stream back for longer than anything else did.
const READER_SHARE: f64 = 0.5;

/// The pacers of all scopes.
#[derive(Debug)]
pub(crate) struct Pacers {
    range: TpsRange,
    host: Classic,
    peers: HashMap<IpAddr, Paced>,
    streams: HashMap<FlowKey, Paced>,
    tick: u64,
}

#[derive(Debug)]
struct Paced {
    pacer: Classic,
    seen_in: u64,
}

impl Pacers {
    /// Pacers that recommend rates within `range`.
    pub(crate) fn new(range: TpsRange) -> Self {
        Self {
            range,
            host: Classic::new(range),
            peers: HashMap::new(),
            streams: HashMap::new(),
            tick: 0,
        }
    }

    /// What there is to show before the first tick.
    pub(crate) fn empty_board(&self) -> Board {
        let host = self.host.hint(&Scope::Host, Duration::ZERO);
        Board::new(host, BTreeMap::new(), Vec::new(), None)
    }

    /// Takes in an interval that lasted `elapsed`, and gives the hints for every scope in it. Their age is for the
    /// server to tell.
    pub(crate) fn observe(&mut self, tick: &Tick, elapsed: Duration) -> Board {
        self.tick += 1;
        let (range, now) = (self.range, self.tick);
        let held = tick.streams.iter().filter(|stream| held_by_reader(stream));
        let held: HashSet<IpAddr> = held.map(|stream| stream.key.peer.ip()).collect();
        self.host.observe(&of_host(tick, !held.is_empty()), elapsed);
        let peers = tick.peers.iter().map(|(peer, sample)| {
            let pacer = pacer(&mut self.peers, *peer, range, now);
            pacer.observe(&of_many(sample, held.contains(peer)), elapsed);
            (*peer, pacer.hint(&Scope::Peer(*peer), Duration::ZERO))
        });
        let peers = peers.collect();
        let open = tick.streams.iter().filter(|stream| !stream.closed);
        let streams = open.map(|stream| {
            let pacer = pacer(&mut self.streams, stream.key, range, now);
            pacer.observe(&of_stream(stream), elapsed);
            StreamEntry {
                key: stream.key,
                hint: pacer.hint(&Scope::Stream(stream.key), Duration::ZERO),
                sample: stream.sample,
                liveness: stream.liveness,
                waiting: stream.waiting,
            }
        });
        let streams = streams.collect();
        self.peers.retain(|_, paced| paced.seen_in == now);
        self.streams.retain(|_, paced| paced.seen_in == now);
        let host = self.host.hint(&Scope::Host, Duration::ZERO);
        Board::new(host, peers, streams, Some(Instant::now()))
    }
}

fn pacer<K: Eq + Hash>(
    pacers: &mut HashMap<K, Paced>,
    key: K,
    range: TpsRange,
    now: u64,
) -> &mut Classic {
    let paced =
        pacers.entry(key).or_insert_with(|| Paced { pacer: Classic::new(range), seen_in: now });
    paced.seen_in = now;
    &mut paced.pacer
}

/// The host's interval. Connections that sleep have no say in how many of the others stall.
fn of_host(tick: &Tick, any_held: bool) -> Observation {
    let sample = &tick.host.sample;
    let stalled = f64::from(sample.stalled_flows.unwrap_or_default());
    let active = f64::from(tick.active_flows.max(1));
    Observation { stalled: (stalled / active).min(1.0), ..of_many(sample, any_held) }
}

/// Several flows together are the readers' to move only if none of them moves.
fn of_many(sample: &LinkSample, any_held: bool) -> Observation {
    Observation { reader_limited: any_held && sample.rtt.is_none(), ..Observation::from(sample) }
}

/// The kernel counted the interval as the reader's, or data waits while nothing is under way and no round trip ended,
/// which only a shut window explains.
fn held_by_reader(stream: &StreamSample) -> bool {
    let waits = |live: Liveness| live.notsent > Bytes(0) && live.unacked_segs == 0;
    let shut = stream.sample.rtt.is_none() && stream.liveness.is_some_and(waits);
    stream.rwnd_limited >= READER_SHARE || shut
}

fn of_stream(stream: &StreamSample) -> Observation {
    Observation { reader_limited: held_by_reader(stream), ..Observation::from(&stream.sample) }
}

#[cfg(test)]
mod tests;
