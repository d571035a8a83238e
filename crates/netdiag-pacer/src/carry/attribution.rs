//! Who is to blame for a tick.
//!
//! The path or the reader, where the state says so or what was written is late ([`late`](super::late)). Else the path, the pacer or the
//! engine: a server that asks before it generates knows how long it waited for admission, and the rest was the engine's. Elsewhere it is
//! concluded from how much of its rate a stream used. What limits the rate is the path if it takes less than the pacer grants.
//!
//! Invariant: all of a tick is accounted, and nothing twice.

use std::time::Duration;

use super::{Carry, Cause};
use crate::hint::State;

/// Share of a rate that counts as all of it: engines have steps, and ask for hints now and then, while a rate that grows is ahead of
/// them.
const ALL: f64 = 0.75;

/// Tokens that are not used before a rate is: one that is due between two ticks, and half of another, because the rate is an average.
const DUE: f64 = 1.5;

/// Tokens that a stream could have had and did not generate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unused(f64);

impl Unused {
    /// It was given so many tokens and generated so many. Whether it took all that it got.
    fn takes_all(&mut self, given: f64, sent: f64) -> bool {
        self.0 = (self.0 + ALL * given - sent).clamp(0.0, 2.0 * DUE);
        self.0 < DUE
    }
}

impl Carry {
    /// The server had to wait for admission for so much of the time since the last observation.
    pub fn on_waited(&mut self, time: Duration) {
        self.waited = Some(self.waited.unwrap_or_default().saturating_add(time));
    }

    /// Accounts a tick of `elapsed`, of which `rwnd_limited` was the reader's.
    pub(super) fn account(&mut self, elapsed: Duration, rwnd_limited: Duration) {
        self.causes.add(Cause::Reader, rwnd_limited);
        let rest = elapsed - rwnd_limited;
        let takes_all = self.unused.takes_all(self.rate() * elapsed.as_secs_f64(), self.sent);
        let waited = self.waited.take();
        if let Some(cause) = self.keeps(rwnd_limited) {
            self.causes.add(cause, rest);
            return;
        }
        let max = self.range.max().get();
        let limits = if self.cap < self.granted { Cause::Path } else { Cause::Pacer };
        // Whoever took all that it was given would have taken more.
        let concluded = if takes_all && self.rate() < max { rest } else { Duration::ZERO };
        let kept_back = waited.map_or(concluded, |waited| waited.min(rest));
        self.causes.add(limits, kept_back);
        self.causes.add(Cause::Engine, rest - kept_back);
    }

    /// Who keeps what was written.
    fn keeps(&self, rwnd_limited: Duration) -> Option<Cause> {
        match self.state {
            State::Stalled | State::Constrained => Some(Cause::Path),
            State::Reader => Some(Cause::Reader),
            State::Clear | State::Idle | State::Stale if self.late.is_late() => {
                // A reader that takes a little now and then shuts its window for a part of each tick.
                let was_reader = self.present_cause == Some(Cause::Reader);
                let is_reader = was_reader || !rwnd_limited.is_zero();
                Some(if is_reader { Cause::Reader } else { Cause::Path })
            }
            State::Clear | State::Idle | State::Stale => None,
        }
    }
}
