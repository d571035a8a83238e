//! RTT samples where the kernel shows only their average.
//!
//! `srtt` is an exponentially weighted moving average with gain 1/8 (RFC 6298 §2.3; `tcp_rtt_estimator()`). Between two
//! dumps with `n` measurements it moved from `s0` to `s1 = a·s0 + (1 − a)·m`, with `a = (7/8)^n` and `m` the (weighted)
//! mean of the measurements. Solving for `m` gives back the round trip of the interval, without the seconds of history
//! that `srtt` drags along: exact for one measurement, and `srtt` itself for many.
//!
//! `n` is not shown either. Every measurement takes an ACK that delivers something, so the smaller of the segments
//! received and the segments delivered (known since Linux 4.18) bounds it.

use std::time::Duration;

use netdiag_tcpinfo::TcpInfo;

/// What one dump leaves for the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    srtt: Duration,
    delivered: Option<u32>,
    segs_in: u32,
}

impl RttEstimator {
    /// Starts at a dump.
    pub(crate) fn new(info: &TcpInfo) -> Self {
        Self {
            srtt: info.rtt,
            delivered: info.delivered,
            segs_in: info.segs_in.unwrap_or_default(),
        }
    }

    /// The mean RTT measured since the last dump; `None` if nothing was.
    pub(crate) fn advance(&mut self, info: &TcpInfo) -> Option<Duration> {
        let before = std::mem::replace(self, Self::new(info));
        let received = self.segs_in.wrapping_sub(before.segs_in);
        let measurements = match (self.delivered, before.delivered) {
            (Some(now), Some(before)) => now.wrapping_sub(before).min(received),
            _ => received,
        };
        if measurements == 0 || info.rtt.is_zero() {
            return None;
        }
        if before.srtt.is_zero() {
            return Some(info.rtt);
        }
        // 2^-31 is reached at n = 161; powi takes i32 and more would change nothing.
        let a = 0.875f64.powi(measurements.min(1000) as i32);
        let mean = (info.rtt.as_secs_f64() - a * before.srtt.as_secs_f64()) / (1.0 - a);
        // With `n` overestimated the result lags; underestimated, it overshoots. No round trip beats the minimum the
        // kernel saw, and none above the whole history's weight can be told from noise.
        let floor = info.min_rtt.unwrap_or_default().as_secs_f64();
        Some(Duration::from_secs_f64(mean.clamp(floor, 8.0 * info.rtt.as_secs_f64().max(floor))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rtt_us: u64, acks: u32) -> TcpInfo {
        TcpInfo {
            rtt: Duration::from_micros(rtt_us),
            delivered: Some(acks),
            segs_in: Some(acks),
            min_rtt: Some(Duration::from_micros(100)),
            ..TcpInfo::default()
        }
    }

    fn check(before: TcpInfo, after: TcpInfo, expected: Option<u64>) {
        let sample = RttEstimator::new(&before).advance(&after);
        assert_eq!(sample.map(|rtt| (rtt.as_secs_f64() * 1e6).round() as u64), expected);
    }

    #[test]
    fn the_average_is_undone() {
        // One measurement of 100 ms on an average of 20 ms: 7/8·20 + 1/8·100 = 30.
        check(info(20_000, 5), info(30_000, 6), Some(100_000));
        // Many measurements: the average has arrived.
        check(info(20_000, 5), info(50_000, 205), Some(50_000));
        // Nothing delivered, nothing learned.
        check(info(20_000, 5), info(20_000, 5), None);
        // The first measurement ever is the average.
        check(info(0, 0), info(40_000, 1), Some(40_000));
        // A kernel that does not say what was delivered.
        let old = |info: TcpInfo| TcpInfo { delivered: None, ..info };
        check(old(info(20_000, 5)), old(info(30_000, 6)), Some(100_000));
        // Never below the minimum.
        check(info(20_000, 5), info(17_000, 6), Some(100));
    }
}
