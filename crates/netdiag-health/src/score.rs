//! From features to one score and to health.
//!
//! ```text
//! badness  = max(0, rtt_ratio⁺ / ln 3 + retrans_rate / 1.5 % − usual)      1 at three times the RTT, or 1.5 % lost
//! severity = 1 / (1 + (0.6 / badness)⁴)
//! lasting  = 1 − (1 − severity) (1 − 0.2·forest) (1 − stalled)
//! score    = max(lasting, 0.49·change)
//! health   = (1 − severity) (1 − 0.2·forest↑) (1 − stalled)
//! ```
//!
//! Each part sees what the others miss. *Severity* knows what hurts a stream. The *forest* knows which combinations this link
//! never shows; being unusual is no harm in itself, so alone it stays well below the flag's threshold, and together with a
//! severity of 0.38 it reaches it. The *change* detector knows the very sample at which the link becomes another; that is news
//! rather than trouble, lasts for one interval, and so has a part in the score but none in the flag. The greater of the two
//! is taken, because a change is no likelier on a link that is in trouble anyway.
//!
//! Invariant: health never rises when `rtt_ratio` or `retrans_rate` does. A forest's score is not monotone, so health reads it
//! through its monotone envelope `forest↑` ([`Envelope`]).

use std::time::Duration;

use crate::features::{Features, View};

/// `rtt_ratio` of badness 1: three times the baseline.
const RATIO_UNIT: f64 = 1.098_612_288_668_109_8;

/// `retrans_rate` of badness 1. With the worst interval left out and the prior of 20 segments, 3 % of a stream's 40 segments a
/// second reads as 1.5 % after two to three seconds.
const RETRANS_UNIT: f64 = 0.015;

/// Badness at which severity is one half: twice the RTT. Far enough below 1 that three times the RTT is told on a link
/// whose usual range is at its limit.
const HALF: f64 = 0.6;

/// Steepness: severity is 1 % at a fifth of badness and 88 % at 1.
const STEEPNESS: i32 = 4;

/// The most that counts as usual: a link that often takes 1.4 times its baseline. Anything above must not be got used to.
const MOST_USUAL: f64 = 0.3;

/// What the forest alone makes of the score, and takes from health.
const FOREST_MOST: f64 = 0.2;

/// What a change alone makes of the score: less than [`ANOMALY_ON`].
const CHANGE_MOST: f64 = 0.49;

/// Surprise that counts half: a step of a hundred times the noise.
const SURPRISE_HALF: f64 = 4.6;

/// The flag is raised at this lasting score,
const ANOMALY_ON: f64 = 0.5;

/// and lowered when it has been below this one
const ANOMALY_OFF: f64 = 0.35;

/// for this long, so that a link at the edge does not flicker.
const CALM: Duration = Duration::from_secs(2);

/// How bad a link is, in units of what a stream notices, beyond what is usual for it (the same unit).
pub(crate) fn badness(features: &Features, usual: f64) -> f64 {
    let rtt = features.rtt_ratio.max(0.0) / RATIO_UNIT;
    let loss = features.retrans_rate / RETRANS_UNIT;
    (rtt + loss - usual.clamp(0.0, MOST_USUAL)).max(0.0)
}

/// A range of `rtt_ratio` as badness.
pub(crate) fn range_as_badness(range: f64) -> f64 {
    range / RATIO_UNIT
}

/// 0..1; one half at [`HALF`].
fn severity(badness: f64) -> f64 {
    if badness <= 0.0 { 0.0 } else { 1.0 / (1.0 + (HALF / badness).powi(STEEPNESS)) }
}

/// 0..1; one half at [`SURPRISE_HALF`].
fn change(surprise: f64) -> f64 {
    let square = surprise * surprise;
    square / (square + SURPRISE_HALF * SURPRISE_HALF)
}

/// What the forest adds, each 0..=1: its verdict on the features, and the envelope's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForestPart {
    pub(crate) verdict: f64,
    pub(crate) envelope: f64,
}

/// The three figures, each 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scores {
    pub(crate) health: f64,
    /// The score without what lasts for one interval only.
    pub(crate) lasting: f64,
    pub(crate) anomaly: f64,
}

/// Combines the parts. `usual` is in units of badness.
pub(crate) fn combine(view: &View, usual: f64, forest: ForestPart, surprise: f64) -> Scores {
    let severity = severity(badness(&view.features, usual));
    let moving = 1.0 - view.stalled;
    let calm = (1.0 - severity) * (1.0 - FOREST_MOST * forest.verdict) * moving;
    Scores {
        health: (1.0 - severity) * (1.0 - FOREST_MOST * forest.envelope) * moving,
        lasting: 1.0 - calm,
        anomaly: (1.0 - calm).max(CHANGE_MOST * change(surprise)),
    }
}

/// The anomaly flag with its hysteresis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag {
    raised: bool,
    calm_for: Duration,
}

impl Flag {
    /// Takes in the lasting score of an interval.
    pub(crate) fn update(&mut self, lasting: f64, elapsed: Duration) -> bool {
        self.calm_for = match lasting < ANOMALY_OFF {
            true => self.calm_for.saturating_add(elapsed),
            false => Duration::ZERO,
        };
        if lasting >= ANOMALY_ON {
            self.raised = true;
        } else if self.calm_for >= CALM {
            self.raised = false;
        }
        self.raised
    }
}

/// Largest `rtt_ratio` (ten times the baseline) and `retrans_rate` of the envelope's grid; beyond, its edge holds.
const GRID_END: [f64; 2] = [2.4, 0.12];

/// Points of the grid along each: steps of 1.1 times the RTT and of half a percent.
const GRID: [usize; 2] = [25, 25];

/// The least function above the forest's verdict that never falls as RTT ratio or retransmit rate grow, the other features
/// being at their usual values: on a grid, and linear between.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// One row per `retrans_rate`.
    grid: Vec<f64>,
}

impl Envelope {
    /// Of a verdict (0..=1) for given `rtt_ratio` and `retrans_rate`.
    pub(crate) fn of(verdict: impl Fn(f64, f64) -> f64) -> Self {
        let mut grid = vec![0.0; GRID[0] * GRID[1]];
        let at = |axis: usize, i: usize| GRID_END[axis] * i as f64 / (GRID[axis] - 1) as f64;
        for y in 0..GRID[1] {
            for x in 0..GRID[0] {
                let mut highest: f64 = verdict(at(0, x), at(1, y));
                if x > 0 {
                    highest = highest.max(grid[y * GRID[0] + x - 1]);
                }
                if y > 0 {
                    highest = highest.max(grid[(y - 1) * GRID[0] + x]);
                }
                grid[y * GRID[0] + x] = highest;
            }
        }
        Self { grid }
    }

    /// The envelope at these features.
    pub(crate) fn at(&self, features: &Features) -> f64 {
        let place = |axis: usize, value: f64| {
            let steps = (GRID[axis] - 1) as f64;
            let position = (value / GRID_END[axis]).clamp(0.0, 1.0) * steps;
            let below = (position as usize).min(GRID[axis] - 2);
            (below, position - below as f64)
        };
        let ((x, right), (y, down)) =
            (place(0, features.rtt_ratio), place(1, features.retrans_rate));
        let row = |y: usize| {
            let left = self.grid[y * GRID[0] + x];
            left + (self.grid[y * GRID[0] + x + 1] - left) * right
        };
        row(y) + (row(y + 1) - row(y)) * down
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn severity_is_a_half_at_twice_the_rtt_or_one_percent_lost() {
        let check = |ratio: f64, retrans_rate: f64, low: f64, high: f64| {
            let features = Features { rtt_ratio: ratio.ln(), retrans_rate, ..Default::default() };
            let severity = severity(badness(&features, 0.0));
            assert!((low..=high).contains(&severity), "{ratio}, {retrans_rate}: {severity}");
        };
        check(1.0, 0.0, 0.0, 0.0);
        check(0.5, 0.0, 0.0, 0.0);
        check(1.2, 0.0, 0.0, 0.01);
        check(1.93, 0.0, 0.48, 0.52);
        check(3.0, 0.0, 0.85, 0.9);
        check(1.0, 0.009, 0.48, 0.52);
        check(1.5, 0.009, 0.75, 0.9);
        check(1e9, 1.0, 0.99, 1.0);
    }

    #[test]
    fn what_is_usual_is_forgiven_up_to_a_limit() {
        let features = |ratio: f64| Features { rtt_ratio: ratio.ln(), ..Default::default() };
        assert_eq!(badness(&features(1.3), range_as_badness(1.35_f64.ln())), 0.0);
        // A link that is bad most of the time does not make that its norm.
        assert!(severity(badness(&features(3.0), range_as_badness(3.0_f64.ln()))) > ANOMALY_ON);
    }

    #[test]
    fn unusual_or_new_alone_is_no_anomaly() {
        let forest = ForestPart { verdict: 1.0, envelope: 1.0 };
        let scores = combine(&View::default(), 0.0, forest, f64::MAX.sqrt());
        assert!(scores.lasting < ANOMALY_ON, "{scores:?}");
        assert!(scores.health > 0.5, "{scores:?}");
        let scores = combine(&View::default(), 0.0, ForestPart::default(), 50.0);
        assert!(scores.anomaly < ANOMALY_ON && scores.lasting <= 0.0, "{scores:?}");
    }

    #[test]
    fn the_flag_waits_for_calm() {
        let mut flag = Flag::default();
        let second = Duration::from_secs(1);
        let seen: Vec<bool> = [0.4, 0.6, 0.4, 0.4, 0.4, 0.3, 0.4, 0.3, 0.3, 0.3]
            .map(|s| flag.update(s, second))
            .into();
        let expected = [false, true, true, true, true, true, true, true, false, false];
        assert_eq!(seen, expected);
    }

    proptest! {
        #[test]
        fn the_envelope_is_monotone_and_above(
            a in (-1.0..4.0, -0.1..0.3), more in (0.0..3.0, 0.0..0.3), wave in 1.0..9.0_f64,
        ) {
            let verdict = |ratio: f64, rate: f64| f64::abs((ratio * wave).sin() * (rate * 90.0).cos());
            let envelope = Envelope::of(verdict);
            let at = |rtt_ratio, retrans_rate| {
                envelope.at(&Features { rtt_ratio, retrans_rate, ..Default::default() })
            };
            let (low, high) = (at(a.0, a.1), at(a.0 + more.0, a.1 + more.1));
            prop_assert!((0.0..=1.0).contains(&low), "{}", low);
            prop_assert!(high >= low - 1e-12, "{} then {}", low, high);
        }
    }
}
