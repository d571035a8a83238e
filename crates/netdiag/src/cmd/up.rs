//! `netdiag up`: probe, pacer and hint server in one process, with nothing in between.
//!
//! The sampling thread does it all, once per interval: tick, hints, board; the server's threads read the newest board.
//! Invariant: hints come first. Neither a slow client nor a full disk keeps the next board from being published.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use netdiag_probe::Losses;
use tokio::sync::watch;

use crate::args::{FlowArgs, ModelArgs, RateArgs, RowsArgs, SamplingArgs, ServerArgs, StaleArgs};
use crate::csv_file::CsvSink;
use crate::failure::UsageError;
use crate::hint_server::HintServer;
use crate::models::Models;
use crate::pacing::Pacers;
use crate::place::Places;
use crate::rows::{self, RowSender, RowWriter};
use crate::sampler::{Interval, Sampler, Start};
use crate::status;
use crate::stop::Stop;
use crate::terminal::{StatusLine, say};

/// Telemetry this many intervals old is too old to act on: one may be late, two are a coincidence.
const STALE_INTERVALS: u32 = 3;

/// And never sooner than this, for short intervals on a busy host.
const STALE_FLOOR: Duration = Duration::from_secs(2);

/// Watch this host's TCP connections and serve hints: how many tokens/s each link carries
///
/// Everything in one process: the probe, a pacer for the host, for every peer and for every connection, and the hint
/// server. `curl localhost:9000` shows the hint for the whole host; `/v1/hint?peer=IP` one peer's; `/v1/streams` every
/// connection with its state and cause. On a terminal, one line on stderr shows the state now. Runs until SIGINT or
/// SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    stale: StaleArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    flows: FlowArgs,
    #[command(flatten)]
    rows: RowsArgs,

    /// Append one row per interval to this file, too.
    ///
    /// As `netdiag agent` does, or to standard output with `-`. If it cannot be written any more (disk full), an error is logged and hints go on
    /// without it. Default: no file.
    #[arg(long, value_name = "FILE", env = "NETDIAG_CSV", help_heading = "Output")]
    csv: Option<PathBuf>,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let mut settings = args.sampling.validate(&args.flows, places)?;
    let range = args.rates.validate(places)?;
    let every = settings.interval;
    if let Some(stale_after) = args.stale.stale_after.filter(|&stale_after| stale_after <= every) {
        return Err(UsageError::new(format!(
            "{} is not longer than {}, so hints would be stale between two measurements; lengthen it",
            places.named("stale_after", stale_after.as_secs_f64()),
            places.named("interval", every.as_secs_f64()),
        ))
        .into());
    }
    let stop = Stop::on_signals()?;
    let server = HintServer::bind(&args.server, None)?;
    // Whoever asks for hints is no stream to give hints for, unless that is what is asked.
    let filter = &mut settings.probe.filter;
    filter.except_port = Some(server.port()).filter(|port| !filter.ports.contains(port));
    let models = Models::new(args.model.load(places)?);
    let mut csv = Csv::open(&args, &stop)?;
    let mut pacers = Pacers::new(range, models);
    let (boards, newest) = watch::channel(Arc::new(pacers.empty_board()));
    let status = StatusLine::start_beside(args.csv.as_deref());
    let shown = status.clone();
    let (mut rows, written) = (csv.sender.take(), csv.written.clone());
    let on_tick = move |interval: &Interval<'_>| {
        let mut board = pacers.observe(interval.tick, interval.elapsed);
        board.lost = lost(interval.losses);
        if shown.is_shown() {
            shown.set(status::with_hint(&board.host, interval.tick, written.as_deref()));
        }
        boards.send_replace(Arc::new(board));
        if let Some(rows) = &mut rows {
            rows.send(&interval.tick.host);
        }
    };
    let sampler = Sampler::start(settings, stop.clone(), on_tick)?;
    let Start { source, flows } = sampler.found();
    say(&format!(
        "netdiag: hints on {} ({} to {} tokens/s); watching {flows} flows by {source} every {} s",
        server.place(),
        range.min(),
        range.max(),
        every.as_secs_f64(),
    ));
    let stale_after = args.stale.stale_after.unwrap_or((every * STALE_INTERVALS).max(STALE_FLOOR));
    let served = server.run(newest, range, stale_after, args.stale.when_stale, &stop);
    stop.ask();
    let sampled = sampler.join();
    if let Some(writer) = csv.writer.take() {
        // Its failure has been logged when it happened.
        let _ = writer.join();
    }
    status.clear();
    served.and(sampled)
}

/// The file beside the hints, if one is wanted.
struct Csv {
    sender: Option<RowSender>,
    writer: Option<RowWriter>,
    written: Option<Arc<AtomicU64>>,
}

impl Csv {
    fn open(args: &Args, stop: &Stop) -> anyhow::Result<Self> {
        let Some(path) = &args.csv else {
            return Ok(Self { sender: None, writer: None, written: None });
        };
        let mut file = CsvSink::open(path, args.rows.max_samples.get(), stop)?;
        let (sender, writer) = rows::start(
            move |row| file.append(row),
            |error| tracing::error!("{error:#}; hints go on without the file until a restart"),
        )?;
        Ok(Self { sender: Some(sender), written: Some(writer.written()), writer: Some(writer) })
    }
}

fn lost(losses: Losses) -> Vec<(&'static str, u64)> {
    let Losses { flows, rtt_samples, closings } = losses;
    vec![("flows", flows), ("rtt_samples", rtt_samples), ("closings", closings)]
}
