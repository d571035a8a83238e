//! What Linux's sender does that matters to a stream of small segments on a link that loses and falls silent.
//!
//! - A segment, or its retransmission, is lost as soon as one that was sent later has arrived, and a quarter of the least round trip
//!   has passed (RACK, RFC 8985). With new tokens all the time that finds lost retransmissions, too, and no timeout is needed.
//! - What a program writes goes out as new segments while the window allows; what is lost is sent again when an ACK comes.
//! - A retransmission takes what follows with it up to a full segment (`tcp_retrans_collapse`), so that one repairs six tokens.
//! - A window that is not used up grows to twice what was under way in slow start, and shrinks to what was used later on.
//! - A probe is put off by each segment that is sent, up to the retransmission timeout of the oldest one (`tcp_schedule_loss_probe`).
//! - The timeout's margin is the greatest deviation of a round trip, and falls by a quarter in each that follows
//!   (`tcp_rtt_estimator`), so that after a silence of seconds the timer is as slow.
//! - After a timeout only what is older than a round trip counts as lost, new data goes first, and if an ACK shows that the originals
//!   had arrived, all is undone (F-RTO, RFC 5682; Eifel, RFC 3522).
//!
//! | Linux | here | why |
//! | --- | --- | --- |
//! | BBR's phases beyond its startup | none | what an application limits never leaves it |
//! | CUBIC's growth (RFC 9438) | its region that is friendly to Reno | at 20 packets and 100 ms it is the larger one |
//! | undo by DSACK | none | time stamps tell it sooner |
//! | a destination's cached metrics | none | they hold thresholds, and these connections seldom reach one |
//!
//! Invariant: as for [`Tcp`]; a segment in flight is what was sent as one packet last.

mod bbr;
mod detection;
mod round_trips;
mod timers;
mod window;

use bbr::Bbr;
use round_trips::Margin;
use serde::{Deserialize, Serialize};

use super::{Fate, MSS, Micros, Network, Tcp};

/// What is left of the window after a loss (RFC 9438 §4.6), and what it grows by in a round trip after one (§4.3).
const CUBIC: f64 = 0.7;
const FRIENDLY: f64 = 3.0 * (1.0 - CUBIC) / (1.0 + CUBIC);

/// Beyond this many segments that arrived out of order no reordering is waited for (RFC 8985 §6.2).
const REORDERING: u32 = 3;

/// The shortest time to a timer (`TCP_TIMEOUT_MIN`: two jiffies), and what a probe allows for a delayed ACK.
const JIFFIES: Micros = 8_000;
const DELAYED: Micros = 200_000;

/// What a kernel decides the window by (`net.ipv4.tcp_congestion_control`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CongestionControl {
    /// Linux's own default, and what others are taken for.
    #[default]
    Cubic,
    /// BBR's first version, whose window losses do not shrink for long.
    Bbr,
}

impl CongestionControl {
    /// The one of this name; Reno and others are like CUBIC for as long as a window is not used up.
    pub fn of_name(name: &str) -> Self {
        if name == "bbr" { Self::Bbr } else { Self::Cubic }
    }
}

/// An ACK.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack<'a> {
    pub(super) ack: u64,
    pub(super) blocks: &'a [(u64, u64)],
    pub(super) sent: Micros,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Losses were found by what arrived.
    Recovery,
    /// Or by a timeout.
    Loss,
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    Nothing,
    Timeout,
    Probe,
    Reordering,
}

#[derive(Debug, Default)]
pub(super) struct Linux {
    phase: Phase,
    pending: Pending,
    least_rtt: Option<Micros>,
    margin: Margin,
    /// Of the segment that was sent last among those that arrived: when, its end, and its round trip.
    newest: (Micros, u64),
    newest_rtt: Micros,
    has_news: bool,
    /// Whether a timeout may yet prove spurious by what arrives.
    is_doubted: bool,
    /// When the first retransmission of an episode was sent, with window and threshold of before.
    undo: Option<(Micros, f64, f64)>,
    has_timed_out: bool,
    /// Until it is acknowledged up to here, nothing more is probed.
    probed: Option<u64>,
    /// Of a recovery: the window of before, what arrived in it and what was sent (proportional rate reduction, RFC 6937).
    before: f64,
    arrived: u32,
    sent: u32,
    /// How much of the window was in use.
    most_out: usize,
    usage_end: u64,
    is_limited: bool,
    used: usize,
    limited_at: Micros,
    sent_at: Micros,
    bbr: Option<Bbr>,
}

/// What an ACK has brought.
#[derive(Default)]
struct News {
    delivered: u32,
    is_original_sacked: bool,
    is_sacked: bool,
    advances: bool,
    /// Sends new data before anything that is lost.
    new_first: bool,
    lost: u32,
    lost_again: bool,
    may_repair: bool,
}

impl Linux {
    /// After a handshake in which a round trip varied by `rttvar`.
    pub(super) fn new(control: CongestionControl, rttvar: f64) -> Self {
        let bbr = (control == CongestionControl::Bbr).then(Bbr::default);
        Self { bbr, margin: Margin::new(rttvar), ..Self::default() }
    }

    pub(super) fn on_write(&mut self, tcp: &mut Tcp, now: Micros, around: &mut impl Network) {
        let idle = now.saturating_sub(self.sent_at.max(tcp.last_ack));
        let rto = self.rto(tcp);
        if tcp.flight.is_empty() && idle > rto && self.bbr.is_none() {
            // A window that was not used for so long says nothing any more.
            tcp.ssthresh = self.threshold(tcp);
            let halved = tcp.cwnd / 2f64.powf((idle / rto) as f64);
            tcp.cwnd = halved.max(tcp.cwnd.min(super::INITIAL_WINDOW));
        }
        self.push(tcp, now, around);
        self.wake(tcp, around);
    }

    pub(super) fn on_ack(
        &mut self,
        tcp: &mut Tcp,
        now: Micros,
        of: Ack<'_>,
        around: &mut impl Network,
    ) {
        tcp.last_ack = now;
        let oldest = tcp.flight.front().map(|segment| segment.sent);
        let mut news = News { advances: of.ack > tcp.una, ..News::default() };
        let sacked_rtt = self.take_blocks(tcp, now, of.blocks, &mut news);
        let acked_rtt = self.take_acked(tcp, now, of.ack, &mut news);
        let echoed = news.advances.then(|| now - of.sent);
        if let Some(rtt) = acked_rtt.or(sacked_rtt).or(echoed) {
            self.least_rtt = Some(self.least_rtt.map_or(rtt, |least| least.min(rtt)));
            self.measure(tcp, rtt, of.ack);
            tcp.backoff = 0;
        }
        if news.advances {
            tcp.una = of.ack;
            self.has_timed_out = false;
        }
        self.probed = self.probed.filter(|end| *end > tcp.una);
        self.judge(tcp, now, of, &mut news);
        let is_fresh = sacked_rtt.zip(oldest).is_some_and(|(rtt, oldest)| rtt > now - oldest);
        if tcp.flight.is_empty() {
            tcp.flight.clear();
            self.set(tcp, Pending::Nothing, None);
        } else if self.pending != Pending::Reordering && (news.advances || is_fresh) {
            // The timer begins anew, unless what was measured was sent before the oldest was sent again.
            if !self.plan_probe(tcp, now, true) {
                self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
            }
        }
        match &mut self.bbr {
            None => self.adapt(tcp, &news),
            Some(bbr) => bbr.on_ack(tcp, now, self.phase, self.least_rtt, &news),
        }
        if news.new_first {
            let before = tcp.next;
            self.push(tcp, now, around);
            if tcp.next == before {
                self.is_doubted = false;
                self.repair(tcp, now, around);
            }
        } else if news.may_repair {
            self.repair(tcp, now, around);
        }
        tcp.note_rest(now);
        self.push(tcp, now, around);
        self.wake(tcp, around);
    }

    /// What follows from an ACK for the phase.
    fn judge(&mut self, tcp: &mut Tcp, now: Micros, of: Ack<'_>, news: &mut News) {
        let is_late = news.advances && self.undo.is_some_and(|(at, ..)| of.sent < at);
        let is_over = tcp.una >= tcp.recover;
        match self.phase {
            Phase::Open => {}
            Phase::Recovery if is_late => self.take_back(tcp),
            Phase::Recovery => {
                if is_over {
                    if self.bbr.is_none() {
                        tcp.cwnd = tcp.ssthresh;
                    }
                    self.end();
                }
            }
            Phase::Loss if is_late || self.is_doubted && news.is_original_sacked => {
                self.take_back(tcp)
            }
            Phase::Loss => {
                if self.is_doubted && tcp.next > tcp.recover {
                    self.is_doubted &= !news.is_sacked;
                } else if self.is_doubted && news.advances && !is_over {
                    tcp.recover = tcp.next;
                    news.new_first = tcp.next < tcp.taken();
                    self.is_doubted = news.new_first;
                }
                if is_over {
                    self.end();
                }
            }
        }
        if std::mem::take(&mut self.has_news) {
            (news.lost, news.lost_again) = self.find_losses(tcp, now);
        }
        let has_lost = tcp.pipe as usize + tcp.sacked as usize != tcp.flight.len();
        let enters = match self.phase {
            Phase::Open => has_lost,
            Phase::Recovery => false,
            Phase::Loss => news.lost_again,
        };
        if enters {
            self.enter_recovery(tcp, now);
        }
        news.may_repair = self.phase != Phase::Open;
    }

    fn end(&mut self) {
        (self.phase, self.undo, self.is_doubted) = (Phase::Open, None, false);
    }

    /// Nothing was lost: all is as before.
    fn take_back(&mut self, tcp: &mut Tcp) {
        if let Some((_, cwnd, ssthresh)) = self.undo.filter(|_| self.bbr.is_none()) {
            tcp.cwnd = tcp.cwnd.max(cwnd);
            tcp.ssthresh = tcp.ssthresh.max(ssthresh);
        }
        tcp.recover = tcp.una;
        for segment in tcp.flight.iter_mut().filter(|segment| segment.state == Fate::Lost) {
            segment.state = Fate::Flying;
            tcp.pipe += 1;
        }
        self.end();
    }

    fn enter_recovery(&mut self, tcp: &mut Tcp, now: Micros) {
        self.undo = Some((now, tcp.cwnd, self.threshold(tcp)));
        (self.before, self.arrived, self.sent) = (tcp.cwnd, 0, 0);
        self.lower(tcp);
        tcp.recover = tcp.next;
        (self.phase, self.probed, self.is_doubted) = (Phase::Recovery, None, false);
    }

    /// New data, as the window allows.
    fn push(&mut self, tcp: &mut Tcp, now: Micros, around: &mut impl Network) {
        let before = tcp.next;
        while f64::from(tcp.pipe) + 1.0 <= tcp.cwnd && tcp.next < tcp.taken() {
            let was_empty = tcp.flight.is_empty();
            tcp.send_new(now, around);
            self.sent += 1;
            if was_empty {
                self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
            } else if self.pending == Pending::Probe {
                self.set(tcp, Pending::Timeout, Some(self.timeout(tcp, now)));
            }
        }
        let is_limited = f64::from(tcp.pipe) + 1.0 > tcp.cwnd;
        if tcp.next > before {
            self.sent_at = now;
            self.note_use(tcp, now, is_limited);
            self.plan_probe(tcp, now, false);
        } else if is_limited && tcp.next < tcp.taken() {
            self.note_use(tcp, now, true);
        }
    }

    /// What is lost, as the window allows.
    fn repair(&mut self, tcp: &mut Tcp, now: Micros, around: &mut impl Network) {
        let mut place = 0;
        while place < tcp.flight.len() && f64::from(tcp.pipe) + 1.0 <= tcp.cwnd {
            if tcp.flight[place].state == Fate::Lost {
                collapse(tcp, place);
                tcp.send_again(now, place, around);
                self.sent += 1;
                if place == 0 && self.pending != Pending::Reordering {
                    self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
                }
            }
            place += 1;
        }
    }
}

/// Lets the segment at `place` take in those that follow, up to a full one.
fn collapse(tcp: &mut Tcp, place: usize) {
    let start = tcp.flight[place].start;
    while let Some(next) = tcp.flight.get(place + 1).copied() {
        if next.state == Fate::Sacked || next.end - start > MSS {
            return;
        }
        tcp.flight.remove(place + 1);
        tcp.leave_flight(next.state);
        tcp.flight[place].end = next.end;
    }
}
