//! How far ahead of its reader a stream should be, and how much of it may be under way.
//!
//! A lead is insurance against silences of the path: worth nothing while the path is steady, lost if the reader leaves, and taken from
//! others while the engine is contended. So it is short where a path is steady and where somebody waits, and grows with how late TCP
//! itself expects an ACK to be, because a radio link's opportunities become rare before they cease.
//!
//! What is under way is lost with a client that vanishes, and is of use to one that has nothing to read: so the fewer tokens are
//! unread, the more may be.
//!
//! Invariant: leads are between nothing and [`Lead::MOST`] seconds, whatever a path shows.

use super::nanos::Nanos;
use super::{Carry, Unread};

/// Chosen by simulation, on links and seeds that no result is reported of; see ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lead {
    /// Seconds of text, on a steady path.
    pub ahead: f64,
    /// Seconds of text more, for each second that an ACK may be late ([`Carry::unsteadiness`]).
    pub unsteady: f64,
    /// Seconds of text that may be under way beyond what the path needs, to a client that has nothing to read.
    pub spare: f64,
}

impl Lead {
    /// While nobody waits for the engine.
    pub const IDLE: Self = Self { ahead: 0.5, unsteady: 25.0, spare: 1.0 };

    /// While somebody does.
    pub const BUSY: Self = Self { ahead: 0.3, unsteady: 2.0, spare: 0.1 };

    /// The most, seconds of text: nearly twice the longest silence in the recorded drives (5.8 s), for those that follow closely on
    /// each other.
    pub const MOST: f64 = 10.0;

    /// The lead from which on nothing more may be under way than the path needs, seconds of text: a stall is known well within it.
    const SPARE_ENDS: f64 = 1.5;

    /// Seconds of text that the flow's client should have unread.
    pub fn ahead(&self, carry: &Carry) -> f64 {
        (self.ahead + self.unsteady * carry.unsteadiness()).min(Self::MOST)
    }

    /// Tokens that may be under way to the client beyond what the path needs; what [`Carry::observe`] takes.
    pub fn spare(&self, unread: &Unread) -> f64 {
        let urgency = (1.0 - unread.lead() / Self::SPARE_ENDS).max(0.0);
        self.spare * urgency * unread.reading().get()
    }
}

impl Carry {
    /// How much later than usual an ACK may come, seconds: what TCP itself expects (RFC 6298) beyond the path's least round trip.
    /// It rises before a radio link falls silent, because opportunities to send become rare first.
    pub fn unsteadiness(&self) -> f64 {
        let (Some(seen), Some(least)) = (&self.last, self.least_rtt.best()) else {
            return 0.0;
        };
        let late = |srtt: Nanos| srtt.saturating_add(seen.margin()).seconds() - least;
        seen.srtt().map_or(0.0, |srtt| late(srtt).max(0.0))
    }
}
