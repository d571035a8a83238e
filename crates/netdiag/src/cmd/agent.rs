//! `netdiag agent`: telemetry to `net_data.csv`, and to a person's eyes if there is a terminal.
//!
//! Invariant: whatever ends the command, every interval measured until then is in the file or the failure to write it
//! is the exit code. Only on standard output rows may be lost, to a reader who has left or stopped reading.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::args::{FlowArgs, RowsArgs, SamplingArgs, SandboxArgs, values};
use crate::confine::{Confinement, Needs};
use crate::csv_file::{CsvSink, is_closed, is_stdout};
use crate::place::Places;
use crate::rows;
use crate::sampler::{Interval, PerInterval, Sampler, Start};
use crate::status;
use crate::stop::Stop;
use crate::terminal::StatusLine;

/// Write the state of this host's TCP connections to a CSV file
///
/// One row per interval: round trips, retransmissions, throughput, stalls, and rolling statistics. Rows are appended to
/// an existing file and flushed one by one; a line torn by a crash is repaired. On a terminal, one line on stderr shows
/// the last row; elsewhere the command is quiet. Runs until SIGINT or SIGTERM, or for --duration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    rows: RowsArgs,
    #[command(flatten)]
    flows: FlowArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// Append rows to this file, or print them with `-`.
    ///
    /// Made if absent. A file with other columns is refused, with the first one that differs. `-` prints header and
    /// rows to standard output, for another program to read; --max-samples says nothing about that.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_CSV",
        default_value = "net_data.csv",
        help_heading = "Output"
    )]
    csv: PathBuf,

    /// End after this many seconds.
    ///
    /// From 0.01 to 3200000000. Default: run until a signal.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_DURATION", value_parser = values::duration, help_heading = "Sampling")]
    duration: Option<Duration>,
}

/// Runs until a signal, for `--duration`, or until the rows cannot be written.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    match record(args, places) {
        Err(error) if is_closed(&error) => Ok(()),
        result => result,
    }
}

fn record(args: Args, places: &Places) -> anyhow::Result<()> {
    let settings = args.sampling.validate(&args.flows, places)?;
    let stop = Stop::on_signals()?;
    let mut csv = CsvSink::open(&args.csv, args.rows.max_samples.get(), &stop)?;
    let failed = stop.clone();
    let confinement = args.confinement();
    let (mut sender, writer) = rows::start(
        move |row| csv.append(row),
        move |_| failed.ask(),
        stop.clone(),
        confinement.clone(),
    )?;
    let written = writer.written();
    let status = StatusLine::start_beside(Some(&args.csv));
    let shown = status.clone();
    let watcher = PerInterval(move |interval: &Interval<'_>| {
        sender.send(&interval.tick.host);
        if shown.is_shown() {
            shown.set(status::of_rows(interval.tick, &written));
        }
    });
    let every = settings.interval;
    let sampler = Sampler::start(settings, stop.clone(), watcher, &confinement)?;
    let Start { source, flows, confined } = sampler.found();
    confinement.enter_and_tell(confined.as_deref());
    tracing::info!(
        "watching {flows} flows by {source} every {} s; rows go to {}",
        every.as_secs_f64(),
        args.csv.display(),
    );
    stop.wait(args.duration.unwrap_or(Duration::MAX));
    stop.ask();
    let sampled = sampler.join();
    let rows = writer.written();
    let wrote = writer.join();
    status.clear();
    tracing::info!(rows = rows.load(Ordering::Relaxed), "agent stopped");
    wrote.and(sampled)
}

impl Args {
    /// Rows are all that it has to do with others.
    fn confinement(&self) -> Confinement {
        let writes = (!is_stdout(&self.csv)).then(|| self.csv.clone());
        let needs = Needs { writes: writes.into_iter().collect(), ..Needs::default() };
        Confinement::new(self.sandbox, needs)
    }
}
