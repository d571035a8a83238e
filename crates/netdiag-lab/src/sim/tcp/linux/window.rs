//! How CUBIC's window follows what arrives, what is lost, and what is used of it.
//!
//! Invariant: the threshold is two segments or more.

use super::super::{INITIAL_WINDOW, Micros, Tcp};
use super::{CUBIC, FRIENDLY, Linux, News, Phase};

impl Linux {
    /// The threshold after a loss, which to BBR is none.
    pub(super) fn lower(&mut self, tcp: &mut Tcp) {
        match &mut self.bbr {
            None => tcp.ssthresh = (tcp.cwnd * CUBIC).floor().max(2.0),
            Some(bbr) => bbr.save(tcp.cwnd),
        }
    }

    /// How the window follows what arrives.
    pub(super) fn adapt(&mut self, tcp: &mut Tcp, news: &News) {
        if self.phase == Phase::Recovery {
            self.reduce(tcp, news);
            return;
        }
        let is_slow = tcp.cwnd < tcp.ssthresh;
        let is_used = self.is_limited || is_slow && tcp.cwnd < 2.0 * self.most_out as f64;
        if !news.advances || !is_used {
            return;
        }
        let delivered = f64::from(news.delivered);
        if is_slow {
            tcp.cwnd = (tcp.cwnd + delivered).min(tcp.ssthresh);
        } else {
            tcp.cwnd += FRIENDLY * delivered / tcp.cwnd;
        }
    }

    /// Proportional rate reduction.
    pub(super) fn reduce(&mut self, tcp: &mut Tcp, news: &News) {
        self.arrived += news.delivered;
        let (pipe, arrived, sent) =
            (f64::from(tcp.pipe), f64::from(self.arrived), f64::from(self.sent));
        let mut more = if pipe > tcp.ssthresh {
            (tcp.ssthresh * arrived / self.before.max(1.0)).ceil() - sent
        } else {
            let bound = (arrived - sent).max(f64::from(news.delivered));
            let bound = bound + if news.advances && !news.lost_again { 1.0 } else { 0.0 };
            bound.min(tcp.ssthresh - pipe)
        };
        // The first is sent again at once.
        more = more.max(if self.sent == 0 { 1.0 } else { 0.0 });
        tcp.cwnd = pipe + more;
    }

    /// How much of the window is in use (`tcp_cwnd_validate`).
    pub(super) fn note_use(&mut self, tcp: &mut Tcp, now: Micros, is_limited: bool) {
        let out = tcp.flight.len();
        if tcp.una >= self.usage_end || is_limited || !self.is_limited && out > self.most_out {
            (self.is_limited, self.most_out, self.usage_end) = (is_limited, out, tcp.next);
        }
        if self.is_limited || tcp.cwnd < tcp.ssthresh && tcp.cwnd < 2.0 * self.most_out as f64 {
            (self.used, self.limited_at) = (0, now);
            return;
        }
        self.used = self.used.max(out);
        if self.bbr.is_none() && now - self.limited_at >= self.rto(tcp) {
            let used = (self.used as f64).max(INITIAL_WINDOW);
            if self.phase == Phase::Open && tcp.sacked == 0 && used < tcp.cwnd {
                tcp.ssthresh = self.threshold(tcp);
                tcp.cwnd = f64::midpoint(tcp.cwnd, used).floor();
            }
            (self.used, self.limited_at) = (0, now);
        }
    }

    /// What a timeout is to restore (`tcp_current_ssthresh`).
    pub(super) fn threshold(&self, tcp: &Tcp) -> f64 {
        match self.phase {
            Phase::Recovery => tcp.ssthresh,
            Phase::Open | Phase::Loss => tcp.ssthresh.max(0.75 * tcp.cwnd),
        }
    }
}
