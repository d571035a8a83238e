//! What the server shows: one snapshot of all hints, replaced as a whole every sampling interval.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netdiag_http::Pseudonyms;
use netdiag_pacer::{Cause, Causes, Hint, State, WhenStale};
use netdiag_telemetry::{FlowKey, LinkSample, Liveness, Row, Scope};
use serde::Serialize;
use tokio::time::Instant;

/// All hints of one sampling interval.
#[derive(Clone, Debug)]
pub struct Board {
    /// For all matching flows together.
    pub host: Hint,
    /// Per remote address.
    pub peers: BTreeMap<IpAddr, Hint>,
    /// Per flow; kept sorted by [`Board::new`].
    streams: Vec<StreamEntry>,
    /// Telemetry tells no peers apart, so the host's hint is every peer's.
    pub(crate) host_only: bool,
    /// The host's interval itself, for who wants more than the hint; `None` before the first.
    pub row: Option<Row>,
    /// When the telemetry behind the hints was sampled; `None` before the first sample.
    pub sampled_at: Option<Instant>,
    /// What the probe had no room for so far, by kind.
    pub lost: Vec<(&'static str, u64)>,
}

/// One flow and its hint.
#[derive(Clone, Debug)]
pub struct StreamEntry {
    /// Which flow.
    pub key: FlowKey,
    /// Its hint.
    pub hint: Hint,
    /// Its last interval.
    pub sample: LinkSample,
    /// Its state at the end of the interval, where known.
    pub liveness: Option<Liveness>,
    /// How long unacknowledged data has waited for an ACK.
    pub waiting: Duration,
    /// What the `carry` policy knows of it, where that is what paces it.
    pub carried: Option<Carried>,
}

/// What the `carry` policy knows of a flow. Tokens are as long as those seen so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// For whom the stream waits at present; `None` while nothing is under way.
    pub cause: Option<Cause>,
    /// The most that the path delivered of late, as averages over a second, tokens/s; `None` while it is not the bottleneck.
    pub carry_tps: Option<f64>,
    /// Tokens that may be under way.
    pub credit: f64,
    /// Tokens written and not acknowledged.
    pub outstanding: f64,
    /// Length of a token on the wire, bytes.
    pub bytes_per_token: f64,
    /// Whose time it was since the flow was first seen.
    pub causes: Causes,
}

impl StreamEntry {
    /// For whom the stream waits while its hint is in `state`, which is another than its own when telemetry is stale.
    pub fn cause(&self, state: State) -> Option<&'static str> {
        match self.carried {
            Some(carried) if state == self.hint.state => carried.cause.map(Cause::as_str),
            _ => state.cause(),
        }
    }
}

impl Board {
    /// A board of the given hints.
    pub fn new(
        host: Hint,
        peers: BTreeMap<IpAddr, Hint>,
        mut streams: Vec<StreamEntry>,
        sampled_at: Option<Instant>,
    ) -> Self {
        streams.sort_unstable_by_key(|stream| (stream.key.peer, stream.key));
        Self { host, peers, streams, host_only: false, row: None, sampled_at, lost: Vec::new() }
    }

    /// A board from telemetry of the host as a whole: its hint is also that of every peer and stream.
    pub fn of_host(host: Hint, sampled_at: Option<Instant>) -> Self {
        Self { host_only: true, ..Self::new(host, BTreeMap::new(), Vec::new(), sampled_at) }
    }

    /// The same with pseudonyms for the addresses of both ends, in everything that is shown of them.
    pub fn anonymised(self, pseudonyms: &Pseudonyms) -> Self {
        let peers = self.peers.into_iter().map(|(peer, hint)| {
            let peer = pseudonyms.address(peer);
            (peer, Hint { scope: Scope::Peer(peer).to_string(), ..hint })
        });
        let peers = peers.collect();
        let streams = self.streams.into_iter().map(|stream| {
            let FlowKey { netns, local, peer } = stream.key;
            // Of a connection that stays on this host, our end is another one's client; which those are is not always known yet.
            let (local, peer) = (pseudonyms.socket(local), pseudonyms.socket(peer));
            let key = FlowKey { netns, local, peer };
            let hint = Hint { scope: Scope::Stream(key).to_string(), ..stream.hint };
            StreamEntry { key, hint, ..stream }
        });
        let mut streams: Vec<StreamEntry> = streams.collect();
        streams.sort_unstable_by_key(|stream| (stream.key.peer, stream.key));
        Self { peers, streams, ..self }
    }

    /// A hint of it with its age as it is now, or what is said of one that is too old.
    pub fn present(&self, hint: Hint, stale_after: Duration, when_stale: WhenStale) -> Hint {
        hint.aged(self.age(), stale_after, when_stale)
    }

    /// How old the telemetry behind it is; `None` before the first.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.sampled_at.map(|at| Instant::now().saturating_duration_since(at))
    }

    /// All flows, sorted by the client's address.
    pub fn streams(&self) -> &[StreamEntry] {
        &self.streams
    }

    /// Adds flows that it does not have.
    pub fn add(&mut self, streams: impl IntoIterator<Item = StreamEntry>) {
        let before = self.streams.len();
        self.streams.extend(streams);
        if self.streams.len() > before {
            self.streams.sort_by_key(|stream| (stream.key.peer, stream.key));
            self.streams.dedup_by_key(|stream| stream.key);
        }
    }

    /// Changes every flow's entry. Keys stay as they are.
    pub fn each_stream(&mut self, change: impl FnMut(&mut StreamEntry)) {
        self.streams.iter_mut().for_each(change);
        debug_assert!(self.streams.is_sorted_by_key(|stream| (stream.key.peer, stream.key)));
    }

    /// A flow to the client at `peer`.
    pub fn stream(&self, peer: SocketAddr) -> Option<&StreamEntry> {
        let at = self.streams.partition_point(|stream| stream.key.peer < peer);
        self.streams.get(at).filter(|stream| stream.key.peer == peer)
    }
}

/// One flow as `GET /v1/streams` lists it. Durations carry their unit in the name, as in the CSV.
#[derive(Serialize)]
pub(crate) struct StreamView<'a> {
    peer: SocketAddr,
    local: SocketAddr,
    netns: u32,
    state: &'static str,
    /// For whom the stream waits; `null` if for nobody, or nobody that is known.
    cause: Option<&'static str>,
    p95_rtt_us: Option<u64>,
    srtt_us: Option<u64>,
    retrans_count: u64,
    throughput_bps: Option<f64>,
    avg_cwnd: Option<f64>,
    unacked_segs: Option<u32>,
    notsent_bytes: Option<u64>,
    waiting_us: u64,
    carry_tps: Option<f64>,
    credit_tokens: Option<f64>,
    outstanding_tokens: Option<f64>,
    bytes_per_token: Option<f64>,
    /// `null` where the `classic` policy paces.
    seconds_by_cause: Option<Causes>,
    hint: &'a Hint,
}

impl<'a> StreamView<'a> {
    /// The view of a flow, with the hint as it is at the time of the request.
    pub(crate) fn new(stream: &StreamEntry, hint: &'a Hint) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self {
            peer: stream.key.peer,
            local: stream.key.local,
            netns: stream.key.netns,
            state: hint.state.as_str(),
            cause: stream.cause(hint.state),
            p95_rtt_us: stream.sample.rtt.map(|rtt| micros(rtt.p95)),
            srtt_us: stream.sample.srtt.map(micros),
            retrans_count: stream.sample.retrans_segs,
            throughput_bps: stream.sample.throughput_bps,
            avg_cwnd: stream.sample.avg_cwnd,
            unacked_segs: stream.liveness.map(|live| live.unacked_segs),
            notsent_bytes: stream.liveness.map(|live| live.notsent.0),
            waiting_us: micros(stream.waiting),
            carry_tps: stream.carried.and_then(|carried| carried.carry_tps),
            credit_tokens: stream.carried.map(|carried| carried.credit),
            outstanding_tokens: stream.carried.map(|carried| carried.outstanding),
            bytes_per_token: stream.carried.map(|carried| carried.bytes_per_token),
            seconds_by_cause: stream.carried.map(|carried| carried.causes),
            hint,
        }
    }
}
