//! Whether what was written takes longer to be acknowledged than a round trip.
//!
//! A state says what to do, and is careful: it takes a path for the bottleneck when something waits for it through a tick. Whose
//! time it is shows sooner. One byte at a time is followed, the last one written when the one before it was acknowledged: if it is
//! under way for longer than the path needs, the stream waits for whoever keeps it. Silence, a queue that grows in a radio's buffer
//! and a lost segment that holds up those behind it are all the same to it, acknowledged selectively or not.
//!
//! Invariant: nothing is late while nothing is under way.

use std::time::Duration;

/// How much longer than the least round trip is late: a tick, within which nobody looked, and more than Linux delays an ACK (40 ms). Who
/// delays every ACK for longer does so in the least round trip, too.
const GRACE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Late {
    /// The byte that is followed, counted from the beginning of the connection, and when it was seen to be written.
    followed: Option<(u64, Duration)>,
    /// The one before it was late.
    was_late: bool,
    is_late: bool,
}

impl Late {
    /// At `now` so many bytes are acknowledged, of so many written; `rtt` is the least round trip.
    pub(super) fn observe(&mut self, now: Duration, acked: u64, queued: u64, rtt: Option<f64>) {
        let Some(rtt) = rtt.filter(|_| queued > 0) else {
            *self = Self::default();
            return;
        };
        let is_late =
            |since: Duration| now.saturating_sub(since).as_secs_f64() > rtt + GRACE.as_secs_f64();
        match self.followed {
            Some((byte, since)) if acked < byte => self.is_late = self.was_late || is_late(since),
            followed => {
                self.was_late = followed.is_some_and(|(_, since)| is_late(since));
                self.is_late = self.was_late;
                self.followed = Some((acked.saturating_add(queued), now));
            }
        }
    }

    /// What is under way should have been acknowledged by now.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_than_a_round_trip_and_a_tick_is_late() {
        // Ticks of 100 ms over a path of 150 ms; bytes acknowledged and bytes that wait.
        let check = |ticks: &[(u64, u64)], expected: &[bool]| {
            let mut late = Late::default();
            let seen: Vec<bool> = (1u32..)
                .zip(ticks)
                .map(|(tick, &(acked, queued))| {
                    late.observe(Duration::from_millis(100) * tick, acked, queued, Some(0.15));
                    late.is_late()
                })
                .collect();
            assert_eq!(seen, expected, "{ticks:?}");
        };
        // Each is acknowledged two ticks later.
        check(&[(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)], &[false; 5]);
        // Nothing is any more; then all of it.
        check(
            &[(0, 2), (0, 3), (0, 4), (0, 5), (5, 0), (5, 1)],
            &[false, false, false, true, false, false],
        );
        // Half of it is: what comes later waits for longer.
        check(
            &[(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 9)],
            &[false, false, false, false, false, true, true, true],
        );
    }

    #[test]
    fn nothing_is_late_while_the_path_is_unknown() {
        let mut late = Late::default();
        for tick in 1..100 {
            late.observe(Duration::from_secs(tick), 0, 10, None);
            assert!(!late.is_late());
        }
    }
}
