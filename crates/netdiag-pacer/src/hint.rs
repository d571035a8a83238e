//! The recommendation itself, in the shape that every consumer reads (hint server, library, bus).
//!
//! Field names and their meaning are a published contract: `current_tps` and `sleep_seconds` are the original project's,
//! and a client that knows only those two keeps working.

use netdiag_telemetry::{Source, Tps};
use serde::{Deserialize, Serialize};

/// What limits the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The path carries more than is asked of it.
    Clear,
    /// The path carries less.
    Constrained,
    /// The reader takes less: its receive window is full.
    Reader,
    /// Unacknowledged data and no ACK for longer than the path explains.
    Stalled,
    /// Nothing was sent, so nothing is known.
    Idle,
    /// Telemetry is missing or too old to act on.
    Stale,
}

impl State {
    /// All states, in the order of the documentation.
    pub const ALL: [State; 6] = [
        State::Clear,
        State::Constrained,
        State::Reader,
        State::Stalled,
        State::Idle,
        State::Stale,
    ];

    /// The name used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Clear => "clear",
            State::Constrained => "constrained",
            State::Reader => "reader",
            State::Stalled => "stalled",
            State::Idle => "idle",
            State::Stale => "stale",
        }
    }
}

/// How fast to generate for one scope, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// Recommended rate now, tokens/s, smoothed.
    pub current_tps: Tps,
    /// Seconds between two tokens at that rate: 1 / `current_tps`.
    pub sleep_seconds: f64,
    /// Where the smoothed rate is heading, tokens/s.
    pub target_tps: Tps,
    /// Configured lower bound, tokens/s.
    pub min_tps: Tps,
    /// Configured upper bound, tokens/s.
    pub max_tps: Tps,
    /// Link health, 0..=1, 1 = as good as this link gets.
    pub health: f64,
    /// The anomaly light.
    pub anomaly: bool,
    /// Anomaly score, 0..=1, 1 = most anomalous.
    pub anomaly_score: f64,
    /// What limits the scope.
    pub state: State,
    /// One sentence for a person.
    pub reason: String,
    /// Generate nothing until a later hint says otherwise.
    pub hold: bool,
    /// What the hint speaks of: `host`, `peer ADDRESS` or `stream ADDRESS:PORT`.
    pub scope: String,
    /// Age of the telemetry behind the hint, seconds.
    pub age_seconds: f64,
    /// Which source measured; absent when nothing was measured yet.
    pub source: Option<Source>,
}
