//! How much a round trip differs from those just before it: the score of a change at the very sample it happens.
//!
//! A distance to a long median keeps ringing for as long as the new level lasts, and scores the spike as high as the shift. Two
//! facts about queues do better. A spike is over at once, so what came *before* a change is what matters: the distance to the
//! nearer of the last two round trips forgives the return from a spike. And a queue delays packets but hastens none, so a
//! round trip below everything seen of late cannot be a spike: it counts twice.
//!
//! ```text
//! v        = ln RTT
//! step     = min(|v − v₁|, |v − v₂|)              v₁, v₂ the two round trips before
//! drop     = max(0, min(v₁ … v₂₀) − v)
//! noise    = lower quartile of the last 200 steps + 0.0003
//! surprise = ln(1 + step/noise) + ln(1 + drop/noise)
//! ```
//!
//! The logarithm is the surprise of a heavy tail: queueing delays have a tail like a power's, so a spike of a thousand times
//! the noise is no rarity worth a thousand times the score. The lower quartile measures a link's quiet noise even where
//! half of the steps belong to a disturbance.
//!
//! It counts in measurements, not in seconds: it asks how one differs from the next. It uses no label and looks at nothing
//! later than the sample it scores. `cargo xtask bench health` compares it with a median/MAD detector on labelled traces.

use std::collections::VecDeque;
use std::time::Duration;

use crate::quantile::SortedRing;

/// Round trips whose nearest is the level before. With one, the return from every spike is a change; with three, a sample
/// on a link that alternates between two paths never is.
const NEAR: usize = 2;

/// Round trips that a drop must undercut: enough that noise rarely does (one time in 21), and few enough that a link may come
/// back from a disturbance of an hour's quarter, at four minutes a sample as at half a second.
const FLOOR: usize = 20;

/// Steps that the noise is taken from. Their lower quartile has a relative error of some 10 %.
const STEPS: usize = 200;

/// Least noise of ln RTT: 30 µs of 100 ms, which is what a time stamp in user space is good for.
const LEAST_NOISE: f64 = 3e-4;

/// Scores each round trip by how much it differs from those before it.
#[derive(Clone, Debug, Default)]
pub struct ChangeDetector {
    /// ln RTT, newest last.
    recent: VecDeque<f64>,
    steps: SortedRing,
}

impl ChangeDetector {
    /// A detector that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next round trip and returns its surprise: 0 for more of the same, 2.4 for ten times the noise, 4.6 for a
    /// hundred times, twice that for a drop. A probe without an answer is a round trip of its timeout.
    pub fn push(&mut self, rtt: Duration) -> f64 {
        // Nanoseconds keep a zero out of the logarithm.
        let value = (rtt.max(Duration::from_nanos(1)).as_secs_f64()).ln();
        let step = self.recent.iter().rev().take(NEAR).map(|before| (value - before).abs());
        let step = step.reduce(f64::min).unwrap_or(0.0);
        let lowest = self.recent.iter().copied().reduce(f64::min).unwrap_or(value);
        let noise = self.steps.quantile(0.25).unwrap_or(0.0) + LEAST_NOISE;
        let surprise = (step / noise).ln_1p() + ((lowest - value).max(0.0) / noise).ln_1p();

        self.recent.push_back(value);
        if self.recent.len() > FLOOR {
            self.recent.pop_front();
        }
        self.steps.push(step);
        if self.steps.len() > STEPS {
            self.steps.pop();
        }
        surprise
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// A link that has been at 100 ms ± 0.2 for a while.
    fn settled() -> ChangeDetector {
        let mut detector = ChangeDetector::new();
        for i in 0..300 {
            detector.push(ms(100.0 + 0.2 * f64::from(i * 7 % 11) / 11.0));
        }
        detector
    }

    #[test]
    fn a_change_scores_where_it_happens_and_not_after() {
        let mut detector = settled();
        let change = detector.push(ms(110.0));
        assert!(change > 4.0, "{change}");
        for _ in 0..30 {
            let after = detector.push(ms(110.1));
            assert!(after < 2.0, "{after}");
        }
        let back = detector.push(ms(100.0));
        assert!(back > 1.5 * change, "a drop below everything of late counts twice: {back}");
    }

    #[test]
    fn the_return_from_a_spike_is_no_change() {
        let mut detector = settled();
        detector.push(ms(300.0));
        let back = detector.push(ms(100.1));
        assert!(back < 1.0, "{back}");
    }

    #[test]
    fn a_noisy_link_is_less_surprised() {
        let mut noisy = ChangeDetector::new();
        for i in 0..300 {
            noisy.push(ms(100.0 + 20.0 * f64::from(i * 7 % 11) / 11.0));
        }
        assert!(noisy.push(ms(130.0)) < 0.5 * settled().push(ms(130.0)));
    }

    proptest! {
        #[test]
        fn any_round_trips_give_a_finite_surprise_that_is_not_negative(
            nanos in prop::collection::vec(any::<u64>(), 0..500),
        ) {
            let mut detector = ChangeDetector::new();
            for nanos in nanos {
                let surprise = detector.push(Duration::from_nanos(nanos));
                prop_assert!(surprise.is_finite() && surprise >= 0.0, "{}", surprise);
            }
            prop_assert!(detector.recent.len() <= FLOOR && detector.steps.len() <= STEPS);
        }

        #[test]
        fn a_longer_step_from_the_same_past_never_scores_less(
            a in 100.3..2000.0, b in 100.3..2000.0,
        ) {
            let (less, more) = (f64::min(a, b), f64::max(a, b));
            prop_assert!(settled().push(ms(less)) <= settled().push(ms(more)));
        }

        #[test]
        fn the_unit_does_not_matter(
            rtts in prop::collection::vec(1.0..1000.0, 1..100), scale in 1.0..1000.0,
        ) {
            let (mut one, mut other) = (ChangeDetector::new(), ChangeDetector::new());
            for rtt in rtts {
                let (a, b) = (one.push(ms(rtt)), other.push(ms(rtt * scale)));
                prop_assert!((a - b).abs() < 1e-2, "{} and {}", a, b);
            }
        }
    }
}
