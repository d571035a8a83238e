//! The least, or the most, that was seen of late.
//!
//! Two windows, the present one and the one before, remember it for at least the length of a window and at most twice that, in
//! constant memory (BBR's filters keep three samples for the same purpose).
//!
//! Which of the two, and how long, is a part of the type, so that no call goes through a pointer and no flow keeps it: a flow asks
//! several times in each tick.
//!
//! Invariant: what was noted within the length is never forgotten.

use std::time::Duration;

use super::nanos::Nanos;

/// The most, or the least, of the last seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent<const MOST: bool, const SECONDS: u64> {
    /// Of the present window and of the one before; [`Recent::NONE`] where nothing was noted.
    best: [f64; 2],
    since: Nanos,
}

impl<const MOST: bool, const SECONDS: u64> Recent<MOST, SECONDS> {
    const LENGTH: Nanos = Nanos::of(Duration::from_secs(SECONDS));

    /// Worse than whatever can be noted.
    const NONE: f64 = if MOST { f64::NEG_INFINITY } else { f64::INFINITY };

    pub(super) fn new() -> Self {
        Self { best: [Self::NONE; 2], since: Nanos::ZERO }
    }

    fn better(a: f64, b: f64) -> f64 {
        if MOST { a.max(b) } else { a.min(b) }
    }

    pub(super) fn note(&mut self, now: Nanos, value: f64) {
        if now.saturating_sub(self.since) > Self::LENGTH {
            self.best = [Self::NONE, self.best[0]];
            self.since = now;
        }
        self.best[0] = Self::better(self.best[0], value);
    }

    pub(super) fn forget(&mut self, now: Nanos) {
        (self.best, self.since) = ([Self::NONE; 2], now);
    }

    /// `None` before anything was noted.
    pub(super) fn best(&self) -> Option<f64> {
        let [present, before] = self.best;
        Some(Self::better(present, before)).filter(|best| *best != Self::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_a_window_and_forgotten_after_two() {
        let at = |seconds| Nanos::of(Duration::from_secs(seconds));
        let mut least = Recent::<false, 10>::new();
        assert_eq!(least.best(), None);
        least.note(at(1), 5.0);
        least.note(at(2), 7.0);
        assert_eq!(least.best(), Some(5.0));
        for second in 3..12 {
            least.note(at(second), 7.0);
            assert_eq!(least.best(), Some(5.0));
        }
        for second in 12..30 {
            least.note(at(second), 7.0);
        }
        assert_eq!(least.best(), Some(7.0));
        least.forget(at(30));
        assert_eq!(least.best(), None);
    }
}
