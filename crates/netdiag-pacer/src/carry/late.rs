//! Whether what was written takes longer to be acknowledged than a round trip.
//!
//! A state says what to do, and is careful: it takes a path for the bottleneck when something waits for it through a tick. Whose
//! time it is shows sooner. One byte at a time is followed, the last one written when the one before it was acknowledged: if it is
//! under way for longer than the path needs, the stream waits for whoever keeps it. Silence, a queue that grows in a radio's buffer
//! and a lost segment that holds up those behind it are all the same to it, acknowledged selectively or not.
//!
//! Invariant: nothing is late while nothing is under way, nor because nobody looked: a byte counts as late when it was seen to be.

use std::time::Duration;

use super::nanos::Nanos;

/// How much longer than the least round trip is late: more than Linux delays an ACK (40 ms). Who delays every ACK for longer does so in
/// the least round trip, too.
const GRACE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Late {
    /// The byte that is followed, counted from the beginning of the connection; 0, which nobody waits for, while none is.
    followed: u64,
    /// When it was seen to be written.
    since: Nanos,
    /// It is late.
    is_overdue: bool,
    /// The one before it was.
    was_late: bool,
}

impl Late {
    /// At `now` so many bytes are acknowledged, and so many wait to be; `rtt` is the least round trip, seconds.
    pub(super) fn observe(&mut self, now: Nanos, acked: u64, queued: u64, rtt: Option<f64>) {
        let Some(rtt) = rtt.filter(|_| queued > 0) else {
            *self = Self::default();
            return;
        };
        if acked < self.followed {
            let age = now.saturating_sub(self.since);
            self.is_overdue = age.seconds() > rtt + GRACE.as_secs_f64();
        } else {
            *self = Self {
                followed: acked.saturating_add(queued),
                since: now,
                is_overdue: false,
                was_late: self.is_overdue,
            };
        }
    }

    /// What is under way should have been acknowledged by now.
    pub(super) fn is_late(&self) -> bool {
        self.is_overdue || self.was_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_to_take_longer_than_a_round_trip_is_late() {
        // Looks over a path of 150 ms; bytes acknowledged and bytes that wait.
        let check = |every_ms, looks: &[(u64, u64)], expected: &[bool]| {
            let mut late = Late::default();
            let seen: Vec<bool> = (1u32..)
                .zip(looks)
                .map(|(look, &(acked, queued))| {
                    let now = Nanos::of(Duration::from_millis(every_ms) * look);
                    late.observe(now, acked, queued, Some(0.15));
                    late.is_late()
                })
                .collect();
            assert_eq!(seen, expected, "every {every_ms} ms: {looks:?}");
        };
        // Each is acknowledged two looks later.
        check(100, &[(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)], &[false; 5]);
        // Nothing is any more; then all of it.
        check(
            100,
            &[(0, 2), (0, 3), (0, 4), (0, 5), (5, 0), (5, 1)],
            &[false, false, false, true, false, false],
        );
        // Half of it is: what comes later waits for longer.
        check(
            100,
            &[(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 9)],
            &[false, false, false, false, false, true, true, true],
        );
        // Looks that are far apart say nothing of what was acknowledged in between.
        check(1000, &[(0, 2), (2, 2), (4, 2), (6, 2)], &[false; 4]);
        check(1000, &[(0, 2), (1, 2), (4, 2), (6, 2)], &[false, true, true, false]);
    }

    #[test]
    fn nothing_is_late_while_the_path_is_unknown() {
        let mut late = Late::default();
        for look in 1..100 {
            late.observe(Nanos::of(Duration::from_secs(look)), 0, 10, None);
            assert!(!late.is_late());
        }
    }
}
