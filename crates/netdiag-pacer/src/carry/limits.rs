//! The two limits of a flow, moved with every observation: its rate and its credit.
//!
//! Invariants: the rate stays within the range, and moves by no more than the ramp and the brake allow; the credit is never less than
//! [`LEAST_CREDIT`].

use super::under_way::LEAST_CREDIT;
use super::*;

impl Carry {
    /// Moves the cap to where the state says.
    pub(super) fn follow(&mut self, seen: &Seen, acked: u64, elapsed: Nanos) {
        let (min, max) = (self.range.min().get(), self.range.max().get());
        let seconds = elapsed.seconds();
        let delivered = self.under_way.tokens_in(acked) / seconds;
        let weight = 1.0 - (-seconds / CARRY_SMOOTHING).exp();
        self.under_way.delivered += (delivered - self.under_way.delivered) * weight;
        match self.state {
            State::Constrained | State::Reader => {
                self.carried.note(seen.at, self.under_way.delivered);
                let gain = if seen.notsent > 0 { DRAINING } else { PROBING };
                let target = gain * self.carried.best().unwrap_or(self.under_way.delivered);
                let least = self.cap * (-seconds / BRAKING_SECONDS).exp();
                let most = self.cap * (seconds / RAMP_SECONDS).exp();
                self.cap = target.clamp(least, most).clamp(min, max);
            }
            // What a silence did before it was one is no measure of what comes after it.
            State::Stalled => {}
            State::Clear | State::Idle | State::Stale => {
                if self.cap < max {
                    self.cap = (self.cap * (seconds / RAMP_SECONDS).exp()).clamp(min, max);
                }
                if self.cap >= max {
                    self.carried.forget(seen.at);
                }
            }
        }
    }

    pub(super) fn set_credit(&mut self, spare: f64) {
        let basis = self.cap.min(self.granted.max(self.range.min().get()));
        let rtt = self.least_rtt.best().unwrap_or(UNKNOWN_RTT);
        // `max` of no number and a number is the number.
        let spare = if self.state == State::Stalled { 0.0 } else { spare.max(0.0) };
        let most = LEAST_CREDIT + spare + self.under_way.arrived;
        self.under_way.credit = (basis * rtt + spare).min(most).max(LEAST_CREDIT);
    }

    /// Round trips take as long again as they need to, which is a queue as long as the path.
    pub(super) fn is_queueing(&self, seen: &Seen) -> bool {
        let least = self.least_rtt.best().unwrap_or_default();
        seen.srtt().is_some_and(|srtt| srtt.seconds() >= QUEUEING * least)
    }

    /// All that may be under way is, and that is enough to say something of the path.
    pub(super) fn is_spent(&self) -> bool {
        let rtt = self.least_rtt.best().unwrap_or_default().max(UNKNOWN_RTT);
        let is_young = self.under_way.arrived < self.cap * rtt;
        self.room() < 1.0 && self.outstanding() >= BACKLOG && !is_young
    }
}
