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
use super::{Cause, Causes};
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

/// Whose time it was since a flow was first seen, and what says so.
///
/// Beside [`Carry`](super::Carry) and not in it: who only paces, as the simulator does with a thousand flows, need not fetch it from
/// memory for each of them.
#[derive(Clone, Debug)]
pub struct Attribution {
    causes: Times,
    late: Late,
    unused: Unused,
    /// For how long the server has waited for admission since the last observation, if it says so.
    waited: Nanos,
    /// For whom it waits.
    present: Option<Cause>,
}

/// What came of an observation, for [`Attribution::account`].
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The time since the one before; `None` where there is none, or no time has passed.
    pub(super) tick: Option<Tick>,
    /// The flow was begun anew.
    pub(super) is_new: bool,
}

/// The time between two observations of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub(super) elapsed: Nanos,
    /// The part of it with a full receive window.
    pub(super) rwnd_limited: Nanos,
    /// What limits the flow.
    pub(super) state: State,
    /// What it is given, tokens/s.
    pub(super) rate: f64,
    /// The same, if that is less than the most there is.
    pub(super) limits: Option<Cause>,
    /// Tokens that it sent.
    pub(super) sent: f64,
    /// What the kernel said at its end; `None` if it says nothing of the time before.
    pub(super) seen: Option<Acked>,
}

/// How far the client's acknowledgements have come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    pub(super) at: Nanos,
    pub(super) bytes: u64,
    pub(super) queued: u64,
    /// The path's least round trip, seconds.
    pub(super) rtt: Option<f64>,
}

impl Attribution {
    /// Of a flow that is about to be seen for the first time.
    #[allow(clippy::new_without_default)] // as Carry
    pub fn new() -> Self {
        let (late, unused) = (Late::default(), Unused::default());
        Self { causes: Times::default(), late, unused, waited: Nanos::NONE, present: None }
    }

    /// The server had to wait for admission for so much of the time since the last observation.
    pub fn on_waited(&mut self, time: Duration) {
        let before = self.waited.known().unwrap_or_default();
        self.waited = before.saturating_add(Nanos::of(time));
    }

    /// Accounts the time up to an observation.
    pub fn account(&mut self, look: &Look) {
        if let Some(tick) = &look.tick {
            if let Some(Acked { at, bytes, queued, rtt }) = tick.seen {
                self.late.observe(at, bytes, queued, rtt);
            }
            self.attribute(tick);
        }
        if look.is_new {
            self.late = Late::default();
            self.present = None;
        }
    }

    /// For whom the flow waits at present; `None` while nothing is under way.
    pub fn present_cause(&self) -> Option<Cause> {
        self.present
    }

    /// Whose time it was.
    pub fn causes(&self) -> Causes {
        self.causes.into()
    }

    fn attribute(&mut self, tick: &Tick) {
        let rest = tick.elapsed.saturating_sub(tick.rwnd_limited);
        let given = tick.rate * tick.elapsed.seconds();
        let takes_all = self.unused.takes_all(given, tick.sent);
        let waited = std::mem::replace(&mut self.waited, Nanos::NONE).known();
        let mut news = Times::default();
        news.add(Cause::Reader, tick.rwnd_limited);
        if let Some(cause) = self.keeps(tick) {
            news.add(cause, rest);
        } else {
            // Whoever took all that it was given would have taken more.
            let concluded = match tick.limits {
                Some(_) if takes_all => rest,
                _ => Nanos::ZERO,
            };
            let kept_back = waited.map_or(concluded, |waited| waited.min(rest));
            news.add(tick.limits.unwrap_or(Cause::Pacer), kept_back);
            news.add(Cause::Engine, rest.saturating_sub(kept_back));
        }
        self.causes.add_all(news);
        self.present = news.dominant().filter(|_| tick.state != State::Idle);
    }

    /// Who keeps what was written.
    fn keeps(&self, tick: &Tick) -> Option<Cause> {
        match tick.state {
            State::Stalled | State::Constrained => Some(Cause::Path),
            State::Reader => Some(Cause::Reader),
            State::Clear | State::Idle | State::Stale if self.late.is_late() => {
                // A reader that takes a little now and then shuts its window for a part of each tick.
                let was_reader = self.present == Some(Cause::Reader);
                let is_reader = was_reader || !tick.rwnd_limited.is_zero();
                Some(if is_reader { Cause::Reader } else { Cause::Path })
            }
            State::Clear | State::Idle | State::Stale => None,
        }
    }
}
