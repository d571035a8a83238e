//! One interval's statistics for one scope, and the row of `net_data.csv` it becomes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where telemetry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The eBPF probe, with a `sock_diag` snapshot beside it for liveness.
    Ebpf,
    /// Netlink `sock_diag` alone: no privileges needed, RTT estimated once per flow and interval.
    Sockdiag,
}

impl Source {
    /// The name used in the CSV and in hints.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Ebpf => "ebpf",
            Source::Sockdiag => "sockdiag",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Statistics of the RTT samples of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttSummary {
    /// Smallest sample.
    pub min: Duration,
    /// Largest sample.
    pub max: Duration,
    /// Mean.
    pub avg: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// Number of samples; at least 1.
    pub samples: u64,
}

/// What one interval showed for one scope.
///
/// `None` means "not measured", never zero: an interval without an RTT sample says nothing about the RTT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSample {
    /// End of the interval, time since the Unix epoch.
    pub timestamp: Duration,
    /// RTT samples of the interval.
    pub rtt: Option<RttSummary>,
    /// Mean smoothed RTT of the flows that were active.
    pub srtt: Option<Duration>,
    /// Segments retransmitted.
    pub retrans_segs: u64,
    /// Segments sent, retransmissions included; `None` in files that lack the column.
    pub segs_out: Option<u64>,
    /// Mean congestion window of the flows that were active, segments.
    pub avg_cwnd: Option<f64>,
    /// Bytes acknowledged, as bits per second.
    pub throughput_bps: Option<f64>,
    /// Flows open at the end of the interval (or closed within it); `None` in files that lack the column.
    pub flows: Option<u32>,
    /// Flows with unacknowledged data and no ACK for longer than the path explains.
    pub stalled_flows: Option<u32>,
    /// Which source measured.
    pub source: Option<Source>,
}

impl LinkSample {
    /// Retransmitted share of the segments sent, 0..=1; `None` when nothing was sent or the count is unknown.
    pub fn retrans_rate(&self) -> Option<f64> {
        let sent = self.segs_out.filter(|&sent| sent > 0)?;
        Some((self.retrans_segs as f64 / sent as f64).min(1.0))
    }
}

/// Statistics over the rolling window (`--window`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rolling {
    /// Mean RTT.
    pub avg_rtt: Option<Duration>,
    /// 95th percentile of the RTT samples (not of the intervals' percentiles).
    pub p95_rtt: Option<Duration>,
    /// Standard deviation of the RTT samples.
    pub std_rtt: Option<Duration>,
    /// Segments retransmitted.
    pub retrans_segs: u64,
}

/// One row of `net_data.csv`: an interval and the window that ends with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The interval.
    pub sample: LinkSample,
    /// The window.
    pub rolling: Rolling,
}
