//! `netdiag serve`: hints from a CSV that another process writes.
//!
//! Invariant: a file that cannot be used is refused at the start, while somebody is looking; later, its lines are left
//! out and told, and hints go stale by themselves.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use netdiag_hints::{Board, Options, router_and_metrics};
use netdiag_http::GivenUp;
use tokio::sync::watch;

use crate::args::bus::PublishArgs;
use crate::args::otlp::OtlpArgs;
use crate::args::{ModelArgs, RateArgs, SandboxArgs, ServerArgs, StaleArgs};
use crate::bus::Publishing;
use crate::confine::{Confinement, Needs};
use crate::csv_file::{CsvPacer, POLL, STALE_AFTER};
use crate::hint_server::HintServer;
use crate::models::Models;
use crate::otlp::{Export, Exporting};
use crate::own_peers::OwnPeers;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// Serve hints from a CSV file that another process writes
///
/// Follows the file while it grows, also when it is rotated, truncated, replaced, or not there yet. Reads what `netdiag
/// agent` writes and files with at least timestamp, avg_rtt_us, p95_rtt_us and retrans_count. A file speaks for the
/// host as a whole, and so does the hint for any peer. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Follow this file.
    ///
    /// If it is absent, hints are `stale` until it appears.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_CSV",
        default_value = "net_data.csv",
        help_heading = "Input"
    )]
    csv: PathBuf,

    /// Serve hints on this port.
    ///
    /// From 0 to 65535; 0 takes any free port, and the one taken is printed at the start. Wins over the port in
    /// --listen. (For `up` and `agent`, --port selects flows instead.) Default: the port in --listen.
    #[arg(long, value_name = "N", env = "NETDIAG_SERVE_PORT", help_heading = "Hint server", value_parser = crate::args::values::any_port)]
    port: Option<u16>,

    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    bus: PublishArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    stale: StaleArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let range = args.rates.validate(places)?;
    let models = Models::new(args.model.load(places)?);
    let stale_after = args.stale.stale_after.unwrap_or(STALE_AFTER);
    let bus = args.bus.validate(stale_after, args.stale.when_stale, places)?;
    let stop = Stop::on_signals()?;
    let server = HintServer::bind(&args.server, args.port, places)?;
    let export = args.otlp.validate("netdiag-serve", server.instance(), places)?.map(Export::new);
    let (mut pacer, present) = CsvPacer::start(&args.csv, range, models, |_, _| ())?;
    let (boards, newest) = watch::channel(Arc::new(board(&pacer)));
    let waiting = if present { "" } else { " (not there yet)" };
    say(&format!(
        "netdiag: hints on {} ({} to {} tokens/s); following {}{waiting}",
        server.place(),
        range.min(),
        range.max(),
        args.csv.display(),
    ));
    let connects = bus.is_some() || export.is_some();
    let needs = Needs { reads: vec![args.csv.clone()], connects, ..Needs::default() };
    Confinement::new(args.sandbox, needs).enter_and_tell(None);
    let watching = stop.clone();
    let thread = std::thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || {
            while !watching.wait(POLL) {
                if pacer.keep_up(|_, _| ()) {
                    boards.send_replace(Arc::new(board(&pacer)));
                }
            }
        })
        .context("cannot start the thread that follows the file")?;
    let publishing = bus
        .map(|bus| Publishing::start(bus, None, newest.clone(), OwnPeers::default(), &stop))
        .transpose()?;
    let given_up = GivenUp::default();
    let options = Options {
        range,
        stale_after,
        when_stale: args.stale.when_stale,
        exposure: server.exposure().clone(),
        bus: publishing.as_ref().map(|publishing| Arc::clone(&publishing.status)),
        given_up: given_up.clone(),
        exports: export.as_ref().map(Export::status),
        pseudonyms: None,
    };
    let (router, scrape) = router_and_metrics(newest, options);
    let exporting = export.map(|export| export.start(vec![scrape], |_| (), &stop)).transpose()?;
    let served = server.run(router, given_up, &stop);
    stop.ask();
    let published = publishing.map_or(Ok(()), Publishing::join);
    let exported = exporting.map_or(Ok(()), Exporting::join);
    let followed =
        thread.join().map_err(|_| anyhow::anyhow!("the thread that follows the file panicked"));
    served.and(followed).and(published).and(exported)
}

fn board(pacer: &CsvPacer) -> Board {
    let mut board = Board::of_host(pacer.hint(), pacer.sampled_at().map(Into::into));
    board.row = pacer.row();
    board
}
