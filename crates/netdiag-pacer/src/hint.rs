//! The recommendation itself, in the shape that every consumer reads (hint server, library, bus).
//!
//! Field names and their meaning are a published contract: `current_tps` and `sleep_seconds` are the original project's,
//! and a client that knows only those two keeps working.

use std::time::Duration;

use netdiag_telemetry::{Scope, Source, Tps};
use serde::{Deserialize, Serialize};

/// What limits the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The path carries what is asked of it.
    Clear,
    /// The path carries less.
    Constrained,
    /// The reader takes less, or nothing: its receive window is full.
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

    /// Who makes the stream slow in this state; `None` where nobody does or nobody knows.
    pub fn cause(self) -> Option<&'static str> {
        match self {
            State::Constrained | State::Stalled => Some("path"),
            State::Reader => Some("reader"),
            State::Clear | State::Idle | State::Stale => None,
        }
    }
}

/// The rates between which hints move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TpsRange {
    min: Tps,
    max: Tps,
}

/// A lower bound above the upper one.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("minimum rate {min} tokens/s is above maximum rate {max} tokens/s")]
pub struct InvalidRange {
    /// The minimum, as given.
    pub min: Tps,
    /// The maximum, as given.
    pub max: Tps,
}

impl TpsRange {
    /// The range `min..=max`.
    pub fn try_new(min: Tps, max: Tps) -> Result<Self, InvalidRange> {
        if min > max { Err(InvalidRange { min, max }) } else { Ok(Self { min, max }) }
    }

    /// The lower bound.
    pub fn min(self) -> Tps {
        self.min
    }

    /// The upper bound.
    pub fn max(self) -> Tps {
        self.max
    }

    /// The rate within the range that is closest to `tps`; the minimum for what is no number.
    pub fn clamp(self, tps: f64) -> Tps {
        // `max` of no number and a number is the number.
        Tps::try_new(tps.max(self.min.get()).min(self.max.get())).unwrap_or(self.min)
    }

    /// The rate at `share` (0..=1, clamped) of the way from the minimum to the maximum.
    pub fn at(self, share: f64) -> Tps {
        let (min, max) = (self.min.get(), self.max.get());
        // Rounding is undone by the clamp.
        self.clamp(min + (max - min) * share.clamp(0.0, 1.0))
    }
}

/// What to recommend when telemetry is missing or too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenStale {
    /// The maximal rate: a broken probe must not slow a working service.
    #[default]
    Max,
    /// The minimal rate.
    Min,
    /// Nothing.
    Hold,
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
    /// Which source measured; `null` when nothing was measured yet or the file does not say.
    pub source: Option<Source>,
}

impl Hint {
    /// The hint for a scope of which nothing is known: unconstrained, because missing telemetry never throttles.
    pub fn unknown(range: TpsRange, scope: &Scope, reason: impl Into<String>) -> Self {
        Self {
            current_tps: range.max,
            sleep_seconds: range.max.seconds_per_token(),
            target_tps: range.max,
            min_tps: range.min,
            max_tps: range.max,
            health: 1.0,
            anomaly: false,
            anomaly_score: 0.0,
            state: State::Idle,
            reason: reason.into(),
            hold: false,
            scope: scope.to_string(),
            age_seconds: 0.0,
            source: None,
        }
    }

    /// This hint when its telemetry is `age` old (`None`: there never was any): as it is up to `stale_after`, and what
    /// `policy` says beyond.
    pub fn aged(self, age: Option<Duration>, stale_after: Duration, policy: WhenStale) -> Self {
        match age {
            Some(age) if age <= stale_after => Self { age_seconds: age.as_secs_f64(), ..self },
            age => self.into_stale(age, policy),
        }
    }

    /// This hint when its telemetry is `age` old (`None`: there never was any) and that is too old to act on.
    pub fn into_stale(self, age: Option<Duration>, policy: WhenStale) -> Self {
        let rate = match policy {
            WhenStale::Max => self.max_tps,
            WhenStale::Min | WhenStale::Hold => self.min_tps,
        };
        let reason = match age {
            Some(age) => format!("telemetry is {:.1} s old", age.as_secs_f64()),
            None => "no telemetry yet".to_owned(),
        };
        Self {
            current_tps: rate,
            sleep_seconds: rate.seconds_per_token(),
            target_tps: rate,
            anomaly: false,
            anomaly_score: 0.0,
            health: 1.0,
            state: State::Stale,
            reason,
            hold: policy == WhenStale::Hold,
            age_seconds: age.unwrap_or_default().as_secs_f64(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> TpsRange {
        let tps = |n| Tps::try_new(n).expect("valid");
        TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
    }

    #[test]
    fn a_range_has_its_ends_in_order() {
        let range = range();
        let error = TpsRange::try_new(range.max(), range.min()).expect_err("crossed");
        assert_eq!(error.to_string(), "minimum rate 80 tokens/s is above maximum rate 5 tokens/s");
        assert_eq!(range.at(0.0), range.min());
        assert_eq!(range.at(1.0), range.max());
        assert_eq!(range.at(f64::NAN), range.min());
    }

    #[test]
    fn staleness_follows_the_policy() {
        let check = |policy, rate, hold| {
            let hint = Hint::unknown(range(), &Scope::Host, "")
                .into_stale(Some(Duration::from_secs(9)), policy);
            assert_eq!((hint.current_tps.get(), hint.hold), (rate, hold));
            assert_eq!(hint.sleep_seconds, 1.0 / rate);
            assert_eq!((hint.state, hint.age_seconds), (State::Stale, 9.0));
        };
        check(WhenStale::Max, 80.0, false);
        check(WhenStale::Min, 5.0, false);
        check(WhenStale::Hold, 5.0, true);
    }

    #[test]
    fn age_makes_stale_and_not_before() {
        let limit = Duration::from_secs(2);
        let state = |age: Option<u64>| {
            let hint = Hint { state: State::Clear, ..Hint::unknown(range(), &Scope::Host, "") };
            let aged = hint.aged(age.map(Duration::from_secs), limit, WhenStale::Max);
            (aged.state, aged.age_seconds)
        };
        assert_eq!(state(Some(2)), (State::Clear, 2.0));
        assert_eq!(state(Some(3)), (State::Stale, 3.0));
        assert_eq!(state(None), (State::Stale, 0.0));
    }
}
