//! From the bytes that a server hands on to those that the kernel counts.
//!
//! The two are never the same: headers come before the first token, each chunk has its frame (`c8\r\n…\r\n`), TLS adds 22 bytes or more to
//! each record, a compressor takes away; and a library may hold bytes that the kernel does not take yet. So nothing is assumed of any of
//! them, and what the kernel has beyond what was handed on is compared with itself:
//!
//! ```text
//! written    = acknowledged + queued                     of the kernel, since the connection began
//! beyond     = written − handed on                       grows with headers and frames, falls while the library holds bytes
//! in library = max(beyond) − beyond                      while the kernel has unsent bytes; nothing otherwise, for then it takes all
//! bytes on the wire = bytes handed on · Δwritten/Δhanded on     both from the first observation with text in it: without headers
//! ```
//!
//! Invariant: an estimate that is wrong corrects itself when the kernel has sent all that it has; none grows without end.

use crate::carry::Evidence;

/// Bytes handed on from which on their ratio to bytes written is told: some ten tokens. With fewer, what a library holds at that moment
/// would count for too much.
const ENOUGH: u64 = 2048;

/// Between what compresses text best and a token of one letter in a record and a chunk of its own.
const RATIOS: std::ops::RangeInclusive<f64> = 0.05..=40.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    handed: u64,
    /// Written and handed on, when the ratio began to be measured.
    first: Option<(u64, u64)>,
    ratio: Option<f64>,
    most_beyond: i128,
    in_library: u64,
    is_known: bool,
}

impl Ledger {
    pub(super) fn hand_on(&mut self, bytes: u64) {
        self.handed = self.handed.saturating_add(bytes);
    }

    pub(super) fn compare(&mut self, seen: &Evidence) {
        let written = seen.bytes_acked.saturating_add(seen.queued);
        let beyond = i128::from(written) - i128::from(self.handed);
        // Where the kernel has room it takes all: what is not there yet is on its way.
        if !self.is_known || seen.notsent == 0 {
            self.most_beyond = beyond;
        }
        self.is_known = true;
        self.most_beyond = self.most_beyond.max(beyond);
        self.in_library = u64::try_from(self.most_beyond - beyond).unwrap_or(u64::MAX);
        match self.first {
            None if self.handed > 0 => self.first = Some((written, self.handed)),
            None => {}
            Some((at_first, _)) if written < at_first => self.first = None,
            Some((at_first, handed_at_first)) => {
                let handed = self.handed - handed_at_first;
                if handed >= ENOUGH && self.in_library == 0 {
                    let ratio = (written - at_first) as f64 / handed as f64;
                    self.ratio = Some(ratio.clamp(*RATIOS.start(), *RATIOS.end()));
                }
            }
        }
    }

    /// As how many bytes the kernel sees `bytes` of text.
    pub(super) fn on_the_wire(&self, bytes: u64) -> u64 {
        (bytes as f64 * self.ratio.unwrap_or(1.0)).round() as u64
    }

    /// Bytes handed on that the kernel had not taken at the last observation.
    pub(super) fn in_library(&self) -> u64 {
        self.in_library
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes_acked: u64, queued: u64, notsent: u64) -> Evidence {
        Evidence { bytes_acked, queued, notsent, ..Evidence::default() }
    }

    #[test]
    fn neither_headers_nor_frames_are_text() {
        let mut ledger = Ledger::default();
        // An earlier response of the connection, then headers of 150 bytes and chunks of 200 with frames of 6.
        let (mut written, mut handed) = (5000, 0);
        ledger.compare(&seen(written, 0, 0));
        written += 150;
        for _ in 0..40 {
            ledger.hand_on(200);
            handed += 200;
            written += 206;
            ledger.compare(&seen(written, 0, 0));
            assert_eq!(ledger.in_library(), 0, "after {handed}");
        }
        assert_eq!(ledger.on_the_wire(2000), 2060);
    }

    #[test]
    fn what_a_library_holds_is_known_while_the_kernel_is_full() {
        let mut ledger = Ledger::default();
        ledger.hand_on(400);
        ledger.compare(&seen(550, 0, 0));
        // The kernel takes no more than 1000; the library has the rest.
        ledger.hand_on(3000);
        ledger.compare(&seen(550, 1000, 500));
        assert_eq!(ledger.in_library(), 2000);
        // It drains.
        ledger.compare(&seen(1550, 1000, 500));
        assert_eq!(ledger.in_library(), 1000);
        ledger.compare(&seen(3550, 0, 0));
        assert_eq!(ledger.in_library(), 0);
    }

    #[test]
    fn compressed_text_is_no_backlog_for_long() {
        let mut ledger = Ledger::default();
        let mut written = 0;
        for tick in 0..100 {
            ledger.hand_on(1000);
            written += 300;
            // Now and then the kernel has something unsent.
            ledger.compare(&seen(written, 0, if tick % 4 == 0 { 300 } else { 0 }));
            assert!(ledger.in_library() <= 700, "{ledger:?}");
        }
        assert_eq!(ledger.on_the_wire(1000), 300);
    }
}
