//! What an ACK says has arrived, and what is lost by that (RACK, RFC 8985).
//!
//! Invariant: nothing is lost that was sent after everything that has arrived.

use super::super::{Fate, Micros, Segment, Tcp};
use super::{JIFFIES, Linux, News, Pending, Phase, REORDERING};

impl Linux {
    /// Takes in what arrived out of order; the round trip of the first of it that was sent once.
    pub(super) fn take_blocks(
        &mut self,
        tcp: &mut Tcp,
        now: Micros,
        blocks: &[(u64, u64)],
        news: &mut News,
    ) -> Option<Micros> {
        let mut first: Option<Micros> = None;
        for &(from, to) in blocks {
            let place = tcp.flight.partition_point(|segment| segment.start < from);
            let within = tcp.flight.range_mut(place..).take_while(|segment| segment.end <= to);
            for segment in within.filter(|segment| segment.state != Fate::Sacked) {
                let before = std::mem::replace(&mut segment.state, Fate::Sacked);
                tcp.pipe -= u32::from(before == Fate::Flying);
                tcp.sacked += 1;
                news.delivered += 1;
                news.is_sacked = true;
                if !segment.again {
                    news.is_original_sacked |= segment.end <= tcp.recover;
                    first = Some(first.map_or(segment.sent, |first| first.min(segment.sent)));
                }
                self.note(now, *segment);
            }
        }
        first.map(|sent| now - sent)
    }

    /// Takes in what arrived in order; the round trip of the first of it, if none was sent again.
    pub(super) fn take_acked(
        &mut self,
        tcp: &mut Tcp,
        now: Micros,
        ack: u64,
        news: &mut News,
    ) -> Option<Micros> {
        let (mut first, mut is_ambiguous) = (None, false);
        while let Some(segment) = tcp.flight.front().copied().filter(|segment| segment.end <= ack) {
            tcp.flight.pop_front();
            tcp.leave_flight(segment.state);
            is_ambiguous |= segment.again;
            if segment.state != Fate::Sacked {
                news.delivered += 1;
                first = first.or(Some(segment.sent));
                self.note(now, segment);
            }
        }
        first.filter(|_| !is_ambiguous).map(|sent| now - sent)
    }

    /// A segment has arrived (RFC 8985 §7.2, step 2).
    fn note(&mut self, now: Micros, segment: Segment) {
        let rtt = now - segment.sent;
        if segment.again && self.least_rtt.is_some_and(|least| rtt < least) {
            // It was an earlier one of its kind.
            return;
        }
        self.has_news = true;
        self.newest_rtt = rtt;
        self.newest = self.newest.max((segment.sent, segment.end));
    }

    /// Marks what is lost; how much is, and whether some of it had been sent again.
    pub(super) fn find_losses(&mut self, tcp: &mut Tcp, now: Micros) -> (u32, bool) {
        let is_sure = self.phase != Phase::Open || tcp.sacked >= REORDERING;
        let reordering = match self.least_rtt {
            Some(least) if !is_sure => (least / 4).min(tcp.srtt() as Micros / 8),
            _ => 0,
        };
        let (mut found, mut again, mut wait) = (0, false, None::<Micros>);
        for segment in tcp.flight.iter_mut() {
            if segment.state != Fate::Flying || (segment.sent, segment.end) >= self.newest {
                continue;
            }
            let lost_at = segment.sent + self.newest_rtt + reordering;
            if lost_at <= now {
                again |= segment.again;
                segment.state = Fate::Lost;
                found += 1;
            } else {
                wait = wait.max(Some(lost_at));
            }
        }
        tcp.pipe -= found;
        if let Some(wait) = wait {
            self.set(tcp, Pending::Reordering, Some(wait.max(now + 1) + JIFFIES));
        } else if self.pending == Pending::Reordering {
            self.set(tcp, Pending::Timeout, Some(self.timeout(tcp, now)));
        }
        (found, again)
    }
}
