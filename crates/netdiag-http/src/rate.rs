//! How often something may happen: the arithmetic, without a clock.
//!
//! The generic cell rate algorithm (ITU-T I.371): of each client one number is kept, the moment at which its next request would be due
//! if they came evenly. A request may come earlier than that by the burst, and no more. It grants what a token bucket grants, and fits
//! into an atomic, so that requests on many connections of one client need no lock.
//!
//! Invariant: over any stretch of time no more than `burst + time / interval` are granted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Nanoseconds between two.
    interval: u64,
    /// Nanoseconds that one may come too early.
    slack: u64,
}

impl Pace {
    /// One in each `interval`, and `burst` at once after a pause.
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        let interval = nanos(interval).max(1);
        Self { interval, slack: interval.saturating_mul(u64::from(burst.max(1)) - 1) }
    }

    /// So many a second, and as many at once.
    pub(crate) fn per_second(number: u32) -> Self {
        let number = number.max(1);
        Self::new(Duration::from_secs(1) / number, number)
    }
}

/// It came too often: so long from now the next one will be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests from this address; the next is answered in {} s", self.seconds())]
pub struct TooOften(pub Duration);

impl TooOften {
    /// As a `Retry-After` header says it (RFC 9110 §10.2.3): whole seconds, at least one.
    pub fn seconds(&self) -> u64 {
        (self.0.as_millis().div_ceil(1000) as u64).max(1)
    }
}

/// When the next one would be due, in nanoseconds of any monotonic origin.
#[derive(Debug, Default)]
pub(crate) struct Due(AtomicU64);

impl Due {
    /// Takes one, or says how long to wait.
    pub(crate) fn take(&self, pace: Pace, now: Duration) -> Result<(), TooOften> {
        let now = nanos(now);
        // Since Rust 1.99 it goes by another name, which 1.90 does not know.
        #[allow(deprecated)]
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            let due = due.max(now);
            (due - now <= pace.slack).then_some(due.saturating_add(pace.interval))
        });
        taken.map(drop).map_err(|due| {
            TooOften(Duration::from_nanos(due.saturating_sub(now).saturating_sub(pace.slack)))
        })
    }

    /// Whether it is as if nothing had ever been taken.
    pub(crate) fn is_rested(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_as_long_as_told() {
        let pace = Pace::new(Duration::from_millis(100), 3);
        let due = Due::default();
        let start = Duration::from_secs(5);
        for _ in 0..3 {
            assert_eq!(due.take(pace, start), Ok(()));
        }
        let late = due.take(pace, start).expect_err("the burst is over");
        assert_eq!(late.0, Duration::from_millis(100));
        assert_eq!(due.take(pace, start + late.0), Ok(()));
        assert!(due.take(pace, start + late.0).is_err());
        assert!(!due.is_rested(start + late.0));
        assert!(due.is_rested(start + Duration::from_millis(400)));
    }

    #[test]
    fn waits_are_told_in_whole_seconds() {
        let check = |millis, expected| {
            let wait = TooOften(Duration::from_millis(millis));
            assert_eq!(wait.seconds(), expected, "{millis}");
        };
        check(0, 1);
        check(1, 1);
        check(1000, 1);
        check(1001, 2);
    }

    proptest! {
        #[test]
        fn grants_match_the_rate(
            per_second in 1u32..2000,
            steps in prop::collection::vec(0u64..500_000, 1..200),
        ) {
            let (pace, due) = (Pace::per_second(per_second), Due::default());
            let (mut now, mut granted) = (Duration::ZERO, 0u32);
            for step in steps {
                now += Duration::from_micros(step);
                for _ in 0..3000 {
                    if due.take(pace, now).is_err() {
                        break;
                    }
                    granted += 1;
                }
                // The interval is in whole nanoseconds, so the rate may be a hair higher.
                let most = f64::from(per_second) * (1.0 + now.as_secs_f64() * 1.001);
                prop_assert!(f64::from(granted) <= most + 1.0, "{granted} > {most}");
            }
        }

        #[test]
        fn no_input_panics(interval: u64, burst: u32, times in prop::collection::vec(any::<u64>(), 0..20)) {
            let pace = Pace::new(Duration::from_nanos(interval), burst);
            let due = Due::default();
            for now in times {
                let _ = due.take(pace, Duration::from_nanos(now));
            }
        }
    }
}
