//! A stream's state as tables and JSON show it.
//!
//! Invariant: `sent = acked + under way`, up to rounding, and the causes sum up to the time observed.

use serde::Serialize;

use super::Pacer;
use crate::carry::{Cause, Causes};
use crate::hint::State;

/// One stream at one instant. Rates are tokens/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What limits it.
    pub state: State,
    /// Nothing may be generated now.
    pub hold: bool,
    /// For whom it waits at present; `None` while nothing is under way.
    pub cause: Option<Cause>,
    /// Time by cause.
    #[serde(rename = "cause_seconds")]
    pub causes: Causes,
    /// Tokens that were let through.
    pub admitted: u64,
    /// Tokens that were handed on as text.
    pub sent: u64,
    /// Tokens that the client's kernel has, as far as bytes tell.
    pub acked: f64,
    /// Tokens that are under way: in the server's buffers, the kernel's, and on the path.
    pub outstanding: f64,
    /// Tokens that may be.
    pub credit: f64,
    /// Tokens that the client has and has not read, if it reads as fast as was assumed.
    pub unread: f64,
    /// What the path carries while it is the bottleneck; absent while it is not known to be one.
    pub carry_tps: Option<f64>,
    /// The most that the path takes; 0 while held.
    pub cap_tps: f64,
    /// The stream's share of the engine.
    pub granted_tps: f64,
    /// Bytes of a token on the wire, framing and encryption included.
    pub bytes_per_token: f64,
    /// Smoothed round trip.
    pub srtt_seconds: Option<f64>,
}

impl Report {
    pub(super) fn of(pacer: &Pacer) -> Self {
        let outstanding = pacer.under_way();
        Self {
            state: pacer.carry.state(),
            hold: pacer.is_held(),
            cause: pacer.attribution.present_cause(),
            causes: pacer.causes(),
            admitted: pacer.admitted,
            sent: pacer.sent,
            acked: (pacer.sent as f64 - outstanding).max(pacer.acked),
            outstanding,
            credit: pacer.carry.credit(),
            unread: pacer.unread.tokens(),
            carry_tps: pacer.carry.carried(),
            cap_tps: pacer.cap(),
            granted_tps: pacer.granted,
            bytes_per_token: pacer.carry.bytes_per_token(),
            srtt_seconds: pacer.srtt.map(|srtt| srtt.as_secs_f64()),
        }
    }
}
