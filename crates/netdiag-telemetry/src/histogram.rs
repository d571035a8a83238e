//! Log-linear histogram of round-trip times, the same buckets in the BPF program and here.
//!
//! Values below 32 µs have a bucket each; above, every power of two is cut into 32 equal parts (Gil Tene's HDR
//! histogram with five significant bits). A bucket is reported by its middle, so the relative error is at most
//! 1/64 ≈ 1.6 %. Values beyond [`MAX_US`] (134 s, above TCP's maximal RTO of 120 s) count in the last bucket.
//!
//! Two forms: [`RttSamples`] is sparse, because a flow touches a handful of buckets per interval and there may be tens
//! of thousands of flows; [`RttHistogram`] is dense and adds and subtracts in place, for the rolling window.
//!
//! Invariant: `bucket_of` here and `nd_bucket_of` in `crates/netdiag-probe/bpf/netdiag.h` are the same function. The probe
//! reads a sample with the one before the kernel counts it with the other; its test of that would count it twice.

use std::time::Duration;

use crate::sample::RttSummary;

/// Linear sub-buckets per power of two, as a power of two.
const SUB_BITS: u32 = 5;
/// Powers of two covered: values up to 2^27 µs.
const MAX_BITS: u32 = 27;
/// Largest value with a bucket of its own, microseconds.
const MAX_US: u64 = (1 << MAX_BITS) - 1;

/// Number of buckets.
pub const BUCKETS: usize = ((MAX_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

/// The bucket a round trip of `us` microseconds falls into.
pub fn bucket_of(us: u64) -> u16 {
    let us = us.min(MAX_US);
    if us < 1 << SUB_BITS {
        return us as u16;
    }
    let exponent = us.ilog2();
    let mantissa = (us >> (exponent - SUB_BITS)) as u32 - (1 << SUB_BITS);
    (((exponent - SUB_BITS + 1) << SUB_BITS) + mantissa) as u16
}

/// The half-open range of microseconds that bucket `index` covers.
pub fn bucket_bounds(index: u16) -> (u64, u64) {
    let index = u32::from(index);
    if index < 1 << SUB_BITS {
        return (u64::from(index), u64::from(index) + 1);
    }
    let shift = (index >> SUB_BITS) - 1;
    let mantissa = (1 << SUB_BITS) + (index & ((1 << SUB_BITS) - 1));
    (u64::from(mantissa) << shift, u64::from(mantissa + 1) << shift)
}

/// The value reported for everything in bucket `index`: its middle, microseconds.
fn bucket_middle(index: u16) -> f64 {
    let (low, high) = bucket_bounds(index);
    // The values are whole microseconds, so the middle of [low, high) is that of low..=high-1.
    (low + high - 1) as f64 / 2.0
}

fn micros(us: f64) -> Duration {
    Duration::from_secs_f64(us.max(0.0) / 1e6)
}

/// The RTT samples of one flow in one interval: which buckets, how often, and the exact sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RttSamples {
    buckets: Vec<(u16, u32)>,
    sum_us: u64,
}

impl RttSamples {
    /// Samples already counted by bucket, with the exact sum of them in microseconds.
    pub fn from_buckets(mut buckets: Vec<(u16, u32)>, sum_us: u64) -> Self {
        buckets.retain(|&(index, count)| count > 0 && usize::from(index) < BUCKETS);
        buckets.sort_unstable();
        Self { buckets, sum_us }
    }

    /// One sample.
    pub fn one(rtt: Duration) -> Self {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).min(MAX_US);
        Self { buckets: vec![(bucket_of(us), 1)], sum_us: us }
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|&(_, count)| u64::from(count)).sum()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Adds another flow's samples. A bucket's count saturates.
    pub fn merge(&mut self, other: &RttSamples) {
        for &(index, count) in &other.buckets {
            match self.buckets.binary_search_by_key(&index, |&(index, _)| index) {
                Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
                Err(at) => self.buckets.insert(at, (index, count)),
            }
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// The statistics of the samples, or `None` without any. The mean is exact, the rest to bucket accuracy.
    pub fn summary(&self) -> Option<RttSummary> {
        let (&(first, _), &(last, _)) = (self.buckets.first()?, self.buckets.last()?);
        let samples = self.count();
        let buckets = self.buckets.iter().map(|&(index, count)| (index, u64::from(count)));
        Some(RttSummary {
            min: micros(bucket_middle(first)),
            max: micros(bucket_middle(last)),
            avg: micros(self.sum_us as f64 / samples as f64),
            p95: quantile(buckets, samples, 0.95)?,
            samples,
        })
    }
}

/// The smallest value with at least `q` (0..=1) of the `total` samples at or below it: nearest rank.
fn quantile(mut buckets: impl Iterator<Item = (u16, u64)>, total: u64, q: f64) -> Option<Duration> {
    let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    buckets.find_map(|(index, count)| {
        seen += count;
        (seen >= rank).then(|| micros(bucket_middle(index)))
    })
}

/// A dense histogram over many flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RttHistogram {
    counts: Vec<u64>,
    count: u64,
    sum_us: u64,
}

impl Default for RttHistogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum_us: 0 }
    }
}

impl RttHistogram {
    /// Adds one flow's samples.
    pub fn add(&mut self, samples: &RttSamples) {
        for &(index, count) in &samples.buckets {
            self.counts[usize::from(index)] += u64::from(count);
            self.count += u64::from(count);
        }
        self.sum_us += samples.sum_us;
    }

    /// Removes samples that were added before.
    pub fn subtract(&mut self, samples: &RttSamples) {
        for &(index, count) in &samples.buckets {
            let slot = &mut self.counts[usize::from(index)];
            let removed = u64::from(count).min(*slot);
            *slot -= removed;
            self.count -= removed;
        }
        self.sum_us = self.sum_us.saturating_sub(samples.sum_us);
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact mean, or `None` without samples.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| micros(self.sum_us as f64 / self.count as f64))
    }

    /// The smallest value with at least `q` (0..=1) of the samples at or below it (nearest rank), or `None` without
    /// samples.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        quantile(self.nonzero(), self.count, q)
    }

    /// Population standard deviation, to bucket accuracy; zero for one sample, `None` without.
    pub fn std_dev(&self) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let n = self.count as f64;
        let mean = self.nonzero().map(|(i, c)| bucket_middle(i) * c as f64).sum::<f64>() / n;
        let variance =
            self.nonzero().map(|(i, c)| (bucket_middle(i) - mean).powi(2) * c as f64).sum::<f64>()
                / n;
        Some(micros(variance.sqrt()))
    }

    fn nonzero(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|&(_, &count)| count > 0)
            .map(|(index, &count)| (index as u16, count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range_without_gap_or_overlap() {
        let mut expected_low = 0;
        for index in 0..BUCKETS as u16 {
            let (low, high) = bucket_bounds(index);
            assert_eq!(low, expected_low, "bucket {index}");
            assert_eq!(bucket_of(low), index);
            assert_eq!(bucket_of(high - 1), index);
            expected_low = high;
        }
        assert_eq!(expected_low, MAX_US + 1);
    }

    #[test]
    fn an_empty_histogram_has_no_statistics() {
        let empty = RttHistogram::default();
        assert_eq!(empty.mean(), None);
        assert_eq!(empty.quantile(0.95), None);
        assert_eq!(empty.std_dev(), None);
        assert_eq!(RttSamples::default().summary(), None);
    }

    proptest! {
        #[test]
        fn bucket_error_is_within_three_percent(us in 1u64..=MAX_US) {
            let middle = bucket_middle(bucket_of(us));
            prop_assert!((middle - us as f64).abs() / us as f64 <= 0.03);
        }

        #[test]
        fn quantiles_are_within_three_percent_of_the_exact_ones(
            mut values in prop::collection::vec(1u64..=10_000_000, 1..400),
            q in 0.0f64..=1.0,
        ) {
            let mut histogram = RttHistogram::default();
            let mut merged = RttSamples::default();
            for &us in &values {
                let one = RttSamples::one(Duration::from_micros(us));
                histogram.add(&one);
                merged.merge(&one);
            }
            let mean = values.iter().sum::<u64>() as f64 / values.len() as f64;
            let summary = merged.summary().expect("has samples");
            prop_assert!((summary.avg.as_secs_f64() * 1e6 - mean).abs() < 1.0);
            prop_assert_eq!(summary.samples, values.len() as u64);
            prop_assert_eq!(Some(summary.p95), histogram.quantile(0.95));
            prop_assert!(summary.min <= summary.p95 && summary.p95 <= summary.max);
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            let ours = histogram.quantile(q).expect("has samples").as_secs_f64() * 1e6;
            prop_assert!((ours - exact).abs() / exact <= 0.03, "{ours} for {exact}");
        }

        #[test]
        fn adding_then_subtracting_leaves_nothing(values in prop::collection::vec(0u64..=u64::MAX, 0..50)) {
            let mut histogram = RttHistogram::default();
            let samples: Vec<_> =
                values.iter().map(|&us| RttSamples::one(Duration::from_micros(us))).collect();
            samples.iter().for_each(|s| histogram.add(s));
            samples.iter().for_each(|s| histogram.subtract(s));
            prop_assert_eq!(histogram, RttHistogram::default());
        }
    }
}
