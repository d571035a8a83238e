//! The columns of `net_data.csv`: name, meaning and value, declared once.
//!
//! Invariant: a cell is empty or a plain number without exponent (or the source's name), so it never needs quotes.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::sample::Row;

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    /// Its name in the header.
    pub name: &'static str,
    /// What it holds, with the unit, for documentation.
    pub holds: &'static str,
    value: fn(&Row) -> Value,
}

/// A cell before it is written.
enum Value {
    /// Unix time, seconds.
    Time(Duration),
    /// Written as microseconds.
    Micros(Option<Duration>),
    Count(Option<u64>),
    /// Written to a tenth.
    Tenths(Option<f64>),
    /// Written without a fraction.
    Whole(Option<f64>),
    Name(Option<&'static str>),
}
use Value::{Count, Micros, Name, Tenths, Time, Whole};

/// The columns, in the order they are written.
pub const COLUMNS: [Column; 18] = [
    column("timestamp", "end of the interval, Unix time in seconds", |r| Time(r.sample.timestamp)),
    column("min_rtt_us", "smallest RTT sample of the interval, µs", |r| {
        Micros(r.sample.rtt.map(|rtt| rtt.min))
    }),
    column("max_rtt_us", "largest RTT sample, µs", |r| Micros(r.sample.rtt.map(|rtt| rtt.max))),
    column("avg_rtt_us", "mean of the RTT samples, µs", |r| {
        Micros(r.sample.rtt.map(|rtt| rtt.avg))
    }),
    column("p95_rtt_us", "95th percentile of the RTT samples, µs", |r| {
        Micros(r.sample.rtt.map(|rtt| rtt.p95))
    }),
    column("rtt_samples", "number of RTT samples", |r| {
        Count(Some(r.sample.rtt.map_or(0, |rtt| rtt.samples)))
    }),
    column("srtt_us", "mean of the active flows' smoothed RTT, µs", |r| Micros(r.sample.srtt)),
    column("retrans_count", "segments retransmitted in the interval", |r| {
        Count(Some(r.sample.retrans_segs))
    }),
    column("segs_out", "segments sent, retransmissions included", |r| Count(r.sample.segs_out)),
    column("avg_cwnd", "mean congestion window of the active flows, segments", |r| {
        Tenths(r.sample.avg_cwnd)
    }),
    column("throughput_bps", "bytes acknowledged, as bits per second", |r| {
        Whole(r.sample.throughput_bps)
    }),
    column("rolling_avg_rtt", "mean of the window's RTT samples, µs", |r| {
        Micros(r.rolling.avg_rtt)
    }),
    column("rolling_p95_rtt", "95th percentile of the window's RTT samples, µs", |r| {
        Micros(r.rolling.p95_rtt)
    }),
    column("rolling_std_rtt", "standard deviation of the window's RTT samples, µs", |r| {
        Micros(r.rolling.std_rtt)
    }),
    column("rolling_retrans", "segments retransmitted in the window", |r| {
        Count(Some(r.rolling.retrans_segs))
    }),
    column("flows", "flows open at the end of the interval or closed within it", |r| {
        Count(r.sample.flows.map(u64::from))
    }),
    column(
        "stalled_flows",
        "flows with data unacknowledged for longer than the path explains",
        |r| Count(r.sample.stalled_flows.map(u64::from)),
    ),
    column("source", "who measured: `ebpf` or `sockdiag`", |r| {
        Name(r.sample.source.map(|source| source.as_str()))
    }),
];

const fn column(name: &'static str, holds: &'static str, value: fn(&Row) -> Value) -> Column {
    Column { name, holds, value }
}

/// Where a column stands in [`COLUMNS`].
pub(super) fn position(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.name == name)
}

impl Column {
    /// Appends the row's cell of this column to `line`.
    pub(super) fn write(&self, row: &Row, line: &mut String) {
        // Writing to a String cannot fail.
        let _ = match (self.value)(row) {
            // Milliseconds: intervals are no shorter than ten of them. The nearest one, because a time that was read is a float
            // and may lie just before the one that was written.
            Time(time) => {
                let ms = time.saturating_add(Duration::from_micros(500)).as_millis();
                write!(line, "{}.{:03}", ms / 1000, ms % 1000)
            }
            // A tenth of a microsecond is the least that can be told apart from 0, which readers take for "none".
            Micros(Some(time)) => write!(line, "{}", tenths(time.as_secs_f64() * 1e6).max(0.1)),
            Count(Some(count)) => write!(line, "{count}"),
            Tenths(Some(value)) if is_measure(value) => write!(line, "{}", tenths(value)),
            Whole(Some(value)) if is_measure(value) => write!(line, "{value:.0}"),
            Name(Some(name)) => write!(line, "{name}"),
            Micros(None) | Count(None) | Tenths(_) | Whole(_) | Name(None) => Ok(()),
        };
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Anything else was not measured, whoever computed it, and no reader would take it.
fn is_measure(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
