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
    best: [Option<f64>; 2],
    since: Duration,
}

impl<const MOST: bool> Recent<MOST> {
    /// The best of the last `length` to twice that.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, best: [None; 2], since: Duration::ZERO }
    }

    fn better(a: f64, b: f64) -> f64 {
        if MOST { a.max(b) } else { a.min(b) }
    }

    pub(super) fn note(&mut self, now: Duration, value: f64) {
        if now.saturating_sub(self.since) > self.length {
            self.best = [None, self.best[0]];
            self.since = now;
        }
        self.best[0] = Some(self.best[0].map_or(value, |best| Self::better(best, value)));
    }

    pub(super) fn forget(&mut self, now: Duration) {
        (self.best, self.since) = ([None; 2], now);
    }

    /// `None` before anything was noted.
    pub(super) fn best(&self) -> Option<f64> {
        match self.best {
            [Some(a), Some(b)] => Some(Self::better(a, b)),
            [a, b] => a.or(b),
        }
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
