//! From cumulative counters of single flows to one interval's [`LinkSample`] per scope.
//!
//! The table remembers each flow's counters from the tick before and takes differences. It is told the time; a wall
//! clock that jumps changes timestamps and nothing else.
//!
//! Invariants: a counter's delta is never negative and never counts what happened before the flow was first seen,
//! unless the flow was seen being opened; every counted segment is counted in exactly one interval.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::flow::{Counters, FlowKey, FlowSnapshot, Liveness, grown};
use crate::histogram::RttSamples;
use crate::room::give_back;
use crate::sample::{LinkSample, Row, Source};
use crate::window::Window;

/// The least time without an ACK that counts as a stall: below it, delayed ACKs (RFC 9293 §3.8.6.3 allows 0.5 s, Linux
/// uses 40–200 ms) look the same.
const STALL_FLOOR: Duration = Duration::from_millis(200);

/// An instant as both clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Monotonic time since any fixed origin; rates and ages use this one.
    pub monotonic: Duration,
    /// Time since the Unix epoch; only shown.
    pub unix: Duration,
}

/// What one tick showed.
#[derive(Clone, Debug)]
pub struct Tick {
    /// All flows together, with the rolling window.
    pub host: Row,
    /// Per remote address, sorted.
    pub peers: Vec<(IpAddr, LinkSample)>,
    /// Per flow, sorted by key.
    pub streams: Vec<StreamSample>,
}

/// One flow's interval.
#[derive(Clone, Debug)]
pub struct StreamSample {
    /// Which flow.
    pub key: FlowKey,
    /// Its statistics.
    pub sample: LinkSample,
    /// Its state at the end of the interval, where known.
    pub liveness: Option<Liveness>,
    /// How long unacknowledged data has waited for an ACK; zero when nothing waits.
    pub waiting: Duration,
    /// Part of the interval in which the peer's receive window held the flow back, 0..=1.
    pub rwnd_limited: f64,
    /// The connection ended within the interval.
    pub closed: bool,
}

/// The flows seen so far and what they had counted at the last tick.
#[derive(Debug)]
pub struct FlowTable {
    flows: HashMap<FlowKey, FlowState>,
    window: Window,
    last_tick: Option<Duration>,
    source: Source,
    tick: u64,
}

#[derive(Debug)]
struct FlowState {
    opened: Option<u64>,
    counters: Counters,
    liveness: Option<Liveness>,
    waiting: Duration,
    seen_in: u64,
}

/// What one flow adds to its scopes.
struct Delta<'a> {
    snapshot: &'a FlowSnapshot,
    bytes_acked: u64,
    segs_out: u64,
    retrans_segs: u64,
    waiting: Duration,
    stalled: bool,
    rwnd_limited: Duration,
}

impl FlowTable {
    /// An empty table whose rolling statistics span `window`.
    pub fn new(window: Duration, source: Source) -> Self {
        Self {
            flows: HashMap::new(),
            window: Window::new(window),
            last_tick: None,
            source,
            tick: 0,
        }
    }

    /// Changes the source named in the samples (after a fallback).
    pub fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    /// Takes in every flow as it is `now`, and returns the interval since the last tick.
    ///
    /// Flows that are missing from `snapshots` are forgotten. Of several snapshots with the same key, each is counted
    /// in order (a port reused within the interval).
    pub fn tick(&mut self, snapshots: &[FlowSnapshot], now: Instant) -> Tick {
        self.tick += 1;
        let elapsed =
            self.last_tick.map_or(Duration::ZERO, |last| now.monotonic.saturating_sub(last));
        self.last_tick = Some(now.monotonic);

        let mut host = Sums::default();
        let mut peers: HashMap<IpAddr, Sums> = HashMap::new();
        let mut streams = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let delta = self.advance(snapshot);
            host.add(&delta);
            peers.entry(snapshot.key.peer.ip()).or_default().add(&delta);
            streams.push(self.stream_sample(&delta, elapsed, now));
        }
        let tick = self.tick;
        self.flows.retain(|_, state| state.seen_in == tick);
        give_back(&mut self.flows);
        streams.sort_unstable_by_key(|stream: &StreamSample| stream.key);

        let mut peers: Vec<_> = peers
            .into_iter()
            .map(|(peer, sums)| (peer, sums.finish(elapsed, now, self.source)))
            .collect();
        peers.sort_unstable_by_key(|&(peer, _)| peer);
        let rolling = self.window.push(now.monotonic, host.rtt.clone(), host.retrans_segs);
        Tick {
            host: Row { sample: host.finish(elapsed, now, self.source), rolling },
            peers,
            streams,
        }
    }

    /// The flow's growth since the last tick; its state moves on to `snapshot`.
    fn advance<'a>(&mut self, snapshot: &'a FlowSnapshot) -> Delta<'a> {
        let now = snapshot.counters;
        let known = self.flows.get(&snapshot.key).filter(|state| match snapshot.opened {
            Some(_) if snapshot.opened == state.opened => true,
            Some(_) => false,
            // Whether it is the connection of before only its counters can tell.
            None => now.bytes_acked >= state.counters.bytes_acked,
        });
        let (before, waited, liveness_before) = match known {
            Some(state) => (state.counters, state.waiting, state.liveness),
            None if snapshot.opened.is_some() => Default::default(),
            None => (now, Duration::ZERO, None),
        };
        // A source that falls back on an older view of the same connection shows less than before.
        let now = now.at_least(&before);
        let bytes_acked = now.bytes_acked - before.bytes_acked;
        let (waiting, rwnd_limited) = match snapshot.liveness {
            // The kernel's busy time says how long data was outstanding within the interval. Without an advance, all of
            // it was spent waiting; with one, at most what passed since the last ACK.
            Some(live) if live.unacked_segs > 0 && !snapshot.closed => {
                let last = liveness_before.unwrap_or_default();
                let busy = live.busy.saturating_sub(last.busy);
                let waiting = match known {
                    Some(_) if bytes_acked == 0 => waited + busy,
                    // Of a connection that is older than we are, the busy time is that of its life, unless the kernel's
                    // timer says that it waits.
                    None if snapshot.opened.is_none() && live.backoff == 0 => Duration::ZERO,
                    _ => busy,
                };
                (
                    waiting.min(live.last_ack_age),
                    live.rwnd_limited.saturating_sub(last.rwnd_limited),
                )
            }
            Some(live) => {
                let last = liveness_before.unwrap_or_default();
                (Duration::ZERO, live.rwnd_limited.saturating_sub(last.rwnd_limited))
            }
            None => (Duration::ZERO, Duration::ZERO),
        };
        let stalled = !waiting.is_zero() && {
            let srtt = snapshot.srtt.unwrap_or(STALL_FLOOR);
            let explained = srtt + 4 * snapshot.rttvar.unwrap_or_default();
            let backoff = snapshot.liveness.map_or(0, |live| live.backoff);
            backoff >= 1 || waiting > explained.max(STALL_FLOOR)
        };
        self.flows.insert(
            snapshot.key,
            FlowState {
                opened: snapshot.opened,
                counters: now,
                liveness: snapshot.liveness.or(liveness_before),
                waiting,
                // A closed flow is forgotten at the end of the tick.
                seen_in: if snapshot.closed { 0 } else { self.tick },
            },
        );
        Delta {
            snapshot,
            bytes_acked,
            segs_out: u64::from(grown(before.segs_out, now.segs_out)),
            retrans_segs: u64::from(grown(before.retrans_segs, now.retrans_segs)),
            waiting,
            stalled,
            rwnd_limited,
        }
    }

    fn stream_sample(&self, delta: &Delta<'_>, elapsed: Duration, now: Instant) -> StreamSample {
        let mut sums = Sums::default();
        sums.add(delta);
        let rwnd_limited = if elapsed.is_zero() {
            0.0
        } else {
            (delta.rwnd_limited.as_secs_f64() / elapsed.as_secs_f64()).min(1.0)
        };
        StreamSample {
            key: delta.snapshot.key,
            sample: sums.finish(elapsed, now, self.source),
            liveness: delta.snapshot.liveness,
            waiting: delta.waiting,
            rwnd_limited,
            closed: delta.snapshot.closed,
        }
    }
}

/// Running sums of one scope within one tick.
#[derive(Default)]
struct Sums {
    rtt: RttSamples,
    srtt_sum: Duration,
    srtt_flows: u32,
    cwnd_sum: u64,
    bytes_acked: u64,
    segs_out: u64,
    retrans_segs: u64,
    flows: u32,
    active: u32,
    stalled: u32,
}

impl Sums {
    fn add(&mut self, delta: &Delta<'_>) {
        let snapshot = delta.snapshot;
        self.rtt.merge(&snapshot.rtt);
        self.bytes_acked += delta.bytes_acked;
        self.segs_out += delta.segs_out;
        self.retrans_segs += delta.retrans_segs;
        self.flows += 1;
        self.stalled += u32::from(delta.stalled);
        let outstanding = snapshot.liveness.is_some_and(|live| live.unacked_segs > 0);
        if delta.bytes_acked > 0 || !snapshot.rtt.is_empty() || outstanding {
            self.active += 1;
            self.cwnd_sum += u64::from(snapshot.cwnd);
            if let Some(srtt) = snapshot.srtt {
                self.srtt_sum += srtt;
                self.srtt_flows += 1;
            }
        }
    }

    fn finish(self, elapsed: Duration, now: Instant, source: Source) -> LinkSample {
        let seconds = elapsed.as_secs_f64();
        LinkSample {
            timestamp: now.unix,
            rtt: self.rtt.summary(),
            srtt: (self.srtt_flows > 0).then(|| self.srtt_sum / self.srtt_flows),
            retrans_segs: self.retrans_segs,
            segs_out: Some(self.segs_out),
            avg_cwnd: (self.active > 0).then(|| self.cwnd_sum as f64 / f64::from(self.active)),
            throughput_bps: Some(if seconds > 0.0 {
                self.bytes_acked as f64 * 8.0 / seconds
            } else {
                0.0
            }),
            flows: Some(self.flows),
            stalled_flows: Some(self.stalled),
            source: Some(source),
        }
    }
}

#[cfg(test)]
mod tests;
