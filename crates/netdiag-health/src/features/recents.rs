//! What the last few seconds showed of one thing: a window that is so many seconds long, whatever the interval.
//!
//! Its clock runs only while something is pushed, so that an interval without it moves nothing out.
//!
//! Invariant: as many values as say something are kept, and never more than [`MOST`].

use std::collections::VecDeque;
use std::time::Duration;

/// What counts as recent. A change must be told within three seconds; of the six intervals of half a second in them the lower
/// median needs four that agree, which is two seconds.
const RECENT: Duration = Duration::from_secs(3);

/// Fewest intervals that count as recent, however long they are: of three, one is outvoted.
pub(super) const FEWEST: usize = 3;

/// Shorter intervals are joined up to this length. Any two neighbours are then longer than it, so that the recent ones are some
/// sixty at most,
const SHORTEST: Duration = Duration::from_millis(100);

/// and never more than this.
pub(super) const MOST: usize = 64;

/// Age at which an interval is not recent any more, however few have come since: a link with little to say is judged by the last
/// eight seconds, and is well again within ten of having recovered.
const OLDEST: Duration = Duration::from_secs(8);

/// What two short intervals showed together.
pub(super) trait Join {
    fn join(&mut self, later: &Self);
}

/// The recent values, the oldest first.
#[derive(Clone, Debug)]
pub(super) struct Recents<T> {
    slots: VecDeque<Slot<T>>,
    clock: Duration,
}

/// One interval, or several short ones.
#[derive(Clone, Debug)]
struct Slot<T> {
    value: T,
    length: Duration,
    /// When it ended, by the window's clock and by everybody's.
    end: Duration,
    at: Duration,
}

impl<T> Default for Recents<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), clock: Duration::ZERO }
    }
}

impl<T: Join> Recents<T> {
    /// Takes in what an interval showed that lasted `elapsed` and ended at `at`.
    pub(super) fn push(&mut self, at: Duration, elapsed: Duration, value: T) {
        self.clock = self.clock.saturating_add(elapsed);
        match self.slots.back_mut() {
            Some(last) if last.length.saturating_add(elapsed) <= SHORTEST => {
                last.value.join(&value);
                last.length += elapsed;
                (last.end, last.at) = (self.clock, at);
            }
            _ => self.slots.push_back(Slot { value, length: elapsed, end: self.clock, at }),
        }
        while let Some(oldest) = self.slots.front()
            && self.slots.len() > FEWEST
            && (self.clock.saturating_sub(oldest.end) >= RECENT || self.slots.len() > MOST)
        {
            self.slots.pop_front();
        }
    }

    /// Forgets what ended [`OLDEST`] or longer before `now`, unless intervals are that long.
    pub(super) fn forget(&mut self, now: Duration) {
        let is_old = |slot: &Slot<T>| {
            now.saturating_sub(slot.at) >= OLDEST.max(slot.length.saturating_mul(FEWEST as u32))
        };
        while self.slots.front().is_some_and(is_old) {
            self.slots.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.slots.iter().map(|slot| &slot.value)
    }

    /// Seconds and a figure of each.
    pub(super) fn timed(&self, of: impl Fn(&T) -> f64) -> Vec<(f64, f64)> {
        self.slots.iter().map(|slot| (slot.at.as_secs_f64(), of(&slot.value))).collect()
    }

    /// The time for which something was pushed.
    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
