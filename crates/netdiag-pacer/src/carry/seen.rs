//! [`Evidence`] as a flow remembers it until the next.
//!
//! Invariant: what comes out is what went in, up to the length of a [`Nanos`].

use std::time::Duration;

use super::Evidence;
use super::nanos::Nanos;

/// What the kernel said, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at: Nanos,
    /// Means something if `is_opened` says so: the two are a word smaller apart.
    opened: u64,
    pub(super) bytes_acked: u64,
    pub(super) queued: u64,
    pub(super) notsent: u64,
    pub(super) last_ack_age: Nanos,
    pub(super) busy: Nanos,
    pub(super) rwnd_limited: Nanos,
    srtt: Nanos,
    rttvar: Nanos,
    pub(super) backoff: u8,
    is_opened: bool,
}

impl Seen {
    pub(super) fn of(now: Duration, evidence: &Evidence) -> Self {
        Self {
            at: Nanos::of(now),
            opened: evidence.opened.unwrap_or_default(),
            bytes_acked: evidence.bytes_acked,
            queued: evidence.queued,
            notsent: evidence.notsent,
            last_ack_age: Nanos::of(evidence.last_ack_age),
            busy: Nanos::of(evidence.busy),
            rwnd_limited: Nanos::of(evidence.rwnd_limited),
            srtt: Nanos::of_known(evidence.srtt),
            rttvar: Nanos::of_known(evidence.rttvar),
            backoff: evidence.backoff,
            is_opened: evidence.opened.is_some(),
        }
    }

    /// As it was said.
    pub(super) fn evidence(&self) -> (Duration, Evidence) {
        let evidence = Evidence {
            opened: self.is_opened.then_some(self.opened),
            bytes_acked: self.bytes_acked,
            queued: self.queued,
            notsent: self.notsent,
            backoff: self.backoff,
            last_ack_age: self.last_ack_age.into(),
            busy: self.busy.into(),
            rwnd_limited: self.rwnd_limited.into(),
            srtt: self.srtt().map(Duration::from),
            rttvar: self.rttvar.known().map(Duration::from),
        };
        (self.at.into(), evidence)
    }

    /// Whether it can follow `before`: the same connection, and no counter or clock that went back.
    pub(super) fn follows(&self, before: &Self) -> bool {
        self.at >= before.at
            && (self.is_opened, self.opened) == (before.is_opened, before.opened)
            && self.bytes_acked >= before.bytes_acked
    }

    /// Something was sent and not acknowledged.
    pub(super) fn is_outstanding(&self) -> bool {
        self.queued > self.notsent
    }

    /// Smoothed round trip; `None` before the first.
    pub(super) fn srtt(&self) -> Option<Nanos> {
        self.srtt.known()
    }

    /// How much more than the smoothed round trip an ACK may take, by TCP's own reckoning (RFC 6298).
    pub(super) fn margin(&self) -> Nanos {
        self.rttvar.known().unwrap_or_default().saturating_mul(4)
    }
}
