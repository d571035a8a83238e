//! What a link has been like, kept small: the rows that a model is trained from.
//!
//! A uniform sample of all time (Vitter's algorithm R, ACM TOMS 11(1), 1985) would hold last month's path against today's.
//! With a biased reservoir (Aggarwal, VLDB 2006) a new row takes the place of a random one, so that a row of `n` offers ago is
//! still there with probability e^(−n/size). Until it is full all rows are kept, which he does not, to train sooner.
//!
//! Invariants: memory is bounded; the same seed and the same offers give the same rows; rows are finite.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::features::{FEATURES, Features};

/// Rows kept: eight times what a tree of the forest looks at.
pub(crate) const SIZE: usize = 2048;

/// A row is offered once per second of activity at most. Then the reservoir remembers half an hour, whatever the interval.
const SPACING: Duration = Duration::from_secs(1);

/// Rows from which the first model is trained: 256 are what one tree takes, some more let trees differ.
const WARM_UP: usize = 300;

/// Rows that are new before the next training: half of the reservoir.
const RETRAIN: usize = SIZE / 2;

/// The same after one that came to nothing.
const RETRY: usize = 60;

/// Rows to train a [`Model`](crate::Model) from.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingSet {
    rows: Vec<[f32; FEATURES]>,
}

impl TrainingSet {
    /// Rows of features in the order of [`FEATURE_NAMES`](crate::FEATURE_NAMES). Rows that are not finite are left out.
    pub fn new(rows: impl IntoIterator<Item = [f32; FEATURES]>) -> Self {
        let finite = |row: &[f32; FEATURES]| row.iter().all(|value| value.is_finite());
        Self { rows: rows.into_iter().filter(finite).collect() }
    }

    /// The rows.
    pub fn rows(&self) -> &[[f32; FEATURES]] {
        &self.rows
    }
}

/// The rows of one link.
#[derive(Clone, Debug)]
pub(crate) struct Reservoir {
    rows: Vec<[f32; FEATURES]>,
    random: Xoshiro256PlusPlus,
    /// Activity since the last row was offered.
    waited: Duration,
    fresh: usize,
    due: usize,
}

impl Reservoir {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rows: Vec::new(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            waited: Duration::ZERO,
            fresh: 0,
            due: WARM_UP,
        }
    }

    /// Takes in the features of an interval that lasted `elapsed`, or leaves them out.
    pub(crate) fn offer(&mut self, features: Features, elapsed: Duration) {
        self.waited = self.waited.saturating_add(elapsed);
        let row = features.to_row();
        if self.waited < SPACING || row.iter().any(|value| !value.is_finite()) {
            return;
        }
        // What is over counts for the next one: intervals are a little shorter than half a second as often as longer.
        self.waited = (self.waited - SPACING).min(SPACING);
        self.fresh += 1;
        if self.rows.len() >= SIZE {
            let at = self.random.random_range(0..SIZE);
            self.rows[at] = row;
        } else {
            self.rows.push(row);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows, if there are enough new ones since the last time.
    pub(crate) fn take(&mut self) -> Option<TrainingSet> {
        if self.fresh < self.due {
            return None;
        }
        self.fresh = 0;
        self.due = RETRAIN;
        Some(TrainingSet { rows: self.rows.clone() })
    }

    /// The rows that were taken are due again soon.
    pub(crate) fn put_off(&mut self) {
        self.due = RETRY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(reservoir: &mut Reservoir, range: std::ops::Range<u32>) {
        for i in range {
            let features = Features { rtt_ratio: f64::from(i), ..Features::default() };
            reservoir.offer(features, SPACING);
        }
    }

    #[test]
    fn it_is_bounded_forgets_and_repeats_itself() {
        let mut reservoir = Reservoir::new(7);
        offer(&mut reservoir, 0..20_000);
        let set = reservoir.take().expect("due");
        assert_eq!(set.rows().len(), SIZE);
        // After n offers a row is there with probability e^(−n/size): half are younger than 1420.
        let young = set.rows().iter().filter(|row| row[0] >= 20_000.0 - 1420.0).count();
        let share = young as f64 / set.rows().len() as f64;
        assert!((0.45..0.55).contains(&share), "{share}");
        let mut again = Reservoir::new(7);
        offer(&mut again, 0..20_000);
        assert_eq!(again.take(), Some(set));
    }

    #[test]
    fn a_training_is_due_after_the_warm_up_and_then_by_halves() {
        let mut reservoir = Reservoir::new(1);
        offer(&mut reservoir, 0..299);
        assert_eq!(reservoir.take(), None);
        offer(&mut reservoir, 299..300);
        assert!(reservoir.take().is_some());
        assert_eq!(reservoir.take(), None);
        offer(&mut reservoir, 0..1023);
        assert_eq!(reservoir.take(), None);
        offer(&mut reservoir, 0..1);
        assert!(reservoir.take().is_some());
    }

    #[test]
    fn a_training_that_failed_is_due_again_soon() {
        let mut reservoir = Reservoir::new(1);
        offer(&mut reservoir, 0..300);
        assert!(reservoir.take().is_some());
        reservoir.put_off();
        offer(&mut reservoir, 0..59);
        assert_eq!(reservoir.take(), None);
        offer(&mut reservoir, 0..1);
        assert_eq!(reservoir.take().map(|set| set.rows().len()), Some(360));
        assert_eq!(reservoir.due, RETRAIN);
    }

    #[test]
    fn the_interval_does_not_matter() {
        for interval in [10, 500, 1000].map(Duration::from_millis) {
            let mut reservoir = Reservoir::new(1);
            for _ in 0..200_000 / interval.as_millis() {
                reservoir.offer(Features::default(), interval);
            }
            assert!((199..=201).contains(&reservoir.fresh), "{} at {interval:?}", reservoir.fresh);
        }
    }

    #[test]
    fn nor_does_it_matter_that_intervals_are_not_quite_even() {
        let mut reservoir = Reservoir::new(1);
        for tick in 0..600_u64 {
            let jitter = Duration::from_millis(tick * 37 % 11);
            reservoir.offer(Features::default(), Duration::from_millis(495) + jitter);
        }
        assert!((298..=302).contains(&reservoir.fresh), "{}", reservoir.fresh);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let set = TrainingSet::new([[0.0; FEATURES], [f32::NAN; FEATURES]]);
        assert_eq!(set.rows(), [[0.0; FEATURES]]);
        let mut reservoir = Reservoir::new(1);
        reservoir.offer(Features { rtt_slope: 1e300, ..Features::default() }, SPACING);
        assert!(reservoir.rows.is_empty());
    }
}
