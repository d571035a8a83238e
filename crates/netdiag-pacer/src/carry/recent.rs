//! The least, or the most, that was seen of late.
//!
//! Two windows, the present one and the one before, remember it for at least the length of a window and at most twice that, in
//! constant memory (BBR's filters keep three samples for the same purpose).
//!
//! Which of the two is a part of the type, so that no call goes through a pointer: a flow asks several times in each tick.
//!
//! Invariant: what was noted within the length is never forgotten.

use std::time::Duration;

/// The least of late.
pub(super) type Least = Recent<false>;

/// The most of late.
pub(super) type Most = Recent<true>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Recent<const MOST: bool> {
    length: Duration,
    /// Of the present window and of the one before; [`Recent::NONE`] where nothing was noted.
    best: [f64; 2],
    since: Duration,
}

impl<const MOST: bool> Recent<MOST> {
    /// Worse than whatever can be noted.
    const NONE: f64 = if MOST { f64::NEG_INFINITY } else { f64::INFINITY };

    /// The best of the last `length` to twice that.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, best: [Self::NONE; 2], since: Duration::ZERO }
    }

    fn better(a: f64, b: f64) -> f64 {
        if MOST { a.max(b) } else { a.min(b) }
    }

    pub(super) fn note(&mut self, now: Duration, value: f64) {
        if now.saturating_sub(self.since) > self.length {
            self.best = [Self::NONE, self.best[0]];
            self.since = now;
        }
        self.best[0] = Self::better(self.best[0], value);
    }

    pub(super) fn forget(&mut self, now: Duration) {
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
        let at = Duration::from_secs;
        let mut least = Least::new(at(10));
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
