//! BBR's window (Cardwell et al., ACM Queue 14(5), 2016; `tcp_bbr.c`) in its startup, which a stream of tokens never leaves: the
//! application limits it, so no round shows that the pipe is full.
//!
//! A loss costs it one round in which no more is sent than has arrived; then the window is as before. That is what keeps a stream
//! alive through bursts of loss that leave CUBIC with two segments.
//!
//! Invariant: outside recoveries the window does not shrink.

use super::super::{Micros, Tcp};
use super::{News, Phase};

/// Gain of the startup, `2 / ln 2`.
const STARTUP: f64 = 2.885;

/// Segments beyond what the path holds: three of what is handed down at a time, which is two at low rates.
const QUANTA: f64 = 6.0;

/// The least window.
const LEAST: f64 = 4.0;

/// Until so many segments have arrived the window grows without a measure.
const UNMEASURED: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Bbr {
    /// The window of before.
    saved: f64,
    was: Phase,
    /// For a round of a recovery nothing more is sent than arrives.
    conserves: bool,
    /// Segments that arrived; and when the present round began, with how many there were then, and the byte with which it ends.
    arrived: u64,
    round: (Micros, u64, u64),
    /// The most that arrived in a round, segments a microsecond.
    most: f64,
}

impl Bbr {
    /// A loss was found.
    pub(super) fn save(&mut self, cwnd: f64) {
        self.saved = if self.was == Phase::Open { cwnd } else { self.saved.max(cwnd) };
    }

    pub(super) fn on_ack(
        &mut self,
        tcp: &mut Tcp,
        now: Micros,
        phase: Phase,
        least_rtt: Option<Micros>,
        news: &News,
    ) {
        let delivered = f64::from(news.delivered);
        self.arrived += u64::from(news.delivered);
        self.measure(tcp, now);
        let was = std::mem::replace(&mut self.was, phase);
        if news.lost > 0 {
            tcp.cwnd = (tcp.cwnd - f64::from(news.lost)).max(1.0);
        }
        if phase == Phase::Recovery && was != Phase::Recovery {
            self.conserves = true;
            self.round = (now, self.arrived, tcp.next);
            tcp.cwnd = f64::from(tcp.pipe) + delivered;
        } else if phase == Phase::Open && was != Phase::Open {
            self.conserves = false;
            tcp.cwnd = tcp.cwnd.max(self.saved);
        }
        if self.conserves {
            tcp.cwnd = tcp.cwnd.max(f64::from(tcp.pipe) + delivered);
            return;
        }
        let path = self.most * least_rtt.unwrap_or(0) as f64;
        let target = (STARTUP * path).ceil() + QUANTA;
        if tcp.cwnd < target || self.arrived < UNMEASURED {
            tcp.cwnd += delivered;
        }
        tcp.cwnd = tcp.cwnd.max(LEAST);
    }

    /// A round ends when what was sent after it began arrives.
    fn measure(&mut self, tcp: &Tcp, now: Micros) {
        let (began, arrived, end) = self.round;
        if tcp.una < end {
            return;
        }
        if now > began && began > 0 {
            self.most = self.most.max((self.arrived - arrived) as f64 / (now - began) as f64);
        }
        self.conserves = false;
        self.round = (now, self.arrived, tcp.next.max(tcp.una + 1));
    }
}
