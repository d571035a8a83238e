//! One stream's pacer, for a server that asks before it generates: may I, and if not, until when?
//!
//! [`Carry`] knows what the path takes, a [`TokenBucket`] spaces tokens at the rate of that or of the stream's share of the engine,
//! [`Unread`] says how much the client still has to read. Here they are one thing with the three calls that an embedding server makes:
//! [`Pacer::admit`] before it generates, [`Pacer::on_sent`] when it has handed the text on, [`Pacer::observe`] with what the kernel says.
//!
//! ```text
//! admitted ──► generated, handed on ──► (the server's own buffer) ──► the kernel's queue ──► acknowledged ──► read
//!  pending               └───────── in the library ────────┘            outstanding            unread
//! ```
//!
//! All of the first three count against the credit. How bytes become tokens is [`ledger`](self::ledger)'s: neither headers nor framing nor
//! encryption is text, and all of it is in what the kernel counts.
//!
//! Invariants: tokens that were admitted and are not acknowledged never exceed the credit when one more is admitted, except that a group
//! larger than all of the credit goes alone (else it would never go); the rate is the least of what is granted and what the
//! path carries; whatever the clock and the kernel say, nothing panics.

mod ledger;
mod report;

use std::time::Duration;

use netdiag_telemetry::{FlowSnapshot, Tps};

use crate::bucket::TokenBucket;
use crate::carry::{Attribution, Carry, Causes, Evidence, Unread};
use crate::hint::{State, TpsRange};
use crate::plan::{Load, Need};

use ledger::Ledger;

pub use report::Report;

/// Tokens that may follow each other at once after a pause: two, so that timers that are late by a millisecond lose nothing.
const BURST: u32 = 2;

/// Seconds of text that may always be under way where the engine is shared with nobody: as nobody gains by it, a credit must not be what
/// limits a clean path, whose round trips are never all as short as the least.
const ALONE_SPARE: f64 = 0.5;

/// Whether tokens may be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, and they count as generated from now on.
    Now,
    /// After so long, at the present rate. Ask again then.
    Wait(Duration),
    /// Not before the kernel tells of an ACK ([`Pacer::acknowledge`]) or is observed again.
    Hold,
}

/// The memory of one stream.
#[derive(Clone, Debug)]
pub struct Pacer {
    range: TpsRange,
    load: Load,
    carry: Carry,
    attribution: Attribution,
    bucket: TokenBucket,
    unread: Unread,
    ledger: Ledger,
    /// Tokens/s of the engine.
    granted: f64,
    srtt: Option<Duration>,
    admitted: u64,
    sent: u64,
    /// Admitted and not handed on.
    pending: u64,
    /// Since when the server waits for admission, as far as it is not accounted yet.
    waiting: Option<Duration>,
    /// Acknowledged, tokens: what was sent less what is under way.
    acked: f64,
}

impl Pacer {
    /// A stream of which nothing is known, to a client that reads at `reading`.
    pub fn new(range: TpsRange, reading: Tps, now: Duration) -> Self {
        Self {
            range,
            load: Load::default(),
            carry: Carry::new(range),
            attribution: Attribution::new(),
            bucket: TokenBucket::new(range.max(), BURST, now),
            unread: Unread::new(reading, now),
            ledger: Ledger::default(),
            granted: range.max().get(),
            srtt: None,
            admitted: 0,
            sent: 0,
            pending: 0,
            waiting: None,
            acked: 0.0,
        }
    }

    /// Whether `tokens` more may be generated at `now`. If so they are counted: each needs its [`Pacer::on_sent`].
    pub fn admit(&mut self, now: Duration, tokens: u32) -> Admission {
        let admission = self.judge(now, tokens);
        if admission == Admission::Now {
            self.end_wait(now);
            self.admitted += u64::from(tokens);
            self.pending += u64::from(tokens);
        } else {
            self.waiting.get_or_insert(now);
        }
        admission
    }

    /// The server has given up waiting, at `now`: its engine is busy with something else, or has ended.
    pub fn end_wait(&mut self, now: Duration) {
        if let Some(since) = self.waiting.take() {
            self.attribution.on_waited(now.saturating_sub(since));
        }
    }

    /// `tokens` of those admitted were handed on as `bytes`. Without bytes they had no text, and nothing of them is under way.
    pub fn on_sent(&mut self, tokens: u32, bytes: u64) {
        self.pending = self.pending.saturating_sub(tokens.into());
        self.ledger.hand_on(bytes);
        if bytes > 0 {
            self.sent += u64::from(tokens);
            self.carry.on_sent(tokens, self.ledger.on_the_wire(bytes));
        }
    }

    /// Takes in what the kernel says of the connection; a snapshot without [`netdiag_telemetry::Liveness`] says nothing.
    pub fn observe(&mut self, now: Duration, snapshot: &FlowSnapshot) {
        if let Some(seen) = Evidence::of_snapshot(snapshot) {
            self.observe_evidence(now, &seen);
        }
    }

    /// Takes in what the kernel says of the connection.
    pub fn observe_evidence(&mut self, now: Duration, seen: &Evidence) {
        // Time is accounted up to now, and goes on.
        let waited = self.waiting.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.attribution.on_waited(waited);
        self.waiting = self.waiting.map(|_| now);
        self.srtt = seen.srtt;
        self.ledger.compare(seen);
        let least = match self.load {
            Load::Unshared => ALONE_SPARE * self.unread.reading().get(),
            Load::Idle | Load::Busy => 0.0,
        };
        let spare = match self.carry.state() {
            // It has not read what it has, whatever its reading rate should be.
            State::Reader => 0.0,
            _ => self.load.lead().spare(&self.unread).max(least),
        };
        self.attribution.account(&self.carry.observe(now, seen, spare));
        // Tokens that were sent and are not under way have arrived. Bytes acknowledged would be headers, too.
        let acked = (self.sent as f64 - self.under_way()).max(self.acked);
        self.unread.deliver(now, acked - self.acked);
        self.acked = acked;
    }

    /// Nothing was under way since the last observation, and nothing is: time has passed, and that is all. The same as observing it, for
    /// callers who need not ask the kernel to know.
    pub fn observe_idle(&mut self, now: Duration) {
        if let Some((at, mut seen)) = self.carry.last_seen() {
            seen.last_ack_age = seen.last_ack_age.saturating_add(now.saturating_sub(at));
            self.observe_evidence(now, &seen);
        }
    }

    /// The kernel has `bytes_acked` by now (cumulative): what has arrived since the last observation makes room.
    pub fn acknowledge(&mut self, bytes_acked: u64) {
        self.carry.acknowledge(bytes_acked);
    }

    /// How much is asked of the engine, from the next observation on.
    pub fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// What the stream may have of the engine from `now` on, tokens/s. What is no number leaves it as it is.
    pub fn grant(&mut self, now: Duration, rate: f64) {
        if rate.is_nan() {
            return;
        }
        self.granted = rate.clamp(0.0, self.range.max().get());
        self.carry.grant(self.granted);
        if let Ok(rate) = Tps::try_new(self.rate()) {
            self.bucket.set_rate(now, rate);
        }
    }

    /// What it needs of the engine; for [`crate::share`].
    pub fn need(&self) -> Need {
        // What is under way will be read, too.
        let reading = self.unread.reading();
        let lead = self.unread.lead() + self.under_way() * reading.seconds_per_token();
        Need { cap: self.cap(), reading, lead, ahead: self.load.lead().ahead(&self.carry) }
    }

    /// Tokens/s: what is granted, or what the path takes if that is less.
    pub fn rate(&self) -> f64 {
        self.granted.min(self.cap())
    }

    /// Nothing that is generated now can be delivered.
    pub fn is_held(&self) -> bool {
        match self.carry.state() {
            State::Stalled | State::Reader => self.room() < 1.0,
            _ => self.carry.is_held(),
        }
    }

    /// The client has been silent for so long that it is gone.
    pub fn is_lost(&self) -> bool {
        self.carry.is_lost()
    }

    /// Tokens that may be admitted without more being under way than the credit.
    pub fn room(&self) -> f64 {
        (self.carry.credit() - self.under_way() - self.pending as f64).max(0.0)
    }

    /// What the path is known to do; for states, hints and reasons.
    pub fn carry(&self) -> &Carry {
        &self.carry
    }

    /// What its client has not read.
    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    /// Whose time it was.
    pub fn causes(&self) -> Causes {
        self.attribution.causes()
    }

    /// All that is known, as a table or a line of JSON shows it.
    pub fn report(&self) -> Report {
        Report::of(self)
    }

    /// What is handed on and not acknowledged, tokens; what waits in the HTTP library is part of it.
    pub fn under_way(&self) -> f64 {
        let in_library = self.ledger.in_library() as f64 / self.carry.bytes_per_token();
        self.carry.outstanding() + in_library
    }

    fn judge(&mut self, now: Duration, tokens: u32) -> Admission {
        let Ok(rate) = Tps::try_new(self.rate()) else { return Admission::Hold };
        if !self.has_room(tokens) {
            return Admission::Hold;
        }
        self.bucket.set_rate(now, rate);
        self.bucket.take(now, tokens).map_or_else(Admission::Wait, |()| Admission::Now)
    }

    fn has_room(&self, tokens: u32) -> bool {
        let tokens = f64::from(tokens);
        let room = self.room();
        room >= tokens || tokens > self.carry.credit() && room >= self.carry.credit()
    }

    fn cap(&self) -> f64 {
        if self.is_held() { 0.0 } else { self.carry.cap() }
    }
}

#[cfg(test)]
mod tests;
