//! What is under way to a flow's client, and how much may be.
//!
//! All that is touched for each token and for each acknowledgement, on a cache line of its own. Whoever paces a thousand streams
//! finds none of them in the nearest cache, and would else wait for memory several times for each token.
//!
//! Invariant: nothing in here is negative.

/// Bytes of a token before the first was sent, as in an event of OpenAI's format.
const UNKNOWN_TOKEN_BYTES: f64 = 230.0;

/// Tokens that may always be under way: with fewer a path whose client acknowledges every other segment would stop and go. It is also
/// where a flow begins, as TCP's window does: many a client has gone while it waited for the engine.
pub(super) const LEAST_CREDIT: f64 = 2.0;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct UnderWay {
    /// Tokens that may be.
    pub(super) credit: f64,
    /// Written and not acknowledged, tokens.
    pub(super) outstanding: f64,
    pub(super) bytes_per_token: f64,
    /// Tokens sent since the last observation.
    pub(super) sent: f64,
    /// Tokens acknowledged since the flow was first seen, up to the last observation.
    pub(super) arrived: f64,
    /// What the path delivered over the last second or so, tokens/s.
    pub(super) delivered: f64,
    /// Bytes acknowledged, as far as that is known.
    acknowledged: u64,
    /// It is not before the flow was observed.
    is_known: bool,
    is_measured: bool,
}

impl UnderWay {
    pub(super) fn new() -> Self {
        Self {
            credit: LEAST_CREDIT,
            outstanding: 0.0,
            bytes_per_token: UNKNOWN_TOKEN_BYTES,
            sent: 0.0,
            arrived: 0.0,
            delivered: 0.0,
            acknowledged: 0,
            is_known: false,
            is_measured: false,
        }
    }

    /// So many bytes, in tokens.
    pub(super) fn tokens_in(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_token
    }

    /// Tokens that may be written now.
    pub(super) fn room(&self) -> f64 {
        (self.credit - self.outstanding).max(0.0)
    }

    /// See [`Carry::on_sent`](super::Carry::on_sent).
    pub(super) fn add(&mut self, tokens: u32, bytes: u64) {
        if tokens == 0 {
            return;
        }
        let tokens = f64::from(tokens);
        let each = bytes as f64 / tokens;
        if each > 0.0 {
            // Lengths of tokens are alike; over eight of them their average is known, and the first says more than a guess.
            let weight = if self.is_measured { (tokens / 8.0).min(1.0) } else { 1.0 };
            self.is_measured = true;
            self.bytes_per_token += (each - self.bytes_per_token) * weight;
        }
        self.count(tokens);
    }

    /// See [`Carry::on_written`](super::Carry::on_written).
    pub(super) fn add_uncounted(&mut self, bytes: u64) {
        self.count(self.tokens_in(bytes));
    }

    fn count(&mut self, tokens: f64) {
        self.sent += tokens;
        self.outstanding += tokens;
    }

    /// So many bytes are acknowledged, by an observation that tells what is outstanding, too.
    pub(super) fn know(&mut self, bytes_acked: u64) {
        (self.acknowledged, self.is_known) = (bytes_acked, true);
    }

    /// See [`Carry::acknowledge`](super::Carry::acknowledge).
    pub(super) fn acknowledge(&mut self, bytes_acked: u64) {
        if !self.is_known {
            return;
        }
        let more = bytes_acked.saturating_sub(self.acknowledged);
        self.acknowledged = bytes_acked.max(self.acknowledged);
        let tokens = self.tokens_in(more);
        self.outstanding = (self.outstanding - tokens).max(0.0);
        // A flow that has just begun is allowed more with each of them.
        self.credit = self.credit.max((self.credit + tokens).min(LEAST_CREDIT + self.arrived));
    }
}
