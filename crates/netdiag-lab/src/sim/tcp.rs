//! The sending end of a TCP connection that carries tokens, in virtual time. What becomes of a segment is for a [`Network`] to say.
//!
//! What matters to a token stream is there: a window that grows and shrinks, retransmission by selective acknowledgements and
//! by a timer that backs off, delivery in order, a send buffer. What matters to bulk transfers only is left out.
//!
//! | Linux | here | why |
//! | --- | --- | --- |
//! | CUBIC | Reno (RFC 5681) | token streams hardly ever use their window up |
//! | RACK (RFC 8985) with a reordering timer | a segment is lost when one sent a quarter of an RTT later is acknowledged | links here keep order, so no timer has to wait |
//! | tail loss probe (RFC 8985, §7) | once, after two round trips, with two segments out or more | as there |
//! | delayed ACKs | every segment is acknowledged | they change a round trip by 40 ms on paths where it is twice that |
//! | undo of spurious timeouts (F-RTO) | none | it restores a window that is not used |
//!
//! [`Tcp::like_linux`] takes that back where it is to be compared with a real kernel: CUBIC's reduction by 0.7 (RFC 9438), a probe that
//! sends new data and with one segment out as well, and timeouts that time stamps show to have been spurious undone (Eifel, RFC 3522).
//!
//! Invariants: bytes are delivered once and in order; what is acknowledged was delivered; at most a window is under way.

use std::collections::VecDeque;
use std::time::Duration;

use netdiag_health::RttRange;
use netdiag_pacer::Evidence;

use super::Micros;

/// Payload of a full segment on Ethernet with timestamps.
const MSS: u64 = 1448;

/// Headers of IPv4 and TCP with timestamps.
pub(super) const HEADERS: u64 = 52;

/// Segments that may be sent at first (RFC 6928).
const INITIAL_WINDOW: f64 = 10.0;

/// What the kernel takes without an acknowledgement: Linux sizes the buffer for two initial windows of full segments with
/// their bookkeeping, 46 kB, and lets it grow with the window, which token streams do not.
const SEND_BUFFER: u64 = 46_080;

/// Least variation in the timeout (`TCP_RTO_MIN`), first timeout (RFC 6298 §2.1) and longest (`TCP_RTO_MAX`).
const RTO_MIN: f64 = 200e3;
const RTO_FIRST: f64 = 1e6;
const RTO_MAX: f64 = 120e6;

/// What is left of the window after a loss: Reno's, and CUBIC's (RFC 9438 §4.6).
const RENO: f64 = 0.5;
const CUBIC: f64 = 0.7;

/// The least time without an ACK that counts as a stall, as in the flow table.
const STALL_FLOOR: f64 = 200e3;

/// Timeouts that are counted; more would overflow the doubling.
const MOST_BACKOFFS: u8 = 10;

#[derive(Debug)]
pub(super) struct Tcp {
    /// Bytes that the program has written; some of them may wait for the kernel to take them.
    written: u64,
    next: u64,
    una: u64,
    flight: VecDeque<Segment>,
    /// Segments thought to be on the way.
    pipe: u32,
    sacked: u32,
    /// When the newest segment was sent that a block named.
    newest_sacked: Option<Micros>,
    cwnd: f64,
    ssthresh: f64,
    /// Losses before this byte belong to a reduction that was made.
    recover: u64,
    srtt: Option<f64>,
    rttvar: f64,
    backoff: u8,
    probed: bool,
    deadline: Option<Micros>,
    /// When the timer's event is due; others are old.
    timer: Option<Micros>,
    last_ack: Micros,
    busy: Micros,
    busy_since: Option<Micros>,
    interval: Interval,
    keeps_samples: bool,
    is_linux: bool,
    /// When the first of the timeouts came that may yet prove spurious, with window and threshold of before.
    undo: Option<(Micros, f64, f64)>,
}

/// What has happened since somebody asked.
#[derive(Clone, Debug, Default)]
struct Interval {
    /// The shortest and the longest round trip.
    rtt: Option<(Micros, Micros)>,
    /// All of them, where they are kept.
    rtts: Vec<Micros>,
    sent: u64,
    sent_again: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    end: u64,
    sent: Micros,
    again: bool,
    state: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Flying,
    Sacked,
    Lost,
}

/// What is between a sender and its client.
pub(super) trait Network {
    /// A segment of the bytes from `start` to `end` goes out.
    fn send(&mut self, now: Micros, start: u64, end: u64);

    /// [`Tcp::on_timer`] is to be called at `at`.
    fn wake(&mut self, at: Micros);
}

impl Tcp {
    /// A connection that has been opened by a request, which took one round trip.
    pub(super) fn new(now: Micros, round_trip: Micros) -> Self {
        Self {
            written: 0,
            next: 0,
            una: 0,
            flight: VecDeque::new(),
            pipe: 0,
            sacked: 0,
            newest_sacked: None,
            cwnd: INITIAL_WINDOW,
            ssthresh: f64::INFINITY,
            recover: 0,
            srtt: Some(round_trip as f64),
            rttvar: round_trip as f64 / 2.0,
            backoff: 0,
            probed: false,
            deadline: None,
            timer: None,
            last_ack: now,
            busy: 0,
            busy_since: None,
            interval: Interval::default(),
            keeps_samples: false,
            is_linux: false,
            undo: None,
        }
    }

    /// The same, closer to Linux, and with the 95th percentile of many round trips told as it is.
    pub(super) fn like_linux(self) -> Self {
        Self { is_linux: true, keeps_samples: true, ..self }
    }

    /// The program writes.
    pub(super) fn write(&mut self, now: Micros, bytes: u64, around: &mut impl Network) {
        self.written += bytes;
        self.busy_since.get_or_insert(now);
        self.pump(now, around);
    }

    /// An ACK arrives: everything before `ack`, and the segment that starts at `start`.
    pub(super) fn on_ack(&mut self, now: Micros, ack: u64, start: u64, around: &mut impl Network) {
        let was_full = f64::from(self.pipe) + 1.0 >= self.cwnd;
        let (mut newest, mut acked) = (self.newest_sacked.take(), 0.0);
        self.last_ack = now;
        while let Some(segment) = self.flight.front().copied().filter(|s| s.end <= ack) {
            self.flight.pop_front();
            self.leave_flight(segment.state);
            acked += 1.0;
            newest = newest.max(Some(segment.sent));
            if !segment.again && !self.is_linux {
                self.measure(now - segment.sent);
            }
        }
        if self.flight.is_empty() {
            // Begins at the front of its memory again, which is in the caches.
            self.flight.clear();
        }
        if ack > self.una {
            self.una = ack;
            self.backoff = 0;
            self.probed = false;
        }
        let place = self.flight.partition_point(|segment| segment.start < start);
        if let Some(segment) = self.flight.get_mut(place).filter(|segment| segment.start == start)
            && segment.state != Fate::Sacked
        {
            let before = std::mem::replace(&mut segment.state, Fate::Sacked);
            newest = newest.max(Some(segment.sent));
            self.leave_flight(before);
            self.sacked += 1;
        }
        if let Some(newest) = newest.filter(|_| self.sacked > 0 || self.una < self.recover) {
            self.find_losses(newest);
        }
        // After a timeout the window grows while it is made up for; in a fast recovery it waits.
        if was_full && (self.una >= self.recover || self.cwnd < self.ssthresh) {
            self.cwnd += if self.cwnd < self.ssthresh { acked } else { acked / self.cwnd };
        }
        self.deadline = None;
        if self.una == self.written
            && let Some(since) = self.busy_since.take()
        {
            self.busy += now - since;
        }
        self.pump(now, around);
    }

    /// The ACK that is to be taken in next was caused by a segment sent at `sent`, by its time stamp, and moves the left edge.
    pub(super) fn on_echo(&mut self, now: Micros, sent: Micros) {
        self.measure(now - sent);
        if let Some((timeout, cwnd, ssthresh)) = self.undo.take()
            && sent < timeout
        {
            // It was late, and so are the others; nothing is known to be lost.
            self.cwnd = self.cwnd.max(cwnd);
            self.ssthresh = ssthresh;
            self.recover = self.una;
            for segment in self.flight.iter_mut().filter(|s| s.state == Fate::Lost) {
                segment.state = Fate::Flying;
                self.pipe += 1;
            }
        }
    }

    /// The client has the bytes from `from` to `to`, says the ACK that is to be taken in next. Where no ACK is lost the segment
    /// that each one answers says it all.
    pub(super) fn on_block(&mut self, from: u64, to: u64) {
        let place = self.flight.partition_point(|segment| segment.start < from);
        let within = self.flight.range_mut(place..).take_while(|segment| segment.end <= to);
        for segment in within.filter(|segment| segment.state != Fate::Sacked) {
            let before = std::mem::replace(&mut segment.state, Fate::Sacked);
            self.newest_sacked = self.newest_sacked.max(Some(segment.sent));
            self.pipe -= u32::from(before == Fate::Flying);
            self.sacked += 1;
        }
    }

    /// The timer's event.
    pub(super) fn on_timer(&mut self, now: Micros, around: &mut impl Network) {
        if self.timer != Some(now) {
            return;
        }
        self.timer = None;
        match self.deadline {
            Some(deadline) if deadline <= now => self.time_out(now, around),
            _ => {}
        }
        self.arm(now, around);
    }

    /// What the kernel would say.
    pub(super) fn evidence(&self, now: Micros) -> Evidence {
        let micros = Duration::from_micros;
        let taken = self.taken();
        let busy = self.busy + self.busy_since.map_or(0, |since| now - since);
        Evidence {
            opened: None,
            bytes_acked: self.una,
            queued: taken - self.una,
            notsent: taken - self.next,
            backoff: self.backoff,
            last_ack_age: micros(now - self.last_ack),
            busy: micros(busy),
            rwnd_limited: Duration::ZERO,
            srtt: self.srtt.map(|srtt| micros(srtt as u64)),
            rttvar: Some(micros(self.rttvar as u64)),
        }
    }

    /// What a row of `net_data.csv` would say of the time since the last call.
    pub(super) fn take_interval(&mut self, now: Micros) -> netdiag_health::Observation {
        let micros = Duration::from_micros;
        let Interval { rtt, mut rtts, sent, sent_again } = std::mem::take(&mut self.interval);
        rtts.sort_unstable();
        let p95 = rtts.get((rtts.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        let since = self.busy_since.map_or(0, |since| now - since);
        let waiting = since.min(now - self.last_ack) as f64;
        let explained = (self.srtt() + 4.0 * self.rttvar).max(STALL_FLOOR);
        let is_out = self.next > self.una;
        let stalled = is_out && (self.backoff >= 1 || waiting > explained);
        netdiag_health::Observation {
            // Of fewer than twenty samples the 95th percentile is the longest, and half a second seldom has more.
            rtt: rtt
                .map(|(min, max)| RttRange { min: micros(min), p95: micros(p95.unwrap_or(max)) }),
            retrans_segs: sent_again,
            segs_out: Some(sent),
            stalled: f64::from(u8::from(stalled)),
        }
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.una
    }

    /// The smoothed round trip, microseconds.
    pub(super) fn srtt(&self) -> f64 {
        self.srtt.unwrap_or(RTO_FIRST)
    }

    /// Sends what the window allows: what was lost first.
    fn pump(&mut self, now: Micros, around: &mut impl Network) {
        if self.pipe as usize + self.sacked as usize != self.flight.len() {
            let mut place = 0;
            while place < self.flight.len() && f64::from(self.pipe) < self.cwnd {
                if self.flight[place].state == Fate::Lost {
                    self.send_again(now, place, around);
                }
                place += 1;
            }
        }
        while f64::from(self.pipe) < self.cwnd && self.next < self.taken() {
            self.send_new(now, around);
        }
        self.arm(now, around);
    }

    fn send_new(&mut self, now: Micros, around: &mut impl Network) {
        let (start, end) = (self.next, self.taken().min(self.next + MSS));
        self.next = end;
        self.pipe += 1;
        let segment = Segment { start, end, sent: now, again: false, state: Fate::Flying };
        self.flight.push_back(segment);
        self.transmit(now, start, end, around);
    }

    /// The next timeout is one that only probes (RFC 8985 §7).
    fn is_to_probe(&self) -> bool {
        let is_calm = !self.is_linux || self.sacked == 0 && self.una >= self.recover;
        let least = if self.is_linux { 1 } else { 2 };
        !self.probed && self.backoff == 0 && self.pipe >= least && is_calm
    }

    fn send_again(&mut self, now: Micros, place: usize, around: &mut impl Network) {
        let segment = &mut self.flight[place];
        self.interval.sent_again += 1;
        self.pipe += u32::from(segment.state != Fate::Flying);
        *segment = Segment { sent: now, again: true, state: Fate::Flying, ..*segment };
        let (start, end) = (segment.start, segment.end);
        self.transmit(now, start, end, around);
    }

    fn transmit(&mut self, now: Micros, start: u64, end: u64, around: &mut impl Network) {
        self.interval.sent += 1;
        around.send(now, start, end);
    }

    fn time_out(&mut self, now: Micros, around: &mut impl Network) {
        self.deadline = None;
        if self.is_to_probe() {
            self.probed = true;
            if self.is_linux && self.next < self.taken() {
                self.send_new(now, around);
            } else if let Some(place) = self.flight.iter().rposition(|s| s.state == Fate::Flying) {
                self.send_again(now, place, around);
            }
            return;
        }
        self.backoff = (self.backoff + 1).min(MOST_BACKOFFS);
        if !self.is_linux {
            self.ssthresh = (f64::from(self.pipe) * RENO).max(2.0);
        } else if self.una >= self.recover {
            // Of timeouts in a row the first counts.
            self.undo = Some((now, self.cwnd, self.ssthresh));
            self.ssthresh = (self.cwnd * CUBIC).max(2.0);
        }
        self.cwnd = 1.0;
        self.pipe = 0;
        self.recover = self.next;
        for segment in self.flight.iter_mut().filter(|s| s.state == Fate::Flying) {
            segment.state = Fate::Lost;
        }
        self.pump(now, around);
    }

    /// Sees to it that the timer's event comes when it must.
    fn arm(&mut self, now: Micros, around: &mut impl Network) {
        if self.flight.is_empty() {
            self.deadline = None;
            return;
        }
        let deadline = self.deadline.unwrap_or_else(|| {
            let srtt = self.srtt.unwrap_or(RTO_FIRST);
            let rto = (srtt + (4.0 * self.rttvar).max(RTO_MIN)) * f64::from(1u32 << self.backoff);
            // With one segment out the client may have delayed its answer.
            let delayed = if self.pipe == 1 { RTO_MIN } else { 0.0 };
            let probe = self.is_to_probe();
            now + if probe { rto.min(2.0 * srtt + delayed) } else { rto.min(RTO_MAX) } as Micros
        });
        self.deadline = Some(deadline);
        if self.timer.is_none_or(|timer| timer > deadline) {
            self.timer = Some(deadline);
            around.wake(deadline);
        }
    }

    /// RFC 6298 §2.
    fn measure(&mut self, rtt: Micros) {
        let (min, max) = self.interval.rtt.unwrap_or((rtt, rtt));
        self.interval.rtt = Some((min.min(rtt), max.max(rtt)));
        if self.keeps_samples {
            self.interval.rtts.push(rtt);
        }
        let rtt = rtt as f64;
        if let Some(srtt) = &mut self.srtt {
            self.rttvar += ((rtt - *srtt).abs() - self.rttvar) / 4.0;
            *srtt += (rtt - *srtt) / 8.0;
        } else {
            (self.srtt, self.rttvar) = (Some(rtt), rtt / 2.0);
        }
    }

    /// What was sent well before something that has arrived is lost.
    fn find_losses(&mut self, newest: Micros) {
        let reordering = (self.srtt.unwrap_or(0.0) / 4.0) as Micros;
        let (mut found, mut beyond) = (0, 0);
        for segment in self.flight.iter_mut().rev() {
            match segment.state {
                Fate::Sacked => beyond += 1,
                // Three beyond it count as well (RFC 6675).
                Fate::Flying
                    if segment.sent + reordering < newest || beyond >= 3 && !segment.again =>
                {
                    segment.state = Fate::Lost;
                    found += 1;
                }
                Fate::Flying | Fate::Lost => {}
            }
        }
        self.pipe -= found;
        if found > 0 && self.una >= self.recover {
            self.ssthresh = (self.cwnd * if self.is_linux { CUBIC } else { RENO }).max(2.0);
            self.cwnd = self.ssthresh;
            self.recover = self.next;
        }
    }

    fn leave_flight(&mut self, state: Fate) {
        match state {
            Fate::Flying => self.pipe -= 1,
            Fate::Sacked => self.sacked -= 1,
            Fate::Lost => {}
        }
    }

    /// Bytes that the kernel has taken.
    fn taken(&self) -> u64 {
        self.written.min(self.una + SEND_BUFFER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::events::{Event, Events, What};
    use super::super::link::{Capacity, Link};
    use super::super::receiver::Receiver;
    use super::super::stream::Around;
    use super::*;
    use crate::loss::{Loss, Losses};

    /// Writes a token every `gap`, and lets everything happen until `end`.
    fn play(mut link: Link, tokens: u64, gap: Micros, end: Micros) -> (Vec<Micros>, Tcp) {
        let (mut events, mut deliveries) = (Events::new(), Vec::new());
        let mut tcp = Tcp::new(0, link.round_trip());
        let (mut receiver, mut wrote) = (Receiver::default(), 0);
        loop {
            let due = if wrote < tokens { wrote * gap } else { end };
            let next = events.pop(due);
            let mut around = Around {
                stream: 0,
                link: &mut link,
                events: &mut events,
                receiver: &mut receiver,
                deliveries: &mut deliveries,
                token_bytes: 200,
            };
            match next {
                Some(Event { at, what: What::Ack { ack, start }, .. }) => {
                    tcp.on_ack(at, ack.into(), start.into(), &mut around);
                }
                Some(Event { at, .. }) => tcp.on_timer(at, &mut around),
                None if wrote < tokens => {
                    tcp.write(due, 200, &mut around);
                    wrote += 1;
                }
                None => return (deliveries, tcp),
            }
        }
    }

    #[test]
    fn on_a_clean_link_each_token_takes_half_a_round_trip() {
        let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None);
        let (deliveries, tcp) = play(link, 100, 25_000, 10_000_000);
        let expected: Vec<_> = (0..100).map(|token| token * 25_000 + 50_000).collect();
        assert_eq!((deliveries, tcp.acked()), (expected, 20_000));
        assert_eq!(
            (tcp.srtt(), tcp.evidence(10_000_000).busy),
            (100e3, Duration::from_micros(2_575_000))
        );
    }

    #[test]
    fn an_outage_backs_the_timer_off_and_is_made_up_for() {
        let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None)
            .with_outages(vec![(1_000_000, 4_000_000)]);
        let (deliveries, tcp) = play(link, 400, 25_000, 20_000_000);
        assert_eq!((deliveries.len(), tcp.acked()), (400, 80_000));
        // Retransmitted at 0.3, 0.9, 2.1 and 4.5 s or so after the outage began, in order from then on.
        let after = deliveries.iter().find(|at| **at > 1_000_000).expect("some");
        assert!((4_000_000..6_500_000).contains(after), "{after}");
        assert!(deliveries.is_sorted());
    }

    #[test]
    fn silence_is_told_as_the_kernel_tells_it() {
        let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None)
            .with_outages(vec![(1_000_000, 60_000_000)]);
        let (_, tcp) = play(link, 60, 25_000, 3_000_000);
        let seen = tcp.evidence(3_000_000);
        assert!(seen.backoff >= 2, "{seen:?}");
        assert!(seen.last_ack_age > Duration::from_millis(1900), "{seen:?}");
        // The last to arrive left at 0.95 s.
        assert_eq!((seen.bytes_acked, seen.queued), (38 * 200, 22 * 200));
        assert_eq!(seen.notsent, 22 * 200 - (tcp.next - tcp.una));
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order_whatever_is_lost(
            share in 0.0..0.4f64, seed: u64, gap in 0u64..100_000, rtt in 1_000u64..500_000,
        ) {
            let losses = Losses::new(Loss::independent(share).expect("a share"), seed);
            let link = Link::new(Capacity::Rate(8.0), [rtt / 2, rtt / 2], Some(losses));
            let (deliveries, tcp) = play(link, 300, gap, 3_600_000_000);
            prop_assert_eq!(deliveries.len(), 300);
            prop_assert!(deliveries.is_sorted());
            prop_assert_eq!((tcp.acked(), tcp.pipe, tcp.flight.len()), (60_000, 0, 0));
            prop_assert_eq!(tcp.evidence(3_600_000_000).queued, 0);
        }
    }
}
