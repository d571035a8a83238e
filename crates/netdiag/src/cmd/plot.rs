//! `netdiag plot`: a recording as a picture.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use netdiag_health::Health;
use netdiag_telemetry::Row;

use crate::csv_file::{self, Labels, RowClock};
use crate::place::Places;
use crate::plot::{self, Recording};
use crate::replace::{check_distinct, check_writable, replace};
use crate::terminal::{Progress, say};

/// Draw a recording: distributions, time line and anomalies
///
/// Reads what `netdiag agent` writes and files with at least timestamp, avg_rtt_us, p95_rtt_us and retrans_count, and
/// writes a PNG of 1600 × 1000 pixels: how often each round trip, number of retransmitted segments and throughput
/// occurred, and how they went over time. Intervals in which the anomaly light was on are shaded.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Draw this CSV file.
    ///
    /// Round trips in microseconds and timestamps in seconds, as `netdiag agent` writes them; other columns may be absent.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_DATA",
        default_value = "net_data.csv",
        help_heading = "Input"
    )]
    data: PathBuf,

    /// Write the picture to this file.
    ///
    /// Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_OUT",
        default_value = "data_distribution.png",
        help_heading = "Output"
    )]
    out: PathBuf,
}

/// Draws the file once.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    check_distinct(&[("data", &args.data), ("out", &args.out)], places)?;
    check_writable(&[("out", &args.out)], places)?;
    let mut rows = Vec::new();
    let progress = Progress::start();
    csv_file::read("--data", &args.data, Labels::Ignored, &progress, |row, _| rows.push(*row))?;
    drop(progress);
    let name = args.data.file_name().unwrap_or(args.data.as_os_str());
    let recording =
        Recording { anomalies: anomalies(&rows), name: name.to_string_lossy().into_owned(), rows };
    let png = plot::draw(&recording)?;
    replace(&args.out, |file| file.write_all(&png))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    for note in recording.notes() {
        say(&format!("netdiag: {note}"));
    }
    say(&format!("netdiag: {} intervals drawn to {}", recording.rows.len(), args.out.display()));
    Ok(())
}

/// Whether the anomaly light was on in each interval, by the rolling quantiles alone.
fn anomalies(rows: &[Row]) -> Vec<bool> {
    let (mut health, mut clock) = (Health::without_training(), RowClock::default());
    let light = |row: &Row| health.observe(&(&row.sample).into(), clock.elapsed(row)).anomaly;
    rows.iter().map(light).collect()
}
