//! What the kernel says of one flow at one instant, as far as the `carry` policy listens.
//!
//! Counters are cumulative, as the kernel keeps them, so that an observation that is lost costs resolution and no data.
//!
//! Invariant: nothing in here is trusted; [`super::Carry`] judges whether it can follow what was seen before.

use std::time::Duration;

use netdiag_telemetry::FlowSnapshot;

/// Bytes of a segment that nothing is known of: an event of one token in OpenAI's format with its chunk header.
const UNKNOWN_SEGMENT: u64 = 230;

/// One flow at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Unique to this connection where the source saw it being opened; another value means that the ports were reused.
    pub opened: Option<u64>,
    /// Bytes acknowledged (`tcpi_bytes_acked`), cumulative.
    pub bytes_acked: u64,
    /// Bytes written and not acknowledged (`SIOCOUTQ`).
    pub queued: u64,
    /// The part of `queued` that has not been sent (`SIOCOUTQNSD`, `tcpi_notsent_bytes`).
    pub notsent: u64,
    /// Exponential backoffs of the retransmission timer (`tcpi_backoff`).
    pub backoff: u8,
    /// Time since the last ACK (`tcpi_last_ack_recv`); large on a flow that was merely idle.
    pub last_ack_age: Duration,
    /// Time with data outstanding (`tcpi_busy_time`), cumulative.
    pub busy: Duration,
    /// Part of it limited by the peer's receive window (`tcpi_rwnd_limited`), cumulative.
    pub rwnd_limited: Duration,
    /// Smoothed round trip (RFC 6298 §2); `None` before the first.
    pub srtt: Option<Duration>,
    /// Its variation (RFC 6298 §2).
    pub rttvar: Option<Duration>,
}

impl Evidence {
    /// What a snapshot shows; `None` without [`netdiag_telemetry::Liveness`], from which alone backlogs are known.
    ///
    /// Where a snapshot counts what is outstanding in segments, they are taken to be as long as those acknowledged so far were on
    /// average: segments of tokens are far below a full one, so that counting full ones would see a backlog in every flow.
    pub fn of_snapshot(snapshot: &FlowSnapshot) -> Option<Self> {
        let live = snapshot.liveness?;
        let counters = snapshot.counters;
        // ACKs without data are no tokens, and many where clients send long prompts.
        let segs = live.data_segs.unwrap_or(counters.segs_out);
        let acked_segs = u64::from(segs.saturating_sub(live.unacked_segs));
        let segment = counters.bytes_acked.checked_div(acked_segs).filter(|&bytes| bytes > 0);
        let outstanding = u64::from(live.unacked_segs) * segment.unwrap_or(UNKNOWN_SEGMENT);
        let guessed = outstanding.saturating_add(live.notsent.0);
        Some(Self {
            opened: snapshot.opened,
            bytes_acked: counters.bytes_acked,
            queued: live.queued.map_or(guessed, |queued| queued.0.max(live.notsent.0)),
            notsent: live.notsent.0,
            backoff: live.backoff,
            last_ack_age: live.last_ack_age,
            busy: live.busy,
            rwnd_limited: live.rwnd_limited,
            srtt: snapshot.srtt,
            rttvar: snapshot.rttvar,
        })
    }
}

#[cfg(test)]
mod tests {
    use netdiag_telemetry::{Bytes, Counters, FlowKey, Liveness, RttSamples};

    use super::super::seen::Seen;
    use super::*;

    #[test]
    fn backlogs_are_counted_in_segments_as_long_as_those_before() {
        let address = |text: &str| text.parse().expect("an address");
        let snapshot = |bytes_acked, segs_out, live| FlowSnapshot {
            key: FlowKey::new(1, address("192.0.2.1:80"), address("192.0.2.2:4000")),
            opened: None,
            closed: false,
            counters: Counters { bytes_acked, segs_out, retrans_segs: 0 },
            rtt: RttSamples::default(),
            srtt: None,
            rttvar: None,
            cwnd: 10,
            liveness: Some(live),
        };
        let check = |bytes_acked, segs_out, unacked_segs, expected| {
            let live = Liveness { unacked_segs, notsent: Bytes(500), ..Liveness::default() };
            let snapshot = snapshot(bytes_acked, segs_out, live);
            let seen = Evidence::of_snapshot(&snapshot).expect("with liveness");
            assert_eq!((seen.queued, seen.notsent), (expected, 500));
            let kept = Seen::of(Duration::from_secs(1), &seen);
            assert_eq!(kept.is_outstanding(), unacked_segs > 0);
            assert_eq!(kept.evidence(), (Duration::from_secs(1), seen));
            assert_eq!(Evidence::of_snapshot(&FlowSnapshot { liveness: None, ..snapshot }), None);
        };
        // 100 segments of 210 bytes are acknowledged, and three are out.
        check(21_000, 103, 3, 630 + 500);
        check(0, 2, 2, 2 * 230 + 500);
        check(21_000, 100, 0, 500);
        // Where bytes are known, they are not guessed.
        let live = Liveness { unacked_segs: 3, queued: Some(Bytes(77)), ..Liveness::default() };
        let seen = Evidence::of_snapshot(&snapshot(0, 0, live)).expect("with liveness");
        assert_eq!((seen.queued, seen.notsent), (77, 0));
    }
}
