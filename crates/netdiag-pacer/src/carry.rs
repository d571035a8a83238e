//! The policy for input that knows each flow: as many tokens as the path carries, and none that it does not.
//!
//! A round trip says little about what a link carries: 200 ms of clean fibre carry everything, 20 ms that have fallen silent
//! carry nothing. So this policy listens to what the kernel knows of each flow (bytes acknowledged, bytes waiting, the
//! retransmission timer, who limits the sender) and bounds two things: the rate, by what the path delivers while something always
//! waits for it, and the *credit*, the tokens that may be under way. A stream on a good path feels neither. One whose path
//! falls silent spends its credit within a moment and is held, so that a client that never comes back has cost no more than that.
//!
//! ```text
//! stalled      data is out, and no ACK for longer than the path explains: max(srtt + 4·rttvar, 200 ms), or a backed-off timer
//! reader       its receive window was full for most of the tick, or data waits and nothing is out
//! constrained  something waited for the path through the whole tick: unsent data, or all that the credit allows
//! clear        otherwise
//! credit       basis · least srtt + spare, basis = what is granted, or the cap if that is less; at first 2 tokens, and one more for
//!              each that is acknowledged
//! ```
//!
//! | design §8 | here | why |
//! | --- | --- | --- |
//! | credit by srtt | by the least srtt of the last 10 to 20 s | what is under way is rate · srtt (Little), so a credit by srtt pays for its own queue and grows without end; BBR's window has the least one for this reason (Cardwell et al., ACM Queue 14(5), 2016) |
//! | constrained while notsent > 0 | also while the credit is spent | a window of ten segments holds seconds of text: the backlog is in the radio's queue, where `notsent` never sees it |
//! | ramp to max | by a factor of e each second | one step to the maximum would fill the queue again, and again |
//!
//! Whose fault it is that a flow is slow is for an [`Attribution`] to say, by what each observation tells.
//!
//! Invariants: rates stay within the range; the credit is never exceeded by one who asks [`Carry::room`]. Evidence that cannot follow
//! from what was seen before (a counter or a clock that jumped back, another connection on the same ports) begins the flow anew and
//! throttles nothing.

mod attribution;
mod causes;
mod evidence;
mod explain;
mod late;
mod lead;
mod limits;
mod nanos;
mod recent;
mod seen;
mod under_way;
mod unread;

use std::time::Duration;

use crate::hint::{State, TpsRange};

use attribution::{Acked, Tick};
use nanos::Nanos;
use recent::Recent;
use seen::Seen;
use under_way::UnderWay;

pub use attribution::{Attribution, Look};
pub use causes::{Cause, Causes};
pub use evidence::Evidence;
pub use lead::Lead;
pub use unread::Unread;

/// The least time without an ACK that counts as a stall: below it delayed ACKs look the same (Linux delays by 40 to 200 ms).
const STALL_FLOOR: Nanos = Nanos::of(Duration::from_millis(200));

/// A stall after which the client is taken as gone: five times the longest silence in the recorded drives (5.8 s).
const LOST_AFTER: Nanos = Nanos::of(Duration::from_secs(30));

/// Time constant of the carry rate: DESIGN §8's second, ten ticks, so that one tick without an ACK is no collapse.
const CARRY_SMOOTHING: f64 = 1.0;

/// How many seconds the most that the path delivered is remembered, at least; at most twice that. A rate that is limited by what was
/// allowed says only that the path carries so much at least, so the highest counts (as in BBR), and a silence between two
/// deliveries of the radio is no lower rate.
const CARRY_WINDOW: u64 = 2;

/// Share of the carry rate that is asked for while data waits for the kernel, so that it drains; and while the kernel has sent all,
/// so that a path that carries more shows it (BBR's gains are 0.75 and 1.25; DESIGN §8 asks for 0.95).
const DRAINING: f64 = 0.95;
const PROBING: f64 = 1.25;

/// Tokens under way that show a bottleneck when the credit for them is spent: more than a round trip of a stream read at sixteen a
/// second over half a second of radio scheduling. With fewer the credit itself would be the bottleneck, find itself slow, and
/// shrink.
const BACKLOG: f64 = 8.0;

/// Round trips of so many times the least are a queue, on a path whose sender may have more under way than it should.
const QUEUEING: f64 = 2.0;

/// Time in which a path that is clear again is granted e times as much: slow enough that a bottleneck shows before its queue is
/// full, quick enough to be at the maximum within seconds.
const RAMP_SECONDS: f64 = 1.0;

/// Time in which the rate falls to a share of 1/e at the fastest. The credit bounds what is under way meanwhile, so the rate need not
/// jump.
const BRAKING_SECONDS: f64 = 0.5;

/// Share of a tick with a full receive window from which on the reader is the one to name: for longer than anything else.
const READER_SHARE: f64 = 0.5;

/// How many seconds the least round trip is remembered, at least; at most twice that. BBR uses 10.
const MIN_RTT_WINDOW: u64 = 10;

/// A gap between two observations after which rates across it mean nothing: the machine slept, or the clock jumped.
const LONGEST_TICK: Nanos = Nanos::of(Duration::from_secs(10));

/// Round trip of a path that none is known of, seconds: across a continent. It is known with the first ACK.
const UNKNOWN_RTT: f64 = 0.1;

/// The memory of one flow: four cache lines, of which tokens and acknowledgements need the first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Carry {
    under_way: UnderWay,
    range: TpsRange,
    last: Option<Seen>,
    /// How long data has waited for an ACK.
    waiting: Nanos,
    /// Most the flow may be given, tokens/s.
    cap: f64,
    /// What it is given, tokens/s.
    granted: f64,
    /// The most that the path delivered while it was the bottleneck, tokens/s.
    carried: Recent<true, CARRY_WINDOW>,
    /// The least srtt, seconds.
    least_rtt: Recent<false, MIN_RTT_WINDOW>,
    state: State,
    /// Who sends asks for room first, so that a credit that is spent says something of the path.
    asks: bool,
}

// Another line would be fetched for each of a thousand flows, ten times a second.
const _: () = assert!(size_of::<Carry>() <= 4 * 64);

impl Carry {
    /// A flow of which nothing is known: presumed clear.
    pub fn new(range: TpsRange) -> Self {
        let max = range.max().get();
        Self {
            under_way: UnderWay::new(),
            range,
            last: None,
            waiting: Nanos::ZERO,
            cap: max,
            granted: max,
            carried: Recent::new(),
            least_rtt: Recent::new(),
            state: State::Idle,
            asks: true,
        }
    }

    /// The same of a flow whose sender is only watched: it may send more than its credit over a path that carries everything.
    pub fn watching(range: TpsRange) -> Self {
        Self { asks: false, ..Self::new(range) }
    }

    /// Tokens were handed to the kernel as so many bytes.
    pub fn on_sent(&mut self, tokens: u32, bytes: u64) {
        self.under_way.add(tokens, bytes);
    }

    /// So many bytes were handed to the kernel, and nobody knows of how many tokens: by the length that was measured. Nothing is learnt
    /// from them, because a full buffer takes them in pieces of any size.
    pub fn on_written(&mut self, bytes: u64) {
        self.under_way.add_uncounted(bytes);
    }

    /// The kernel has `bytes_acked` by now (cumulative), for callers that ask it between two observations, when they are about to
    /// send: what has arrived makes room. It judges nothing.
    pub fn acknowledge(&mut self, bytes_acked: u64) {
        self.under_way.acknowledge(bytes_acked);
    }

    /// The rate that was decided on, which may be below [`Carry::cap`] because others need the engine more. What is no number
    /// leaves it as it is.
    pub fn grant(&mut self, rate: f64) {
        if !rate.is_nan() {
            self.granted = rate.clamp(0.0, self.range.max().get());
        }
    }

    /// Takes in what the kernel says at `now`. So many tokens may be under way as the path needs, and `spare` more: few for a client
    /// that has text to read, or where others can use the engine.
    /// Tells what an [`Attribution`] goes by.
    pub fn observe(&mut self, now: Duration, seen: &Evidence, spare: f64) -> Look {
        let seen = Seen::of(now, seen);
        let before = self.last.filter(|before| seen.follows(before));
        self.last = Some(seen);
        self.under_way.know(seen.bytes_acked);
        let Some(before) = before else {
            self.begin(&seen, spare);
            return Look { tick: None, is_new: true };
        };
        let elapsed = seen.at.saturating_sub(before.at);
        if elapsed.is_zero() {
            return Look { tick: None, is_new: false };
        }
        if elapsed > LONGEST_TICK {
            // The time passed, whatever it was; only rates across the gap mean nothing.
            let tick = Some(self.tick(elapsed, Nanos::ZERO, None));
            self.begin(&seen, spare);
            return Look { tick, is_new: true };
        }
        let acked = seen.bytes_acked - before.bytes_acked;
        let busy = seen.busy.saturating_sub(before.busy);
        let rwnd_limited = seen.rwnd_limited.saturating_sub(before.rwnd_limited).min(elapsed);
        // The kernel's busy time says how long data was outstanding: without an ACK all of it was spent waiting, and with one at
        // most what has passed since. The age of the last ACK alone would call a flow stalled that wakes up.
        self.waiting = match (seen.is_outstanding(), acked) {
            (false, _) => Nanos::ZERO,
            (true, 0) => self.waiting.saturating_add(busy).min(seen.last_ack_age),
            (true, _) => busy.min(seen.last_ack_age),
        };
        // Whether all that may be under way was, before the kernel told what has arrived.
        // A silence that ends is no measure of the path after it.
        let was_spent = self.room() < 1.0 && (self.asks || self.is_queueing(&before));
        let was_limited = self.state != State::Stalled && (before.notsent > 0 || was_spent);
        self.under_way.outstanding = self.under_way.tokens_in(seen.queued);
        self.remember_rtt(&seen);
        let is_spent = self.is_spent() && (self.asks || self.is_queueing(&seen));
        let is_limited = seen.notsent > 0 || is_spent;
        let shut = seen.notsent > 0 && !seen.is_outstanding() && acked == 0;
        let reader =
            shut || seen.queued > 0 && rwnd_limited.seconds() >= READER_SHARE * elapsed.seconds();
        self.state = if self.is_stalled(&seen) {
            State::Stalled
        } else if reader {
            State::Reader
        } else if was_limited && is_limited {
            State::Constrained
        } else if acked > 0 || seen.queued > 0 || self.under_way.sent > 0.0 {
            State::Clear
        } else {
            State::Idle
        };
        self.under_way.arrived += self.under_way.tokens_in(acked);
        self.follow(&seen, acked, elapsed);
        self.set_credit(spare);
        let tick = Some(self.tick(elapsed, rwnd_limited, Some(&seen)));
        self.under_way.sent = 0.0;
        Look { tick, is_new: false }
    }

    /// What was observed last, and when.
    pub(crate) fn last_seen(&self) -> Option<(Duration, Evidence)> {
        self.last.map(|seen| seen.evidence())
    }

    /// The least and the greatest rate.
    pub fn range(&self) -> TpsRange {
        self.range
    }

    /// What limits the flow.
    pub fn state(&self) -> State {
        self.state
    }

    /// The most it can use, tokens/s: nothing while it is held, the range's maximum while the path is clear.
    pub fn cap(&self) -> f64 {
        if self.is_held() { 0.0 } else { self.cap }
    }

    /// What it is given, tokens/s: as much as it can use of what was granted.
    pub fn rate(&self) -> f64 {
        self.cap().min(self.granted)
    }

    /// Tokens that may be generated now without more being under way than the credit.
    pub fn room(&self) -> f64 {
        self.under_way.room()
    }

    /// Tokens that may be under way.
    pub fn credit(&self) -> f64 {
        self.under_way.credit
    }

    /// Tokens written and not acknowledged.
    pub fn outstanding(&self) -> f64 {
        self.under_way.outstanding
    }

    /// What the path delivers while it is the bottleneck, tokens/s; `None` while it is not known to be one. It is the most of averages
    /// over a second: up to a third more than the path carries where its ACKs are half a second apart.
    pub fn carried(&self) -> Option<f64> {
        self.carried.best()
    }

    /// Bytes of a token on the wire, as measured.
    pub fn bytes_per_token(&self) -> f64 {
        self.under_way.bytes_per_token
    }

    /// Nothing that is generated now can be delivered.
    pub fn is_held(&self) -> bool {
        match self.state {
            State::Stalled | State::Reader => self.room() < 1.0,
            State::Clear | State::Constrained | State::Idle | State::Stale => false,
        }
    }

    /// It has been silent for so long that its client is gone.
    pub fn is_lost(&self) -> bool {
        self.state == State::Stalled && self.waiting > LOST_AFTER
    }

    /// The time that has just passed, of which `rwnd_limited` was the reader's.
    fn tick(&self, elapsed: Nanos, rwnd_limited: Nanos, seen: Option<&Seen>) -> Tick {
        let rate = self.rate();
        let limits = if self.cap < self.granted { Cause::Path } else { Cause::Pacer };
        Tick {
            elapsed,
            rwnd_limited,
            state: self.state,
            rate,
            limits: Some(limits).filter(|_| rate < self.range.max().get()),
            sent: self.under_way.sent,
            seen: seen.map(|seen| Acked {
                at: seen.at,
                bytes: seen.bytes_acked,
                queued: seen.queued,
                rtt: self.least_rtt.best(),
            }),
        }
    }

    /// From `seen` on, with nothing to compare it with.
    fn begin(&mut self, seen: &Seen, spare: f64) {
        self.waiting = if seen.backoff >= 1 { seen.last_ack_age } else { Nanos::ZERO };
        self.under_way.outstanding = self.under_way.tokens_in(seen.queued);
        self.under_way.delivered = 0.0;
        self.carried.forget(seen.at);
        self.cap = self.range.max().get();
        self.under_way.sent = 0.0;
        self.least_rtt.forget(seen.at);
        self.remember_rtt(seen);
        self.state = if self.is_stalled(seen) { State::Stalled } else { State::Idle };
        self.set_credit(spare);
    }

    fn is_stalled(&self, seen: &Seen) -> bool {
        let explained = seen.srtt().unwrap_or(STALL_FLOOR).saturating_add(seen.margin());
        seen.is_outstanding()
            && !self.waiting.is_zero()
            && (seen.backoff >= 1 || self.waiting > explained.max(STALL_FLOOR))
    }

    fn remember_rtt(&mut self, seen: &Seen) {
        if let Some(srtt) = seen.srtt() {
            self.least_rtt.note(seen.at, srtt.seconds());
        }
    }
}

#[cfg(test)]
mod tests;
