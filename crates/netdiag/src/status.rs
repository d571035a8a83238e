//! The live line's text: the most telling first, because a narrow terminal cuts the end off.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netdiag_pacer::Hint;
use netdiag_telemetry::Tick;

/// The interval for `agent`.
pub(crate) fn of_rows(tick: &Tick, written: &AtomicU64) -> String {
    let mut line = flows(tick);
    rows(&mut line, written);
    line
}

/// The host's hint and the interval for `up`.
pub(crate) fn with_hint(hint: &Hint, tick: &Tick, written: Option<&AtomicU64>) -> String {
    let mut line =
        format!("{:.1} tok/s {} │ {}", hint.current_tps.get(), hint.state.as_str(), flows(tick));
    if let Some(written) = written {
        rows(&mut line, written);
    }
    line
}

fn flows(tick: &Tick) -> String {
    let sample = &tick.host.sample;
    let mut line = format!("{} flows", sample.flows.unwrap_or_default());
    // Writing to a String cannot fail, here and below.
    if let Some(stalled) = sample.stalled_flows.filter(|&stalled| stalled > 0) {
        let _ = write!(line, " ({stalled} stalled)");
    }
    match &sample.rtt {
        Some(rtt) => {
            let _ = write!(line, " │ RTT avg {}, p95 {}", short(rtt.avg), short(rtt.p95));
        }
        None => line.push_str(" │ RTT –"),
    }
    let _ = write!(line, " │ retrans {}", sample.retrans_segs);
    let _ = write!(line, " │ {}", bit_rate(sample.throughput_bps.unwrap_or_default()));
    line
}

fn rows(line: &mut String, written: &AtomicU64) {
    // This interval's row is on its way.
    let rows = written.load(Ordering::Relaxed) + 1;
    let _ = write!(line, " │ {rows} {}", if rows == 1 { "row" } else { "rows" });
}

/// A duration as a person reads it: `250 µs`, `23.4 ms`, `1.20 s`.
fn short(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A bit rate as a person reads it: `0 bit/s`, `12.3 kbit/s`, `4.0 Mbit/s`.
fn bit_rate(bits_per_second: f64) -> String {
    match bits_per_second {
        r if r < 1e3 => format!("{r:.0} bit/s"),
        r if r < 1e6 => format!("{:.1} kbit/s", r / 1e3),
        r if r < 1e9 => format!("{:.1} Mbit/s", r / 1e6),
        r => format!("{:.1} Gbit/s", r / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(Duration::from_micros(250)), "250 µs");
        assert_eq!(short(Duration::from_micros(23_400)), "23.4 ms");
        assert_eq!(short(Duration::from_millis(1200)), "1.20 s");
        assert_eq!(bit_rate(0.0), "0 bit/s");
        assert_eq!(bit_rate(12_345.0), "12.3 kbit/s");
        assert_eq!(bit_rate(4e6), "4.0 Mbit/s");
    }
}
