//! From a tick to hints: one pacer per scope, kept as long as its flows are there.
//!
//! Health is judged per interval and scope. Rates come from it (`classic`), or from what the kernel says of each flow, ten times a
//! second (`carry`, [`carried`]); then health says no more than how the link is.
//!
//! A peer with a single connection is that connection, and is judged once. With a second one, or the next, it gets a memory of
//! its own, which begins as the first one's.
//!
//! Invariant: memory follows the flows of the last tick and nothing else; a scope whose flows are gone is forgotten, and presumed healthy
//! if it comes back. Only what is known of a connection that is gone stays for one interval more, as its peer's, for who comes next.

mod carried;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netdiag_hints::bus::Seat;
use netdiag_hints::{Board, StreamEntry};
use netdiag_pacer::{Hint, TpsRange};
use netdiag_telemetry::{
    Bytes, FlowKey, FlowSnapshot, LinkSample, Liveness, Scope, StreamSample, Tick, give_back,
};
use tokio::time::Instant;

use crate::models::Models;
use crate::paced_link::{PacedLink, Waiting};
use crate::sampler::Interval;
use carried::Flows;

pub(crate) use carried::{Sharing, TICK};

/// Share of an interval with a full receive window from which on the reader is the one to name: beyond half, it held
/// the stream back for longer than anything else did.
const READER_SHARE: f64 = 0.5;

/// A stall longer than this is the flow's own (its client is gone) and no sign of the link that others share. Links that
/// come back do so within seconds; the kernel goes on trying for a quarter of an hour.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The pacers of all scopes.
#[derive(Debug)]
pub(crate) struct Pacers {
    range: TpsRange,
    models: Models,
    host: PacedLink,
    /// Those that had more than one connection.
    peers: HashMap<IpAddr, Paced>,
    streams: HashMap<FlowKey, Paced>,
    tick: u64,
    /// What health makes of the last interval.
    judged: Board,
    /// Where the `carry` policy paces.
    flows: Option<Flows>,
    /// Connections that came after it.
    fresh: Vec<StreamEntry>,
}

#[derive(Clone, Debug)]
struct Paced {
    link: PacedLink,
    seen_in: u64,
}

impl Pacers {
    /// Pacers that recommend rates within `range`, for links judged by `models`: by the `carry` policy if it is told what connections
    /// share, and else by `classic`. With a `seat` they share with those of other nodes.
    pub(crate) fn new(
        range: TpsRange,
        models: Models,
        sharing: Option<Sharing>,
        seat: Option<Seat>,
    ) -> Self {
        let host = PacedLink::new(models.host(), range);
        Self {
            range,
            models,
            peers: HashMap::new(),
            streams: HashMap::new(),
            tick: 0,
            judged: Board::new(host.hint(&Scope::Host), BTreeMap::new(), Vec::new(), None),
            flows: sharing.map(|sharing| Flows::new(sharing, seat)),
            fresh: Vec::new(),
            host,
        }
    }

    /// Takes in every flow as it is at `now`, and the interval that ends with it if one does; gives the hints for every scope.
    pub(crate) fn take(
        &mut self,
        flows: &[FlowSnapshot],
        now: Duration,
        interval: Option<&Interval<'_>>,
    ) -> Board {
        self.pace(flows, now);
        if let Some(interval) = interval {
            self.observe(interval.tick, interval.elapsed);
        }
        self.board()
    }

    /// The hints for every scope of the last interval. Their age is for the server to tell.
    pub(crate) fn board(&self) -> Board {
        let mut board = self.judged.clone();
        let Some(flows) = &self.flows else { return board };
        board.add(self.fresh.iter().cloned());
        let (host, peers) = flows.totals();
        board.host = flows.hint_of(&host, &board.host);
        for (peer, hint) in &mut board.peers {
            if let Some(total) = peers.get(peer) {
                *hint = flows.hint_of(total, hint);
            }
        }
        board.each_stream(|stream| {
            if let Some((hint, carried)) = flows.hint(&stream.key, &stream.hint) {
                (stream.hint, stream.carried) = (hint, Some(carried));
            }
        });
        board
    }

    /// Takes in every flow as it is at `now`, which is asked for every [`TICK`] or so.
    fn pace(&mut self, flows: &[FlowSnapshot], now: Duration) {
        if let Some(paced) = &mut self.flows {
            let new = paced.observe(flows, now);
            self.judged.sampled_at = self.judged.sampled_at.map(|_| Instant::now());
            if !new.is_empty() {
                let new: HashSet<FlowKey> = new.into_iter().collect();
                let came = flows.iter().filter(|flow| !flow.closed && new.contains(&flow.key));
                self.fresh.extend(came.map(|flow| fresh(flow, self.range, &self.judged)));
            }
        }
    }

    /// Takes in an interval that lasted `elapsed`.
    fn observe(&mut self, tick: &Tick, elapsed: Duration) {
        self.tick += 1;
        if let Some(model) = self.models.keep_up(&mut self.host) {
            let scopes = self.peers.values_mut().chain(self.streams.values_mut());
            scopes.for_each(|paced| paced.link.set_model(Arc::clone(&model)));
        }
        let (range, models, now) = (self.range, &self.models, self.tick);
        let mut load = Load::default();
        let mut peer_loads: HashMap<IpAddr, Load> = HashMap::new();
        for stream in &tick.streams {
            load.add(stream);
            peer_loads.entry(stream.key.peer.ip()).or_default().add(stream);
        }
        self.host.observe(&tick.host.sample, load.waiting(&tick.host.sample), elapsed);
        let unknown = || Paced { link: PacedLink::new(models.scope(), range), seen_in: now };
        for stream in &tick.streams {
            let peer = stream.key.peer.ip();
            if peer_loads.get(&peer).is_some_and(|load| load.flows > 1)
                && !self.peers.contains_key(&peer)
                && let Some(past) = self.streams.get(&stream.key)
            {
                self.peers.insert(peer, past.clone());
            }
        }
        let mut hints = BTreeMap::new();
        for (peer, sample) in &tick.peers {
            let load = peer_loads.remove(peer).unwrap_or_default();
            if load.flows == 1 && !self.peers.contains_key(peer) {
                continue;
            }
            let paced = self.peers.entry(*peer).or_insert_with(unknown);
            paced.seen_in = now;
            paced.link.observe(sample, load.waiting(sample), elapsed);
            hints.insert(*peer, paced.link.hint(&Scope::Peer(*peer)));
        }
        // Of a burst most may be over already.
        let open = tick.streams.iter().filter(|stream| !stream.closed).count();
        let mut streams = Vec::with_capacity(open);
        for stream in &tick.streams {
            let paced = self.streams.entry(stream.key).or_insert_with(unknown);
            paced.seen_in = now;
            paced.link.observe(&stream.sample, of_stream(stream), elapsed);
            let peer = stream.key.peer.ip();
            hints.entry(peer).or_insert_with(|| paced.link.hint(&Scope::Peer(peer)));
            if stream.closed {
                if let Some(past) = self.streams.remove(&stream.key) {
                    self.peers.entry(peer).or_insert(past);
                }
                continue;
            }
            streams.push(StreamEntry {
                key: stream.key,
                hint: paced.link.hint(&Scope::Stream(stream.key)),
                sample: stream.sample,
                liveness: stream.liveness,
                waiting: stream.waiting,
                carried: None,
            });
        }
        // Not every source tells that a connection was closed: of `sock_diag`'s it is only not there any more. What is known of its
        // client's link is the next one's to start from all the same.
        for (key, past) in self.streams.extract_if(|_, paced| paced.seen_in != now) {
            self.peers.entry(key.peer.ip()).or_insert(Paced { seen_in: now, ..past });
        }
        self.peers.retain(|_, paced| paced.seen_in == now);
        give_back(&mut self.streams);
        give_back(&mut self.peers);
        let host = self.host.hint(&Scope::Host);
        self.judged = Board::new(host, hints, streams, Some(Instant::now()));
        self.fresh = Vec::new();
        self.judged.row = Some(tick.host);
    }
}

/// A connection of which no interval is known yet.
fn fresh(flow: &FlowSnapshot, range: TpsRange, judged: &Board) -> StreamEntry {
    let hint = Hint::unknown(range, &Scope::Stream(flow.key), "nothing observed yet");
    StreamEntry {
        key: flow.key,
        hint: Hint { source: judged.host.source, ..hint },
        sample: LinkSample {
            timestamp: judged.row.map_or(Duration::ZERO, |row| row.sample.timestamp),
            rtt: None,
            srtt: flow.srtt,
            retrans_segs: 0,
            segs_out: None,
            avg_cwnd: None,
            throughput_bps: None,
            flows: Some(1),
            stalled_flows: Some(0),
            source: judged.host.source,
        },
        liveness: flow.liveness,
        waiting: Duration::ZERO,
        carried: None,
    }
}

/// What the flows of one scope have to say beyond their common sample.
#[derive(Debug, Default)]
struct Load {
    /// All flows.
    flows: u32,
    /// Open flows.
    open: u32,
    /// Those of them that stall.
    stuck: u32,
    /// Those that stall since a moment ago.
    stalled: u32,
    /// Those that move or stall since a moment ago. The others sleep, or are lost on their own.
    active: u32,
    /// A reader holds one back.
    held: bool,
}

impl Load {
    fn add(&mut self, stream: &StreamSample) {
        self.flows += 1;
        if stream.closed {
            return;
        }
        let sample = &stream.sample;
        let stuck = sample.stalled_flows.is_some_and(|flows| flows > 0);
        let outstanding = stream.liveness.is_some_and(|live| live.unacked_segs > 0);
        let delivered = sample.throughput_bps.is_some_and(|rate| rate > 0.0);
        let moving = !stuck && (sample.rtt.is_some() || delivered || outstanding);
        let stalled = stuck && stream.waiting <= LOST_AFTER;
        self.open += 1;
        self.stuck += u32::from(stuck);
        self.stalled += u32::from(stalled);
        self.active += u32::from(moving || stalled);
        self.held |= held_by_reader(stream);
    }

    /// The scope's interval. Connections that sleep have no say in how many of the others stall, but a stall of the others
    /// is no reason to hold what they may yet want.
    fn waiting(&self, sample: &LinkSample) -> Waiting {
        let all = self.stuck > 0 && self.stuck == self.open;
        let share = f64::from(self.stalled) / f64::from(self.active.max(1));
        Waiting {
            stalled: if all { 1.0 } else { share },
            hold: all,
            // Several flows together are the readers' to move only if none of them moves.
            reader_limited: self.held && sample.rtt.is_none(),
        }
    }
}

/// The kernel counted the interval as the reader's, or data waits while nothing is under way and no round trip ended,
/// which only a shut window explains.
fn held_by_reader(stream: &StreamSample) -> bool {
    let waits = |live: Liveness| live.notsent > Bytes(0) && live.unacked_segs == 0;
    let shut = stream.sample.rtt.is_none() && stream.liveness.is_some_and(waits);
    stream.rwnd_limited >= READER_SHARE || shut
}

fn of_stream(stream: &StreamSample) -> Waiting {
    Waiting { reader_limited: held_by_reader(stream), ..Waiting::in_sample(&stream.sample) }
}

#[cfg(test)]
mod tests;
