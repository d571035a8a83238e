//! How many seconds of text a client still has to read.
//!
//! Delivered tokens go in as the kernel acknowledges them, and the reader takes them out at the reading rate. That is all that
//! urgency needs: who has the least runs dry first.
//!
//! Invariant: what is unread is never negative, and never more than what was delivered.

use std::time::Duration;

use netdiag_telemetry::Tps;

use super::nanos::Nanos;

/// What one client has and has not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unread {
    reading: Tps,
    tokens: f64,
    at: Nanos,
}

impl Unread {
    /// A client that has nothing yet and reads at `reading`.
    pub fn new(reading: Tps, now: Duration) -> Self {
        Self { reading, tokens: 0.0, at: Nanos::of(now) }
    }

    /// `delivered` more tokens reached the client, up to `now`. A step back in time counts as no time; what is no number, as
    /// nothing.
    pub fn deliver(&mut self, now: Duration, delivered: f64) {
        let now = Nanos::of(now);
        let read = now.saturating_sub(self.at).seconds() * self.reading.get();
        self.at = self.at.max(now);
        let delivered = if delivered.is_finite() { delivered.max(0.0) } else { 0.0 };
        self.tokens = (self.tokens + delivered - read).max(0.0);
    }

    /// The reading rate.
    pub fn reading(&self) -> Tps {
        self.reading
    }

    /// Tokens delivered and not read.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    /// Seconds until the client runs dry.
    pub fn lead(&self) -> f64 {
        self.tokens * self.reading.seconds_per_token()
    }
}
