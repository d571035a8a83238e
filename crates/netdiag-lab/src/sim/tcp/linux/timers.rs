//! When Linux's sender does something although nothing came: probes, timeouts, and the wait for what may have been overtaken.
//!
//! Invariant: while something is out, one of them is pending.

use super::super::{Fate, MOST_BACKOFFS, Micros, Network, Tcp};
use super::{DELAYED, JIFFIES, Linux, News, Pending, Phase, collapse};

impl Linux {
    pub(in super::super) fn on_timer(
        &mut self,
        tcp: &mut Tcp,
        now: Micros,
        is_due: bool,
        around: &mut impl Network,
    ) {
        if is_due && !tcp.flight.is_empty() {
            match self.pending {
                Pending::Probe => self.probe(tcp, now, around),
                Pending::Reordering => {
                    self.pending = Pending::Nothing;
                    let (lost, _) = self.find_losses(tcp, now);
                    if lost > 0 && self.phase == Phase::Open {
                        self.enter_recovery(tcp, now);
                        if self.bbr.is_none() {
                            self.reduce(tcp, &News::default());
                        }
                    }
                    self.repair(tcp, now, around);
                    if self.pending == Pending::Nothing {
                        self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
                    }
                }
                Pending::Timeout | Pending::Nothing => self.time_out(tcp, now, around),
            }
        }
        self.wake(tcp, around);
    }

    pub(super) fn probe(&mut self, tcp: &mut Tcp, now: Micros, around: &mut impl Network) {
        if self.probed.is_some() {
            self.set(tcp, Pending::Timeout, Some(self.timeout(tcp, now)));
            return;
        }
        if tcp.next < tcp.taken() {
            tcp.send_new(now, around);
        } else {
            let last = tcp.flight.len() - 1;
            if tcp.flight[last].state == Fate::Sacked {
                self.set(tcp, Pending::Timeout, Some(self.timeout(tcp, now)));
                return;
            }
            tcp.send_again(now, last, around);
        }
        self.probed = Some(tcp.next);
        self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
    }

    /// `tcp_enter_loss`.
    pub(super) fn time_out(&mut self, tcp: &mut Tcp, now: Micros, around: &mut impl Network) {
        let is_new = self.phase == Phase::Open
            || tcp.recover <= tcp.una
            || self.phase == Phase::Loss && !self.has_timed_out;
        if is_new {
            self.undo = Some((now, tcp.cwnd, self.threshold(tcp)));
            self.lower(tcp);
        }
        let mut lost = 0;
        for (place, segment) in tcp.flight.iter_mut().enumerate() {
            // What was sent within the last round trip may still arrive.
            let is_old = place == 0 || segment.sent + self.newest_rtt <= now;
            if segment.state == Fate::Flying && is_old {
                segment.state = Fate::Lost;
                lost += 1;
            }
        }
        tcp.pipe -= lost;
        tcp.cwnd = f64::from(tcp.pipe) + 1.0;
        tcp.recover = tcp.next;
        (self.phase, self.is_doubted, self.has_timed_out) = (Phase::Loss, true, true);
        tcp.backoff = (tcp.backoff + 1).min(MOST_BACKOFFS);
        if tcp.flight.front().is_some_and(|head| head.state == Fate::Lost) {
            collapse(tcp, 0);
            tcp.send_again(now, 0, around);
        }
        self.set(tcp, Pending::Timeout, Some(now + self.rto(tcp)));
    }

    /// Plans a probe, where one may be sent (RFC 8985 §7.2); `advances`: the timeout begins anew with it.
    pub(super) fn plan_probe(&mut self, tcp: &mut Tcp, now: Micros, advances: bool) -> bool {
        if tcp.flight.is_empty() || self.phase != Phase::Open || tcp.sacked > 0 {
            return false;
        }
        let slack = if tcp.flight.len() == 1 { DELAYED } else { JIFFIES };
        let mut wait = 2 * tcp.srtt() as Micros + slack;
        let rto = self.rto(tcp);
        let left = match tcp.flight.front() {
            Some(oldest) if !advances => (oldest.sent + rto).saturating_sub(now),
            _ => rto,
        };
        if left > 0 {
            wait = wait.min(left);
        }
        self.set(tcp, Pending::Probe, Some(now + wait));
        true
    }

    /// The timeout of the oldest segment.
    pub(super) fn timeout(&self, tcp: &Tcp, now: Micros) -> Micros {
        let sent = tcp.flight.front().map_or(now, |oldest| oldest.sent);
        (sent + self.rto(tcp)).max(now + JIFFIES / 2)
    }

    pub(super) fn set(&mut self, tcp: &mut Tcp, pending: Pending, at: Option<Micros>) {
        (self.pending, tcp.deadline) = (pending, at);
    }

    pub(super) fn wake(&self, tcp: &mut Tcp, around: &mut impl Network) {
        if let Some(deadline) = tcp.deadline {
            tcp.wake_at(deadline, around);
        }
    }
}
