//! The retransmission timer: when it is due, and what becomes of the window then.
//!
//! Invariant: while something is in flight, an event for the timer is on its way.

use super::{Fate, MOST_BACKOFFS, Micros, NEVER, Network, RENO, RTO_MAX, RTO_MIN, Tcp};

impl Tcp {
    /// The timer's event.
    pub(in super::super) fn on_timer(&mut self, now: Micros, around: &mut impl Network) {
        if self.timer != now {
            return;
        }
        self.timer = NEVER;
        let is_due = self.deadline.is_some_and(|deadline| deadline <= now);
        if let Some(mut linux) = self.linux.take() {
            linux.on_timer(self, now, is_due, around);
            self.linux = Some(linux);
            return;
        }
        if is_due {
            self.time_out(now, around);
        }
        self.arm(now, around);
    }

    /// The next timeout is one that only probes (RFC 8985 §7).
    fn is_to_probe(&self) -> bool {
        !self.probed && self.backoff == 0 && self.pipe >= 2
    }

    fn time_out(&mut self, now: Micros, around: &mut impl Network) {
        self.deadline = None;
        if self.is_to_probe() {
            self.probed = true;
            if let Some(place) = self.flight.iter().rposition(|s| s.state == Fate::Flying) {
                self.send_again(now, place, around);
            }
            return;
        }
        self.backoff = (self.backoff + 1).min(MOST_BACKOFFS);
        self.ssthresh = (f64::from(self.pipe) * RENO).max(2.0);
        self.cwnd = 1.0;
        self.pipe = 0;
        self.recover = self.next;
        for segment in self.flight.iter_mut().filter(|s| s.state == Fate::Flying) {
            segment.state = Fate::Lost;
        }
        self.pump(now, around);
    }

    /// Sees to it that the timer's event comes when it must.
    pub(super) fn arm(&mut self, now: Micros, around: &mut impl Network) {
        if self.flight.is_empty() {
            self.deadline = None;
            return;
        }
        let deadline = self.deadline.unwrap_or_else(|| {
            let rto =
                (self.srtt + (4.0 * self.rttvar).max(RTO_MIN)) * f64::from(1u32 << self.backoff);
            // With one segment out the client may have delayed its answer.
            let delayed = if self.pipe == 1 { RTO_MIN } else { 0.0 };
            let probe = self.is_to_probe();
            now + if probe { rto.min(2.0 * self.srtt + delayed) } else { rto.min(RTO_MAX) }
                as Micros
        });
        self.deadline = Some(deadline);
        self.wake_at(deadline, around);
    }

    pub(super) fn wake_at(&mut self, deadline: Micros, around: &mut impl Network) {
        if self.timer > deadline {
            self.timer = deadline;
            around.wake(deadline);
        }
    }
}
