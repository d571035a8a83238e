//! Times as a flow remembers them: nanoseconds in a word.
//!
//! A [`Duration`] takes two words, and an optional one does, too. With a thousand flows side by side each cache line that a flow
//! spares is one that need not be waited for.
//!
//! Invariant: what fits 584 years is as exact as it was; what is longer is that long.

use std::time::Duration;

/// A time; see also [`Nanos::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(u64);

impl Nanos {
    pub(super) const ZERO: Self = Self(0);

    /// Stands for an unknown time where one can be.
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) const fn of(time: Duration) -> Self {
        let seconds = time.as_secs().saturating_mul(1_000_000_000);
        Self(seconds.saturating_add(time.subsec_nanos() as u64))
    }

    /// [`Nanos::NONE`] if it is not known.
    pub(super) fn of_known(time: Option<Duration>) -> Self {
        time.map_or(Self::NONE, Self::of)
    }

    /// `None` if it is [`Nanos::NONE`].
    pub(super) fn known(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(super) fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub(super) fn saturating_mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }

    /// To the bit what [`Duration::as_secs_f64`] says.
    pub(super) fn seconds(self) -> f64 {
        Duration::from(self).as_secs_f64()
    }
}

impl From<Nanos> for Duration {
    fn from(time: Nanos) -> Self {
        Duration::from_nanos(time.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_the_nanosecond_and_never_wrap() {
        for nanos in [0, 1, 999_999_999, 1_000_000_000, 1_234_567_891, u64::MAX - 1] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(Duration::from(Nanos::of(time)), time);
            assert_eq!(Nanos::of(time).seconds().to_bits(), time.as_secs_f64().to_bits());
            assert_eq!(Nanos::of_known(Some(time)).known(), Some(Nanos::of(time)));
        }
        assert_eq!(Nanos::of(Duration::MAX).known(), None);
        assert_eq!(Nanos::of_known(None).known(), None);
        assert_eq!(Nanos::NONE.saturating_add(Nanos::of(Duration::MAX)), Nanos::NONE);
    }
}
