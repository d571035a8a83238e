//! Who is to blame for a tick.
//!
//! The path or the reader, where the state says so or what was written is late ([`late`](super::late)). Else the path, the pacer or the
//! engine: a server that asks before it generates knows how long it waited for admission, and the rest was the engine's. Elsewhere it is
//! concluded from how much of its rate a stream used. What limits the rate is the path if it takes less than the pacer grants.
//!
//! Invariant: all of a tick is accounted, and nothing twice.

use std::time::Duration;

use super::causes::Times;
use super::late::Late;
use super::nanos::Nanos;
use super::seen::Seen;
use super::{Carry, Cause, Causes};
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

/// Whose time it was, and what says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    causes: Times,
    late: Late,
    unused: Unused,
    /// For how long the server has waited for admission since the last observation, if it says so.
    waited: Nanos,
}

impl Account {
    pub(super) fn new() -> Self {
        let (late, unused) = (Late::default(), Unused::default());
        Self { causes: Times::default(), late, unused, waited: Nanos::NONE }
    }

    /// From now on, with nothing to compare it with.
    pub(super) fn begin(&mut self) {
        self.late = Late::default();
    }

    /// What the kernel says, over a path of this least round trip, seconds.
    pub(super) fn follow(&mut self, seen: &Seen, rtt: Option<f64>) {
        self.late.observe(seen.at, seen.bytes_acked, seen.queued, rtt);
    }
}

impl Carry {
    /// The server had to wait for admission for so much of the time since the last observation.
    pub fn on_waited(&mut self, time: Duration) {
        let before = self.account.waited.known().unwrap_or_default();
        self.account.waited = before.saturating_add(Nanos::of(time));
    }

    /// For whom it waits at present; `None` while nothing is under way.
    pub fn present_cause(&self) -> Option<Cause> {
        self.present
    }

    /// Whose time it was since the flow was first seen.
    pub fn causes(&self) -> Causes {
        self.account.causes.into()
    }

    /// Accounts a tick of `elapsed`, of which `rwnd_limited` was the reader's.
    pub(super) fn attribute(&mut self, elapsed: Nanos, rwnd_limited: Nanos) {
        let rest = elapsed.saturating_sub(rwnd_limited);
        let given = self.rate() * elapsed.seconds();
        let takes_all = self.account.unused.takes_all(given, self.under_way.sent);
        let waited = std::mem::replace(&mut self.account.waited, Nanos::NONE).known();
        let kept = self.keeps(rwnd_limited);
        let is_bounded = self.rate() < self.range.max().get();
        let limits = if self.cap < self.granted { Cause::Path } else { Cause::Pacer };
        let mut news = Times::default();
        news.add(Cause::Reader, rwnd_limited);
        if let Some(cause) = kept {
            news.add(cause, rest);
        } else {
            // Whoever took all that it was given would have taken more.
            let concluded = if takes_all && is_bounded { rest } else { Nanos::ZERO };
            let kept_back = waited.map_or(concluded, |waited| waited.min(rest));
            news.add(limits, kept_back);
            news.add(Cause::Engine, rest.saturating_sub(kept_back));
        }
        self.account.causes.add_all(news);
        self.present = news.dominant().filter(|_| self.state != State::Idle);
    }

    /// Who keeps what was written.
    fn keeps(&self, rwnd_limited: Nanos) -> Option<Cause> {
        match self.state {
            State::Stalled | State::Constrained => Some(Cause::Path),
            State::Reader => Some(Cause::Reader),
            State::Clear | State::Idle | State::Stale if self.account.late.is_late() => {
                // A reader that takes a little now and then shuts its window for a part of each tick.
                let was_reader = self.present == Some(Cause::Reader);
                let is_reader = was_reader || !rwnd_limited.is_zero();
                Some(if is_reader { Cause::Reader } else { Cause::Path })
            }
            State::Clear | State::Idle | State::Stale => None,
        }
    }
}
