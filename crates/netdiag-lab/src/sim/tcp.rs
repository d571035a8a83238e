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
//! [`Tcp::like_linux`] takes that back where it is to be compared with a real kernel; see [`linux`].
//!
//! Invariants: bytes are delivered once and in order; what is acknowledged was delivered; at most a window is under way.

mod linux;
mod timer;
mod told;

use std::collections::VecDeque;

use super::Micros;
use linux::Linux;

pub use linux::CongestionControl;

/// Payload of a full segment on Ethernet with timestamps.
const MSS: u64 = 1448;

/// Headers of IPv4 and TCP with timestamps.
pub(super) const HEADERS: u64 = 52;

/// Segments that may be sent at first (RFC 6928).
const INITIAL_WINDOW: f64 = 10.0;

/// What the kernel takes without an acknowledgement: Linux sizes the buffer for two initial windows of full segments with
/// their bookkeeping, 46 kB, and lets it grow with the window, which token streams do not.
const SEND_BUFFER: u64 = 46_080;

/// Least variation in the timeout (`TCP_RTO_MIN`), and the longest one (`TCP_RTO_MAX`).
const RTO_MIN: f64 = 200e3;
const RTO_MAX: f64 = 120e6;

/// What is left of the window after a loss.
const RENO: f64 = 0.5;

/// The least time without an ACK that counts as a stall, as in the flow table.
const STALL_FLOOR: f64 = 200e3;

/// Timeouts that are counted; more would overflow the doubling.
const MOST_BACKOFFS: u8 = 10;

/// A time that does not come, where there may be none: a word instead of two.
const NEVER: Micros = Micros::MAX;

/// Three cache lines: the first two have what is told of a connection, and every write and every ACK needs all of them.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Tcp {
    /// Bytes that the program has written; some of them may wait for the kernel to take them.
    written: u64,
    next: u64,
    una: u64,
    flight: VecDeque<Segment>,
    /// Segments thought to be on the way.
    pipe: u32,
    sacked: u32,
    cwnd: f64,
    /// Losses before this byte belong to a reduction that was made.
    recover: u64,
    /// Smoothed round trip, first that of the handshake.
    srtt: f64,
    rttvar: f64,
    last_ack: Micros,
    busy: Micros,
    /// [`NEVER`] while nothing is outstanding.
    busy_since: Micros,
    backoff: u8,
    probed: bool,
    ssthresh: f64,
    /// When the timer's event is due; others are old.
    timer: Micros,
    deadline: Option<Micros>,
    /// Where somebody asks.
    interval: Option<Box<Interval>>,
    /// What decides where it is like Linux.
    linux: Option<Box<Linux>>,
}

const _: () = assert!(size_of::<Tcp>() == 3 * 64);

/// What has happened since somebody asked.
#[derive(Clone, Debug, Default)]
struct Interval {
    /// The shortest and the longest round trip.
    rtt: Option<(Micros, Micros)>,
    /// All of them, where they are kept.
    rtts: Vec<Micros>,
    keeps_samples: bool,
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
            cwnd: INITIAL_WINDOW,
            ssthresh: f64::INFINITY,
            recover: 0,
            srtt: round_trip as f64,
            rttvar: round_trip as f64 / 2.0,
            last_ack: now,
            busy: 0,
            busy_since: NEVER,
            timer: NEVER,
            deadline: None,
            interval: None,
            linux: None,
            backoff: 0,
            probed: false,
        }
    }

    /// The same, closer to Linux, and with the 95th percentile of many round trips told as it is.
    pub(super) fn like_linux(self, control: CongestionControl) -> Self {
        Self {
            linux: Some(Box::new(Linux::new(control, self.rttvar))),
            interval: Some(Box::new(Interval { keeps_samples: true, ..Interval::default() })),
            ..self
        }
    }

    /// The same, which remembers what [`Tcp::take_interval`] tells: memory that is touched with every segment, so only where that is
    /// asked for.
    pub(super) fn telling(self) -> Self {
        Self { interval: Some(Box::default()), ..self }
    }

    /// The program writes.
    pub(super) fn write(&mut self, now: Micros, bytes: u64, around: &mut impl Network) {
        self.written += bytes;
        // Sooner than never, and later than any before.
        self.busy_since = self.busy_since.min(now);
        match self.linux.take() {
            None => self.pump(now, around),
            Some(mut linux) => {
                linux.on_write(self, now, around);
                self.linux = Some(linux);
            }
        }
    }

    /// An ACK arrives: everything before `ack`, and the segment that starts at `start`.
    pub(super) fn on_ack(&mut self, now: Micros, ack: u64, start: u64, around: &mut impl Network) {
        let was_full = f64::from(self.pipe) + 1.0 >= self.cwnd;
        let (mut newest, mut acked) = (None, 0.0);
        self.last_ack = now;
        while let Some(segment) = self.flight.front().copied().filter(|s| s.end <= ack) {
            self.flight.pop_front();
            self.leave_flight(segment.state);
            acked += 1.0;
            newest = newest.max(Some(segment.sent));
            if !segment.again {
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
        self.note_rest(now);
        self.pump(now, around);
    }

    /// An ACK arrives: everything before `ack` and these blocks are there, and the segment that it answers was sent at `sent`, by its
    /// time stamp. For a sender that is like Linux.
    pub(super) fn on_selective_ack(
        &mut self,
        now: Micros,
        ack: u64,
        blocks: &[(u64, u64)],
        sent: Micros,
        around: &mut impl Network,
    ) {
        let Some(mut linux) = self.linux.take() else { return };
        linux.on_ack(self, now, linux::Ack { ack, blocks, sent }, around);
        self.linux = Some(linux);
    }

    /// Bytes acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.una
    }

    /// The smoothed round trip, microseconds.
    pub(super) fn srtt(&self) -> f64 {
        self.srtt
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

    fn send_again(&mut self, now: Micros, place: usize, around: &mut impl Network) {
        if let Some(interval) = &mut self.interval {
            interval.sent_again += 1;
        }
        let segment = &mut self.flight[place];
        self.pipe += u32::from(segment.state != Fate::Flying);
        *segment = Segment { sent: now, again: true, state: Fate::Flying, ..*segment };
        let (start, end) = (segment.start, segment.end);
        self.transmit(now, start, end, around);
    }

    fn transmit(&mut self, now: Micros, start: u64, end: u64, around: &mut impl Network) {
        if let Some(interval) = &mut self.interval {
            interval.sent += 1;
        }
        around.send(now, start, end);
    }

    /// What was sent well before something that has arrived is lost.
    fn find_losses(&mut self, newest: Micros) {
        let reordering = (self.srtt / 4.0) as Micros;
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
            self.ssthresh = (self.cwnd * RENO).max(2.0);
            self.cwnd = self.ssthresh;
            self.recover = self.next;
        }
    }

    /// Whether the time with data outstanding ends here.
    fn note_rest(&mut self, now: Micros) {
        if self.una == self.written {
            self.busy += self.busy_for(now);
            self.busy_since = NEVER;
        }
    }

    /// For how long something has been outstanding.
    fn busy_for(&self, now: Micros) -> Micros {
        now.saturating_sub(self.busy_since)
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
mod tests;
