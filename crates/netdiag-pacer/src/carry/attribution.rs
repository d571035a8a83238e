//! Who is to blame for a tick.
//!
//! Where the path and the reader are not, it was the pacer or the engine. A server that asks before it generates knows which: what it
//! waited for admission was the pacer's, and the rest the engine's. Elsewhere it is concluded from how much of its share a stream used.
//!
//! Invariant: all of a tick is accounted, and nothing twice.

use std::time::Duration;

use super::{Carry, Cause};
use crate::hint::State;

impl Carry {
    /// The server had to wait for admission for so much of the time since the last observation.
    pub fn on_waited(&mut self, time: Duration) {
        self.waited = Some(self.waited.unwrap_or_default().saturating_add(time));
    }

    /// Accounts a tick of `elapsed`, of which `rwnd_limited` was the reader's.
    pub(super) fn account(&mut self, elapsed: Duration, rwnd_limited: Duration) {
        self.causes.add(Cause::Reader, rwnd_limited);
        let rest = elapsed - rwnd_limited;
        match (self.state, self.waited.take()) {
            (State::Stalled | State::Constrained, _) => self.causes.add(Cause::Path, rest),
            (State::Reader, _) => self.causes.add(Cause::Reader, rest),
            (State::Clear | State::Idle | State::Stale, Some(waited)) => {
                let waited = waited.min(rest);
                self.causes.add(Cause::Pacer, waited);
                self.causes.add(Cause::Engine, rest - waited);
            }
            (State::Clear | State::Idle | State::Stale, None) => {
                // Whoever took all that it was given would have taken more.
                let given = self.granted * elapsed.as_secs_f64();
                let is_paced = self.granted < self.range.max().get() && self.sent + 1.0 >= given;
                self.causes.add(if is_paced { Cause::Pacer } else { Cause::Engine }, rest);
            }
        }
    }
}
