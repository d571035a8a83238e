//! Rolling statistics over the last `--window` seconds.
//!
//! The window keeps one sparse histogram per interval and one dense one for their sum, so a new interval costs its own
//! buckets and not the window's length. Memory is bounded by window / interval sparse histograms.

use std::collections::VecDeque;
use std::time::Duration;

use crate::histogram::{RttHistogram, RttSamples};
use crate::sample::Rolling;

/// Rolling window over intervals.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    intervals: VecDeque<Interval>,
    sum: RttHistogram,
    retrans_segs: u64,
}

#[derive(Debug)]
struct Interval {
    at: Duration,
    rtt: RttSamples,
    retrans_segs: u64,
}

impl Window {
    /// A window over the last `length`.
    pub fn new(length: Duration) -> Self {
        Self { length, intervals: VecDeque::new(), sum: RttHistogram::default(), retrans_segs: 0 }
    }

    /// Adds the interval that ended at `at` (monotonic time) and returns the statistics of the window that ends there.
    /// An `at` before the last one is taken as the last one.
    pub fn push(&mut self, at: Duration, rtt: RttSamples, retrans_segs: u64) -> Rolling {
        let at = self.intervals.back().map_or(at, |last| at.max(last.at));
        self.sum.add(&rtt);
        self.retrans_segs += retrans_segs;
        self.intervals.push_back(Interval { at, rtt, retrans_segs });
        while let Some(oldest) = self.intervals.front()
            && at - oldest.at >= self.length
            && self.intervals.len() > 1
        {
            self.sum.subtract(&oldest.rtt);
            self.retrans_segs -= oldest.retrans_segs;
            self.intervals.pop_front();
        }
        Rolling {
            avg_rtt: self.sum.mean(),
            p95_rtt: self.sum.quantile(0.95),
            std_rtt: self.sum.std_dev(),
            retrans_segs: self.retrans_segs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn intervals_leave_when_they_are_as_old_as_the_window() {
        let mut window = Window::new(ms(1000));
        window.push(ms(0), RttSamples::one(ms(800)), 5);
        let both = window.push(ms(500), RttSamples::one(ms(20)), 1);
        assert_eq!(both.retrans_segs, 6);
        assert_eq!(both.avg_rtt, Some(ms(410)));
        let fresh = window.push(ms(1000), RttSamples::one(ms(20)), 0);
        assert_eq!(fresh.retrans_segs, 1);
        assert_eq!(fresh.avg_rtt, Some(ms(20)));
    }

    #[test]
    fn an_interval_longer_than_the_window_still_has_itself() {
        let mut window = Window::new(ms(100));
        window.push(ms(0), RttSamples::one(ms(10)), 1);
        let rolling = window.push(ms(5000), RttSamples::one(ms(30)), 2);
        assert_eq!((rolling.avg_rtt, rolling.retrans_segs), (Some(ms(30)), 2));
    }

    #[test]
    fn silence_has_no_rtt_and_a_clock_that_steps_back_does_no_harm() {
        let mut window = Window::new(ms(100));
        assert_eq!(window.push(ms(50), RttSamples::default(), 0), Rolling::default());
        window.push(ms(10), RttSamples::one(ms(1)), 0);
        assert_eq!(window.push(ms(60), RttSamples::default(), 0).avg_rtt, Some(ms(1)));
    }
}
