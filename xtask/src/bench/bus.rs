//! How many hints a second go over one local NATS server, and how old one is when it arrives.
//!
//! Publisher, server and subscriber share the machine's cores, as the bar has it. Each figure is taken in a process of its own, several
//! times; the best counts, because other work can only slow it down, and the median stands beside it.

use std::process::Command;

use netdiag_lab::Broker;

use super::pacer::numbers;
use super::{Bar, Bound, Report};
use crate::command;
use crate::median::median;

/// Hints published and heard per second.
const THROUGHPUT: f64 = 50_000.0;

/// Milliseconds from a hint's making to a consumer's hand, p99, at a thousand hints a second.
const LATENCY_MS: f64 = 5.0;

/// Turns, how many times as many with `--long`, and the seconds of each.
const TURNS: usize = 5;
const LONG: usize = 4;
const SECONDS: u32 = 5;

pub(super) fn run(long: bool) -> anyhow::Result<Report> {
    command::ensure_debian(&[("nats-server", "nats-server")])?;
    let load =
        crate::release_binary("netdiag-hints", &["--example", "bus_load"], "examples/bus_load")?;
    let broker = Broker::start()?;
    let (mut published, mut heard) = (Vec::new(), Vec::new());
    let (mut p50, mut p99, mut hints) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..if long { TURNS * LONG } else { TURNS } {
        eprintln!("round {}", turn + 1);
        let measure = |what: &str| {
            let seconds = SECONDS.to_string();
            numbers(Command::new(&load).args([broker.url().as_str(), what, &seconds]))
        };
        let throughput = measure("throughput")?;
        let [sent, got] = throughput[0][..] else { anyhow::bail!("{throughput:?}") };
        published.push(sent);
        heard.push(got);
        let latency = measure("latency")?;
        let [half, most, count] = latency[0][..] else { anyhow::bail!("{latency:?}") };
        p50.push(half);
        p99.push(most);
        hints.push(count / f64::from(SECONDS));
    }
    let columns = vec!["what", "best", "median", "unit"];
    let mut report = Report { columns, ..Report::default() };
    let mut row = |what: &str, values: &mut Vec<f64>, best: fn(f64, f64) -> f64, unit: &str| {
        let median = median(values.iter().copied());
        let best = values.iter().copied().reduce(best).unwrap_or(f64::NAN);
        let digits = if unit == "ms" { 2 } else { 0 };
        let cell = |value: f64| format!("{value:.digits$}");
        report.rows.push(vec![what.to_owned(), cell(best), cell(median), unit.to_owned()]);
        best
    };
    row("hints published", &mut published, f64::max, "1/s");
    let heard = row("hints heard", &mut heard, f64::max, "1/s");
    row("hints heard while latency is taken", &mut hints, f64::max, "1/s");
    row("latency p50", &mut p50, f64::min, "ms");
    let p99 = row("latency p99", &mut p99, f64::min, "ms");
    for (name, value, bound, unit) in [
        ("hints_per_second", heard, Bound::AtLeast(THROUGHPUT), "1/s"),
        ("latency_p99", p99, Bound::AtMost(LATENCY_MS), "ms"),
    ] {
        report.bars.push(Bar { name: name.to_owned(), value, bound, unit });
    }
    Ok(report)
}
