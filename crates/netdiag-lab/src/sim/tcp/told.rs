//! Round trips as they are measured, and what is told of a connection: as the kernel would, and as a row of `net_data.csv` would.
//!
//! Invariant: an interval is told once.

use std::time::Duration;

use netdiag_health::{Observation, RttRange};
use netdiag_pacer::Evidence;

use super::{Interval, Micros, STALL_FLOOR, Tcp};

impl Tcp {
    /// What the kernel would say.
    pub(in super::super) fn evidence(&self, now: Micros) -> Evidence {
        let micros = Duration::from_micros;
        let taken = self.taken();
        let busy = self.busy + self.busy_for(now);
        Evidence {
            opened: None,
            bytes_acked: self.una,
            queued: taken - self.una,
            notsent: taken - self.next,
            backoff: self.backoff,
            last_ack_age: micros(now - self.last_ack),
            busy: micros(busy),
            rwnd_limited: Duration::ZERO,
            srtt: Some(micros(self.srtt as u64)),
            rttvar: Some(micros(self.rttvar as u64)),
        }
    }

    /// What a row of `net_data.csv` would say of the time since the last call, if it was told beforehand that somebody would ask.
    pub(in super::super) fn take_interval(&mut self, now: Micros) -> Observation {
        let micros = Duration::from_micros;
        let mut since = Interval::default();
        if let Some(interval) = &mut self.interval {
            since.keeps_samples = interval.keeps_samples;
            std::mem::swap(&mut since, interval);
        }
        let Interval { rtt, mut rtts, sent, sent_again, .. } = since;
        rtts.sort_unstable();
        let p95 = rtts.get((rtts.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        let waiting = self.busy_for(now).min(now - self.last_ack) as f64;
        let explained = (self.srtt() + 4.0 * self.rttvar).max(STALL_FLOOR);
        let is_out = self.next > self.una;
        let stalled = is_out && (self.backoff >= 1 || waiting > explained);
        Observation {
            // Of fewer than twenty samples the 95th percentile is the longest, and half a second seldom has more.
            rtt: rtt
                .map(|(min, max)| RttRange { min: micros(min), p95: micros(p95.unwrap_or(max)) }),
            retrans_segs: sent_again,
            segs_out: Some(sent),
            stalled: f64::from(u8::from(stalled)),
        }
    }

    /// Something of each cache line that a segment or its ACK touches.
    pub(in super::super) fn touch(&self) -> u64 {
        self.written ^ self.busy ^ self.timer
    }

    /// Something of each cache line that [`Tcp::evidence`] needs.
    pub(in super::super) fn touch_told(&self) -> u64 {
        self.written ^ self.busy
    }

    /// And of what these point to.
    pub(in super::super) fn touch_flight(&self) -> u64 {
        self.flight.front().map_or(0, |segment| segment.end)
    }

    /// RFC 6298 §2.
    pub(super) fn measure(&mut self, rtt: Micros) {
        self.note(rtt);
        let rtt = rtt as f64;
        self.rttvar += ((rtt - self.srtt).abs() - self.rttvar) / 4.0;
        self.srtt += (rtt - self.srtt) / 8.0;
    }

    /// A round trip, for the interval's figures.
    pub(super) fn note(&mut self, rtt: Micros) {
        let Some(interval) = &mut self.interval else { return };
        let (min, max) = interval.rtt.unwrap_or((rtt, rtt));
        interval.rtt = Some((min.min(rtt), max.max(rtt)));
        if interval.keeps_samples {
            interval.rtts.push(rtt);
        }
    }
}
