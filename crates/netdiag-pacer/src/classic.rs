//! The original project's policy: RTT and retransmissions → quality → rate.
//!
//! ```text
//! badness = p95 RTT / 150 ms + retransmitted share / 5 %
//! quality = sigmoid(4 · (1 − badness)) · (1 − share of flows that stall)
//! rate    = min + (max − min) · EMA₁ₛ(quality)
//! ```
//!
//! The retransmitted share is pooled over seconds, and a prior of segments without loss keeps one lost segment of two from
//! counting as 50 %. An interval without RTT samples is told apart by what else it shows: flows that stall (data is out
//! and no ACK comes) take the rate down by their share, at once and by name; a reader that takes nothing takes it down as
//! well; retransmissions alone are judged with the last RTT; nothing at all is idle, where the last quality is kept for a
//! while and then forgotten.
//!
//! It knows nothing of a link's own baseline: a long clean path looks as bad as a short congested one. That is what a
//! CSV row can tell, and why the `carry` policy exists for input that knows each flow.
//!
//! | theirs | ours | why |
//! | --- | --- | --- |
//! | p95 over the 60 s window | p95 of the interval | the window would keep a healed link slow for a minute |
//! | retransmissions per interval | share of segments, pooled over seconds | five of five hundred are not five of ten |
//! | EMA with a weight per poll | EMA with a time constant | the interval must not change the behaviour |
//! | silence keeps the last rate | silence with data waiting is a stall, without is idle | a dead link has no RTT samples |
//!
//! Invariants: the rate stays within the configured range; a worse RTT or more loss never raises the quality.

use std::time::Duration;

use netdiag_telemetry::{LinkSample, Scope, Source, Tps};

use crate::hint::{Hint, State, TpsRange};

/// p95 RTT at which quality is one half on a link without loss. 150 ms is where ITU-T G.114 sees conversation begin to
/// suffer, and is well above a healthy regional path.
const RTT_HALF: Duration = Duration::from_millis(150);

/// Retransmitted share at which quality is one half on a link without delay. At 5 % loss, loss-based TCP is down to a
/// few segments per RTT (Mathis et al. 1997: cwnd ≈ 1.2/√p ≈ 5).
const RETRANS_HALF: f64 = 0.05;

/// Steepness of the sigmoid: quality is above 0.98 on a perfect link and below 0.02 at twice the half point. A clean
/// 20 ms path is at 0.97, and at 0.92 even where delayed ACKs add 40 ms to its p95.
const STEEPNESS: f64 = 4.0;

/// Time constant of the rate: a single bad interval of half a second moves it by 39 %, a lasting change takes it nine
/// tenths of the way within 2.3 s.
const SMOOTHING: Duration = Duration::from_secs(1);

/// Time constant over which segments are pooled for the retransmitted share. A stream of tokens sends some tens of
/// segments a second; one interval alone has too few to tell 1 % from 5 %.
const POOLING: Duration = Duration::from_secs(2);

/// Segments without loss that are assumed beside the pooled ones: with them one lost segment of two is 4.5 %, below the
/// half point, and one of a busy link's hundreds still what it is.
const PRIOR_SEGMENTS: f64 = 20.0;

/// Segments per second assumed where the input does not count them (files of the original family).
const ASSUMED_SEGMENTS_PER_SECOND: f64 = 100.0;

/// How long an idle link keeps its last quality before it is presumed healthy again. Longer than pauses within a
/// conversation's answer, shorter than those between questions.
const IDLE_MEMORY: Duration = Duration::from_secs(5);

/// Quality below which the path counts as constrained: three quarters of the range is where a reader begins to notice.
const CONSTRAINED_BELOW: f64 = 0.75;

/// The anomaly light comes on below this smoothed quality: half of what there was is gone.
const ANOMALY_ON: f64 = 0.5;

/// And goes off above this one. Between the two it stays as it is, so that a link at the edge does not flicker.
const ANOMALY_OFF: f64 = 0.7;

/// What one interval showed, as far as this policy cares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// 95th percentile of the RTT samples; `None` without samples.
    pub p95_rtt: Option<Duration>,
    /// Segments retransmitted.
    pub retrans_segs: u64,
    /// Segments sent; `None` if not counted.
    pub segs_out: Option<u64>,
    /// Share of the flows with something to deliver that stall; anything outside 0..=1 is taken as its nearest end.
    pub stalled: f64,
    /// Every open flow stalls, so nothing that is generated now can be delivered.
    pub hold: bool,
    /// Data waits and the peer's receive window held it back for most of the interval.
    pub reader_limited: bool,
    /// Which source measured.
    pub source: Option<Source>,
}

impl From<&LinkSample> for Observation {
    fn from(sample: &LinkSample) -> Self {
        let stalled = sample.stalled_flows.unwrap_or_default();
        let flows = sample.flows.unwrap_or_default().max(1);
        Self {
            p95_rtt: sample.rtt.map(|rtt| rtt.p95),
            retrans_segs: sample.retrans_segs,
            segs_out: sample.segs_out,
            stalled: f64::from(stalled) / f64::from(flows),
            hold: stalled >= flows,
            reader_limited: false,
            source: sample.source,
        }
    }
}

/// The policy's memory for one scope.
#[derive(Clone, Debug)]
pub struct Classic {
    range: TpsRange,
    /// Quality of the path as of the last interval that showed any, 0..=1.
    path: f64,
    /// Quality that the last interval showed, 0..=1: the path's, less the share of flows that stall.
    target: f64,
    /// Smoothed quality, 0..=1.
    quality: f64,
    /// p95 RTT of the last interval that had samples.
    last_rtt: Duration,
    pooled_retrans: f64,
    pooled_segs: f64,
    idle_for: Duration,
    anomaly: bool,
    last: Option<Observation>,
}

impl Classic {
    /// A scope of which nothing is known: presumed healthy.
    pub fn new(range: TpsRange) -> Self {
        Self {
            range,
            path: 1.0,
            target: 1.0,
            quality: 1.0,
            last_rtt: Duration::ZERO,
            pooled_retrans: 0.0,
            pooled_segs: 0.0,
            idle_for: Duration::ZERO,
            anomaly: false,
            last: None,
        }
    }

    /// Takes in an interval that lasted `elapsed`. One that lasted no time changes nothing but the reason given.
    pub fn observe(&mut self, observation: &Observation, elapsed: Duration) {
        let seen = Observation { stalled: share(observation.stalled), ..*observation };
        self.pool(&seen, elapsed);
        if is_idle(&seen) {
            self.idle_for += elapsed;
            if self.idle_for >= IDLE_MEMORY {
                (self.path, self.target, self.last_rtt) = (1.0, 1.0, Duration::ZERO);
            }
        } else {
            self.idle_for = Duration::ZERO;
            self.last_rtt = seen.p95_rtt.unwrap_or(self.last_rtt);
            if seen.p95_rtt.is_some() || seen.retrans_segs > 0 {
                self.path = quality(self.last_rtt, self.retrans_share());
            }
            self.target = if takes_nothing(&seen) { 0.0 } else { self.path * (1.0 - seen.stalled) };
        }
        self.quality = self.target + (self.quality - self.target) * decay(elapsed, SMOOTHING);
        self.anomaly = self.quality < if self.anomaly { ANOMALY_OFF } else { ANOMALY_ON };
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
            health: self.quality,
            anomaly: self.anomaly,
            anomaly_score: 1.0 - self.quality,
            state,
            reason,
            hold: last.hold,
            scope: scope.to_string(),
            age_seconds: age.as_secs_f64(),
            source: last.source,
        }
    }

    fn explain(&self, last: &Observation) -> (State, String) {
        if last.stalled >= 1.0 {
            return (State::Stalled, "path: data is outstanding and no ACK arrives".to_owned());
        }
        if is_idle(last) {
            let nothing = match last.segs_out {
                Some(0) => "nothing was sent",
                _ => "no round trip was measured",
            };
            return (State::Idle, nothing.to_owned());
        }
        if takes_nothing(last) {
            return (State::Reader, "reader: receive window full, nothing was taken".to_owned());
        }
        let mut link = match last.p95_rtt {
            Some(p95) => format!("p95 RTT {}", millis(p95)),
            None => "no round trip was measured".to_owned(),
        };
        link += &match (last.segs_out, last.retrans_segs) {
            (Some(_), _) => format!(", {:.1} % retransmitted", self.retrans_share() * 100.0),
            (None, 1) => ", 1 segment retransmitted".to_owned(),
            (None, segs) => format!(", {segs} segments retransmitted"),
        };
        if last.stalled > 0.0 {
            link += &format!(", {:.0} % of flows stalled", last.stalled * 100.0);
        }
        if last.reader_limited {
            (State::Reader, format!("reader: receive window full; {link}"))
        } else if self.target < CONSTRAINED_BELOW {
            (State::Constrained, format!("path: {link}"))
        } else {
            (State::Clear, link)
        }
    }

    fn pool(&mut self, seen: &Observation, elapsed: Duration) {
        let keep = decay(elapsed, POOLING);
        let assumed = ASSUMED_SEGMENTS_PER_SECOND * elapsed.as_secs_f64();
        let retrans = seen.retrans_segs as f64;
        let segs = seen.segs_out.map_or(assumed, |segs| segs as f64);
        self.pooled_retrans = self.pooled_retrans * keep + retrans;
        // Counts that two sources took at different moments may disagree.
        self.pooled_segs = self.pooled_segs * keep + segs.max(retrans);
    }

    fn retrans_share(&self) -> f64 {
        self.pooled_retrans / (self.pooled_segs + PRIOR_SEGMENTS)
    }
}

/// Nothing to judge the path by: no round trip, no loss, and nobody waits.
fn is_idle(seen: &Observation) -> bool {
    seen.p95_rtt.is_none() && seen.retrans_segs == 0 && seen.stalled <= 0.0 && !seen.reader_limited
}

/// Data waits for a reader whose window stays shut: what it takes gives round trips.
fn takes_nothing(seen: &Observation) -> bool {
    seen.reader_limited && seen.p95_rtt.is_none()
}

/// A share as one; no number counts as none.
fn share(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

/// Whole milliseconds, or tenths where those would round most of the value away.
fn millis(rtt: Duration) -> String {
    let ms = rtt.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Quality of a link, 0..=1, from its p95 RTT and the share of segments retransmitted.
fn quality(p95_rtt: Duration, retrans_share: f64) -> f64 {
    let badness = p95_rtt.as_secs_f64() / RTT_HALF.as_secs_f64() + retrans_share / RETRANS_HALF;
    1.0 / (1.0 + (-STEEPNESS * (1.0 - badness)).exp())
}

/// What remains of an exponential average's past after `elapsed`.
fn decay(elapsed: Duration, time_constant: Duration) -> f64 {
    (-elapsed.as_secs_f64() / time_constant.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests;
