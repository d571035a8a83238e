//! The flows of a host as the page lists them: what there is to sort by, and no more.

use std::net::SocketAddr;

use netdiag_pacer::State;
use serde::Serialize;

/// Most flows in one answer: some four megabytes, and more than anybody looks through.
const MOST_FLOWS: usize = 20_000;

/// One flow. Units stand in the names; `None` is "not measured".
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    /// The client's end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// 95th percentile of the interval's round trips.
    pub p95_rtt_us: Option<u64>,
    /// The kernel's average.
    pub srtt_us: Option<u64>,
    /// Segments retransmitted in the interval.
    pub retrans_count: u64,
    /// Segments in flight.
    pub unacked_segs: Option<u32>,
    /// Written by the application and not sent yet.
    pub notsent_bytes: Option<u64>,
    /// How long unacknowledged data has waited for an ACK.
    pub waiting_us: u64,
    /// Acknowledged, bit/s.
    pub throughput_bps: Option<f64>,
    /// What limits it.
    pub state: State,
    /// Who makes it slow, if somebody does.
    pub cause: Option<String>,
    /// Recommended rate, tokens/s.
    pub current_tps: f64,
    /// Whether to generate nothing.
    pub hold: bool,
}

#[derive(Serialize)]
struct Flows<'a> {
    t: f64,
    total: usize,
    streams: &'a [FlowRow],
}

/// The answer of `/api/streams`: `flows` as they were at `t` (Unix seconds). Of more than can be shown, those come first that
/// are not well.
pub fn flows_json(t: f64, mut flows: Vec<FlowRow>) -> Result<Vec<u8>, String> {
    let total = flows.len();
    if total > MOST_FLOWS {
        let well = |flow: &FlowRow| matches!(flow.state, State::Clear | State::Idle);
        flows.sort_by_key(well);
        flows.truncate(MOST_FLOWS);
    }
    serde_json::to_vec(&Flows { t, total, streams: &flows }).map_err(|error| error.to_string())
}
