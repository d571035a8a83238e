//! How Linux estimates the round trip and how much it allows beyond it (`tcp_rtt_estimator` and `__tcp_set_rto`).
//!
//! What it allows is not four mean deviations (RFC 6298) but the greatest that they were in a round trip, which falls by a quarter in
//! each that follows. A stream whose ACKs were seconds late is left with a timer of seconds for as many round trips as it takes.
//!
//! Invariant: the margin is never less than [`RTO_MIN`].

use super::super::{Micros, RTO_MAX, RTO_MIN, Tcp};
use super::Linux;

/// What the timeout allows beyond a round trip, microseconds.
#[derive(Debug, Default)]
pub(super) struct Margin {
    /// `rttvar_us`.
    allowed: f64,
    /// The most of the present round trip (`mdev_max_us`), and the byte that ends it (`rtt_seq`).
    most: f64,
    ends: u64,
}

impl Margin {
    pub(super) fn new(rttvar: f64) -> Self {
        let allowed = (4.0 * rttvar).max(RTO_MIN);
        Self { allowed, most: allowed, ends: 0 }
    }

    /// The mean deviation is `rttvar`; `una` is acknowledged, and `next` is sent next.
    fn follow(&mut self, rttvar: f64, una: u64, next: u64) {
        self.most = self.most.max(4.0 * rttvar);
        self.allowed = self.allowed.max(self.most);
        if una > self.ends {
            self.allowed -= (self.allowed - self.most) / 4.0;
            (self.most, self.ends) = (RTO_MIN, next);
        }
    }
}

impl Linux {
    /// A round trip was measured by an ACK of all before `una`.
    pub(super) fn measure(&mut self, tcp: &mut Tcp, rtt: Micros, una: u64) {
        tcp.note(rtt);
        let rtt = rtt as f64;
        let error = (rtt - tcp.srtt).abs() - tcp.rttvar;
        // A round trip that is shorter than usual is no reason to wait for longer.
        let gain = if rtt < tcp.srtt && error > 0.0 { 1.0 / 32.0 } else { 0.25 };
        tcp.srtt += (rtt - tcp.srtt) / 8.0;
        tcp.rttvar += gain * error;
        self.margin.follow(tcp.rttvar, una.max(tcp.una), tcp.next);
    }

    /// The retransmission timeout, with its backoff.
    pub(super) fn rto(&self, tcp: &Tcp) -> Micros {
        let rto = tcp.srtt + self.margin.allowed;
        (rto * f64::from(1u32 << tcp.backoff)).min(RTO_MAX) as Micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_round_trip_is_allowed_for_during_many() {
        let mut margin = Margin::new(0.0);
        assert_eq!(margin.allowed, RTO_MIN);
        // Four times a mean deviation of a second, in the middle of a round trip and at its end.
        margin.follow(1e6, 0, 100);
        assert_eq!(margin.allowed, 4e6);
        margin.follow(1e6, 100, 200);
        let mut before = margin.allowed;
        for round in 3..12 {
            let una = round * 1000;
            margin.follow(0.0, una, una + 100);
            let falls = before - margin.allowed;
            assert!((falls - (before - RTO_MIN) / 4.0).abs() < 1.0, "{before} to {margin:?}");
            before = margin.allowed;
        }
        assert!(before < 0.1 * 4e6 + RTO_MIN, "{margin:?}");
    }
}
