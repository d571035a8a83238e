//! A token bucket: spaces tokens at a rate that may change at any moment.
//!
//! Time is an argument (any monotonic origin). A step back in time is taken as no time at all.
//!
//! Invariant: over any stretch of time, no more than `burst + rate × time` tokens are granted.

use std::time::Duration;

use netdiag_telemetry::Tps;

/// Spaces tokens at a rate, allowing short bursts.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Tps,
    /// Most tokens that may be saved up.
    burst: f64,
    tokens: f64,
    updated: Duration,
}

impl TokenBucket {
    /// A bucket with one token at time `now`. `burst` is the number of tokens that may be taken at once after a pause; at
    /// least 1, since a bucket that never holds a whole token never grants one.
    pub fn new(rate: Tps, burst: u32, now: Duration) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate, burst, tokens: 1.0, updated: now }
    }

    /// Takes `n` tokens, or says how long to wait until that many are there at the present rate. More than the burst
    /// are granted once the bucket is full, and paid for afterwards.
    pub fn take(&mut self, now: Duration, n: u32) -> Result<(), Duration> {
        self.refill(now);
        let needed = f64::from(n).min(self.burst);
        // Rounding in `refill` and in the caller's clock may leave the bucket a hair short after the wait it was told.
        let missing = needed - self.tokens;
        if missing <= 1e-6 {
            self.tokens -= f64::from(n);
            return Ok(());
        }
        Err(Duration::from_secs_f64(missing / self.rate.get()))
    }

    /// Changes the rate from `now` on. What was saved up stays.
    pub fn set_rate(&mut self, now: Duration, rate: Tps) {
        self.refill(now);
        self.rate = rate;
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated);
        self.updated = self.updated.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.rate.get()).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tps(n: f64) -> Tps {
        Tps::try_new(n).expect("valid")
    }

    #[test]
    fn the_wait_is_as_long_as_told() {
        let mut bucket = TokenBucket::new(tps(10.0), 1, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, 1), Ok(()));
        assert_eq!(bucket.take(Duration::ZERO, 1), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(Duration::from_millis(100), 1), Ok(()));
    }

    #[test]
    fn a_new_rate_counts_from_its_moment() {
        let mut bucket = TokenBucket::new(tps(1.0), 1, Duration::ZERO);
        bucket.take(Duration::ZERO, 1).expect("full at first");
        bucket.set_rate(Duration::from_millis(500), tps(100.0));
        assert_eq!(bucket.take(Duration::from_millis(500), 1), Err(Duration::from_millis(5)));
    }

    #[test]
    fn an_hour_of_late_timers_does_not_drift() {
        // A timer of a millisecond's resolution is late by up to that, and more is saved up meanwhile than one token.
        let late = |wait: Duration| Duration::from_millis(wait.as_millis() as u64 + 1);
        let share = |burst: u32| {
            let hour = Duration::from_secs(3600);
            let mut bucket = TokenBucket::new(tps(33.3), burst, Duration::ZERO);
            let (mut now, mut granted) = (Duration::ZERO, 0u32);
            while now < hour {
                match bucket.take(now, 1) {
                    Ok(()) => granted += 1,
                    Err(wait) => now += late(wait),
                }
            }
            f64::from(granted) / (33.3 * hour.as_secs_f64())
        };
        // A bucket that holds one token spills what comes after it is full; one that holds two spills nothing.
        let (one, two) = (share(1), share(2));
        assert!((0.96..1.0).contains(&one), "{one}");
        assert!((two - 1.0).abs() < 1e-4, "{two}");
    }

    proptest! {
        /// Whatever the polling, no more than the burst and the rate allow, and a taker that waits as told gets all of
        /// it.
        #[test]
        fn grants_match_the_rate(
            rate in 0.1f64..1000.0,
            burst in 1u32..20,
            steps in prop::collection::vec(0u64..500_000, 1..200),
        ) {
            let mut bucket = TokenBucket::new(tps(rate), burst, Duration::ZERO);
            let (mut now, mut granted) = (Duration::ZERO, 0u32);
            for step in steps {
                now += Duration::from_micros(step);
                // A greedy taker, bounded so that the test ends.
                for _ in 0..1000 {
                    if bucket.take(now, 1).is_err() {
                        break;
                    }
                    granted += 1;
                }
                let most = f64::from(burst) + rate * now.as_secs_f64();
                prop_assert!(f64::from(granted) <= most + 1e-3, "{granted} > {most}");
            }
            // Nor less, if none was left to spill over.
            let mut now = Duration::ZERO;
            let mut bucket = TokenBucket::new(tps(rate), burst, now);
            let mut granted = 0u32;
            while granted < 2000 {
                match bucket.take(now, 1) {
                    Ok(()) => granted += 1,
                    Err(wait) => now += wait,
                }
                let least = rate * now.as_secs_f64() - 1.0;
                prop_assert!(f64::from(granted) >= least, "{granted} < {least}");
            }
            let wait = bucket.take(now, 1);
            if let Err(wait) = wait {
                prop_assert_eq!(bucket.take(now + wait + Duration::from_nanos(1), 1), Ok(()));
            }
        }

        #[test]
        fn no_input_panics(
            rate in Tps::LOWEST..Tps::HIGHEST,
            burst: u32,
            steps in prop::collection::vec((any::<u64>(), any::<u32>()), 0..20),
        ) {
            let mut bucket = TokenBucket::new(tps(rate), burst, Duration::ZERO);
            for (nanos, n) in steps {
                let _ = bucket.take(Duration::from_nanos(nanos), n);
            }
        }
    }
}
