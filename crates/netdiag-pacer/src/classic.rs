//! The original project's policy: health → rate.
//!
//! ```text
//! quality = min(health, 1 − share of flows that stall)      0 if the reader takes nothing
//! rate    = min + (max − min) · EMA½ₛ(quality)
//! ```
//!
//! Health comes from outside, 0..=1: a sigmoid of RTT over the link's own baseline and of retransmissions, taken over
//! seconds, so that a single spike moves nothing. What needs no second look is added here: flows that stall (data is out and no
//! ACK comes) and a reader that takes nothing lower the rate in the interval in which they are seen, and by name.
//!
//! It paces a scope as a whole by what a CSV row can tell. The `carry` policy exists for input that knows each flow.
//!
//! | theirs | ours | why |
//! | --- | --- | --- |
//! | sigmoid of p95 RTT in ms | sigmoid of its ratio to the link's own baseline | a long clean path carries as much as a short one |
//! | p95 over the 60 s window | over the last seconds | the window would keep a healed link slow for a minute |
//! | retransmissions per interval | share of segments, pooled over seconds | five of five hundred are not five of ten |
//! | EMA with a weight per poll | EMA with a time constant | the interval must not change the behaviour |
//! | silence keeps the last rate | silence with data waiting is a stall, without is idle | a dead link has no RTT samples |
//!
//! Invariants: the rate stays within the configured range; worse health or more stalled flows never raise it.

use std::time::Duration;

use netdiag_telemetry::{Scope, Source, Tps};

use crate::hint::{Hint, State, TpsRange};

/// Time constant of the rate. Health has waited for a second opinion already; this only makes steps of the rate slopes
/// that a reader does not notice as such: nine tenths of the way take 1.2 s.
const SMOOTHING: Duration = Duration::from_millis(500);

/// Quality below which the path counts as constrained: three quarters of the range is where a reader begins to notice.
const CONSTRAINED_BELOW: f64 = 0.75;

/// What one interval showed, as far as this policy cares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// What the link was judged to be.
    pub link: Judgement,
    /// A round trip was measured.
    pub round_trip: bool,
    /// There was nothing to judge the path by: no round trip, no loss, nobody waiting. Health is that of the time before.
    pub idle: bool,
    /// Share of the flows with something to deliver that stall; anything outside 0..=1 is taken as its nearest end.
    pub stalled: f64,
    /// Every open flow stalls, so nothing that is generated now can be delivered.
    pub hold: bool,
    /// Data waits and the peer's receive window held it back for most of the interval.
    pub reader_limited: bool,
    /// Which source measured.
    pub source: Option<Source>,
}

/// How well a link is, by whatever judges links.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// 0..=1, 1 = as good as this link gets; anything outside is taken as its nearest end, no number as 1.
    pub health: f64,
    /// The anomaly light.
    pub anomaly: bool,
    /// 0..=1, 1 = most anomalous; passed on as it is.
    pub anomaly_score: f64,
    /// What the link is like, for a person.
    pub reason: String,
}

impl Default for Judgement {
    /// Of a link of which nothing is known: presumed healthy.
    fn default() -> Self {
        Self { health: 1.0, anomaly: false, anomaly_score: 0.0, reason: String::new() }
    }
}

/// The policy's memory for one scope.
#[derive(Clone, Debug)]
pub struct Classic {
    range: TpsRange,
    /// Quality that the last interval showed, 0..=1.
    target: f64,
    /// Smoothed quality, 0..=1.
    quality: f64,
    last: Option<Observation>,
}

impl Classic {
    /// A scope of which nothing is known: presumed healthy.
    pub fn new(range: TpsRange) -> Self {
        Self { range, target: 1.0, quality: 1.0, last: None }
    }

    /// Takes in an interval that lasted `elapsed`. One that lasted no time leaves the rate as it is.
    pub fn observe(&mut self, mut seen: Observation, elapsed: Duration) {
        seen.stalled = share(seen.stalled, 0.0);
        seen.link.health = share(seen.link.health, 1.0);
        self.target =
            if takes_nothing(&seen) { 0.0 } else { seen.link.health.min(1.0 - seen.stalled) };
        self.quality = self.target + (self.quality - self.target) * decay(elapsed);
        self.last = Some(seen);
    }

    /// The recommended rate now.
    pub fn rate(&self) -> Tps {
        self.range.at(self.quality)
    }

    /// The recommendation for `scope`, from telemetry that is `age` old.
    pub fn hint(&self, scope: &Scope, age: Duration) -> Hint {
        let Some(last) = &self.last else {
            return Hint::unknown(self.range, scope, "nothing observed yet");
        };
        let (state, reason) = self.explain(last);
        let current_tps = self.rate();
        Hint {
            current_tps,
            sleep_seconds: current_tps.seconds_per_token(),
            target_tps: self.range.at(self.target),
            min_tps: self.range.min(),
            max_tps: self.range.max(),
            health: last.link.health,
            anomaly: last.link.anomaly,
            anomaly_score: last.link.anomaly_score,
            state,
            reason,
            hold: last.hold,
            scope: scope.to_string(),
            age_seconds: age.as_secs_f64(),
            source: last.source,
        }
    }

    fn explain(&self, last: &Observation) -> (State, String) {
        let link = &last.link.reason;
        if last.stalled >= 1.0 {
            (State::Stalled, "path: data is outstanding and no ACK arrives".to_owned())
        } else if takes_nothing(last) {
            (State::Reader, "reader: receive window full, nothing was taken".to_owned())
        } else if last.reader_limited {
            (State::Reader, format!("reader: receive window full; {link}"))
        } else if last.idle {
            (State::Idle, "no round trip was measured".to_owned())
        } else if self.target < CONSTRAINED_BELOW {
            (State::Constrained, format!("path: {link}"))
        } else {
            (State::Clear, link.clone())
        }
    }
}

/// Data waits for a reader whose window stays shut: what it takes gives round trips.
fn takes_nothing(seen: &Observation) -> bool {
    seen.reader_limited && !seen.round_trip
}

/// A share as one; no number counts as `otherwise`.
fn share(value: f64, otherwise: f64) -> f64 {
    if value.is_nan() { otherwise } else { value.clamp(0.0, 1.0) }
}

/// What remains of the average's past after `elapsed`.
fn decay(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / SMOOTHING.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests;
