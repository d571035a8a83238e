//! Quantiles of a sliding window: exact, in bounded memory.
//!
//! A link's baseline must follow a jump of the path and forget what left the window. P² (Jain & Chlamtac, CACM 28(10), 1985)
//! has constant memory but never forgets, and its markers crawl after a jump; DDSketch (Masson et al., VLDB 2019) rounds to
//! one relative accuracy and needs every value again to take it back. With at most [`CAPACITY`] values kept, a sorted copy
//! beside the ring is both exact and cheap: a binary search and a move of half a kilobyte. There is one per connection, so values
//! are kept in single precision: of the logarithm of a round trip that is a millionth.
//!
//! Invariant: the sorted copy holds the values of the ring, no more and no fewer, and all are finite.

use std::collections::VecDeque;
use std::time::Duration;

/// Most values kept: their 5 % quantile still rests on a dozen of them.
const CAPACITY: u32 = 256;

/// The newest values, in order of arrival and in order of size.
#[derive(Clone, Debug, Default)]
pub(crate) struct SortedRing {
    arrived: VecDeque<f32>,
    sorted: Vec<f32>,
}

impl SortedRing {
    /// Takes in a finite value; anything else is left out.
    pub(crate) fn push(&mut self, value: f64) -> bool {
        let value = value as f32;
        if !value.is_finite() {
            return false;
        }
        let at = self.sorted.partition_point(|&kept| kept < value);
        self.sorted.insert(at, value);
        self.arrived.push_back(value);
        true
    }

    /// Forgets the oldest value.
    pub(crate) fn pop(&mut self) {
        if let Some(oldest) = self.arrived.pop_front() {
            let at = self.sorted.partition_point(|&kept| kept < oldest);
            self.sorted.remove(at);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The `q`-quantile (0..=1), interpolated linearly (Hyndman & Fan 1996, type 7); `None` without values.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        quantile_of_sorted(&self.sorted, q)
    }
}

/// The `q`-quantile (0..=1) of ascending values, interpolated linearly (Hyndman & Fan 1996, type 7); `None` without values.
pub fn quantile_of_sorted<T: Copy + Into<f64>>(sorted: &[T], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let at = |index: usize| sorted[index.min(last)].into();
    let (low, high): (f64, f64) = (at(below), at(below + 1));
    Some(low + (high - low) * (position - below as f64))
}

/// Quantiles of what was seen within the last `span`.
///
/// Values that come faster than the capacity allows are sampled systematically, one per `span` / 256: quantiles of such a
/// sample are unbiased, which those of block means would not be.
#[derive(Clone, Debug)]
pub(crate) struct RollingQuantile {
    span: Duration,
    /// Milliseconds, which run over after 49 days; only differences count.
    times: VecDeque<u32>,
    values: SortedRing,
}

impl RollingQuantile {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, times: VecDeque::new(), values: SortedRing::default() }
    }

    /// Takes in a value seen at `now`, which does not run backwards, nor on by more than a month at once.
    pub(crate) fn push(&mut self, now: Duration, value: f64) {
        let now = now.as_millis() as u32;
        let age = |time: &u32| Duration::from_millis(now.wrapping_sub(*time).into());
        while self.times.front().is_some_and(|oldest| age(oldest) >= self.span) {
            self.times.pop_front();
            self.values.pop();
        }
        let spacing = self.span / CAPACITY;
        let too_soon = self.times.back().is_some_and(|last| age(last) < spacing);
        if !too_soon && self.values.push(value) {
            self.times.push_back(now);
        }
    }

    /// The `q`-quantile (0..=1); `None` without values.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        self.values.quantile(q)
    }

    /// Values kept.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Duration = Duration::from_secs(256);

    #[test]
    fn it_follows_a_jump_and_forgets_what_left_the_window() {
        let mut rolling = RollingQuantile::new(SPAN);
        for second in 0..1000 {
            rolling.push(Duration::from_secs(second), if second < 500 { 20.0 } else { 60.0 });
            if second == 600 {
                assert_eq!(rolling.quantile(0.1), Some(20.0));
                assert_eq!(rolling.quantile(0.9), Some(60.0));
            }
        }
        assert_eq!(rolling.quantile(0.0), Some(60.0));
        rolling.push(Duration::from_secs(100_000), 5.0);
        assert_eq!(rolling.quantile(1.0), Some(5.0));
    }

    #[test]
    fn quantiles_are_numpys() {
        let check = |values: &[f64], q, expected| {
            let mut ring = SortedRing::default();
            values.iter().for_each(|&value| assert!(ring.push(value)));
            assert_eq!(ring.quantile(q), expected, "{values:?} at {q}");
        };
        check(&[], 0.5, None);
        check(&[3.0], 0.9, Some(3.0));
        check(&[4.0, 1.0, 2.0, 3.0], 0.5, Some(2.5));
        check(&[4.0, 1.0, 2.0, 3.0], 0.25, Some(1.75));
        check(&[4.0, 1.0, 2.0, 3.0], 2.0, Some(4.0));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut rolling = RollingQuantile::new(SPAN);
        for value in [f64::NAN, f64::INFINITY, 7.0] {
            rolling.push(Duration::ZERO, value);
        }
        assert_eq!(rolling.quantile(0.5), Some(7.0));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_median_is_that_of_the_window(
            steps in prop::collection::vec((0u64..3000, -1e6..1e6), 1..2000),
        ) {
            let mut rolling = RollingQuantile::new(SPAN);
            let mut now = Duration::ZERO;
            let mut kept: Vec<(Duration, f64)> = Vec::new();
            for (step, value) in steps {
                now += Duration::from_millis(step);
                rolling.push(now, value);
                let value = f64::from(value as f32);
                if kept.last().is_none_or(|&(at, _)| now - at >= SPAN / CAPACITY) {
                    kept.push((now, value));
                }
                kept.retain(|&(at, _)| now - at < SPAN);
                prop_assert!(rolling.values.len() <= CAPACITY as usize);
                prop_assert_eq!(rolling.times.len(), rolling.values.len());
            }
            let mut values: Vec<f64> = kept.iter().map(|&(_, value)| value).collect();
            values.sort_by(f64::total_cmp);
            prop_assert_eq!(rolling.quantile(0.5), quantile_of_sorted(&values, 0.5));
        }
    }
}
