//! `netdiag up`: probe, pacer, hint server and dashboard in one process, with nothing in between.
//!
//! The sampling thread does it all, once per interval or, where flows are paced one by one, ten times a second: tick, hints, board; the
//! servers' threads read the newest board. Invariant: hints come first. Neither a slow client nor a full disk keeps the next board from
//! being published.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use netdiag_dashboard::{Feed, Label, Mode, Point, Staleness};
use netdiag_hints::{Board, bus, router_and_metrics};
use netdiag_http::{GivenUp, Pseudonyms};
use netdiag_pacer::Hint;
use netdiag_probe::Losses;
use netdiag_telemetry::FlowSnapshot;
use tokio::sync::watch;

use crate::args::anonymise::AnonymiseArgs;
use crate::args::bus::{MemberArgs, PublishArgs};
use crate::args::otlp::OtlpArgs;
use crate::args::values::{self, DASHBOARD_PORT};
use crate::args::{
    DashboardArgs, FlowArgs, ModelArgs, PolicyArgs, RateArgs, RowsArgs, SamplingArgs, SandboxArgs,
    ServerArgs, StaleArgs,
};
use crate::bus::Publishing;
use crate::confine::{Confinement, Needs};
use crate::csv_file::{CsvSink, is_stdout};
use crate::dashboard::{self, Dashboard, Documents};
use crate::failure::UsageError;
use crate::hint_server::HintServer;
use crate::models::Models;
use crate::otlp::{Export, Exporting};
use crate::own_peers::OwnPeers;
use crate::pacing::{Pacers, TICK};
use crate::place::Places;
use crate::rows::{self, RowSender, RowWriter};
use crate::sampler::{Interval, Sampler, Start, Watcher};
use crate::status;
use crate::stop::Stop;
use crate::terminal::{StatusLine, say};

/// Telemetry this many intervals old is too old to act on: one may be late, two are a coincidence.
const STALE_INTERVALS: u32 = 3;

/// And never sooner than this, for short intervals on a busy host.
const STALE_FLOOR: Duration = Duration::from_secs(2);

/// Watch this host's TCP connections, serve hints (how many tokens/s each link carries) and show them in a browser
///
/// Everything in one process: the probe, a pacer for the host, for every peer and for every connection, the hint server, and a dashboard on
/// http://localhost:8501. `curl localhost:9000` shows the hint for the whole host; `/v1/hint?peer=IP` one peer's; `/v1/streams` every
/// connection with its state and cause. On a terminal, one line on stderr shows the state now. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    dashboard: DashboardArgs,

    /// Serve hints without a dashboard.
    ///
    /// Default: there is one.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_NO_DASHBOARD", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Dashboard")]
    no_dashboard: bool,

    #[command(flatten)]
    bus: PublishArgs,
    #[command(flatten)]
    fleet: MemberArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    anonymise: AnonymiseArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    stale: StaleArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    flows: FlowArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    rows: RowsArgs,

    /// Append one row per interval to this file, too.
    ///
    /// As `netdiag agent` does, or to standard output with `-`. While the disk is full, rows wait, 4096 at most; if the file cannot be
    /// written for another reason, an error is logged and hints go on without it. Default: no file.
    #[arg(long, value_name = "FILE", env = "NETDIAG_CSV", help_heading = "Output")]
    csv: Option<PathBuf>,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let mut settings = args.sampling.validate(&args.flows, places)?;
    let range = args.rates.validate(places)?;
    let sharing = args.policy.validate(range, places)?;
    settings.look_every = sharing.map(|_| TICK);
    let every = settings.interval;
    if let Some(stale_after) = args.stale.stale_after.filter(|&stale_after| stale_after <= every) {
        return Err(UsageError::new(format!(
            "{} is not longer than {}, so hints would be stale between two measurements; lengthen it",
            places.named("stale_after", stale_after.as_secs_f64()),
            places.named("interval", every.as_secs_f64()),
        ))
        .into());
    }
    let stale_after = args.stale.stale_after.unwrap_or((every * STALE_INTERVALS).max(STALE_FLOOR));
    let pushed_to = args.bus.validate(stale_after, args.stale.when_stale, places)?;
    let member = args.fleet.validate(args.bus.node(), pushed_to.is_some(), sharing, places)?;
    let pseudonyms = args.anonymise.validate(places)?;
    let stop = Stop::on_signals()?;
    let server = HintServer::bind(&args.server, None, places)?;
    let dashboard = bind_dashboard(&args, places)?;
    // Whoever asks for hints or looks at them is no stream to give hints for, unless that is what is asked.
    let own = [Some(server.port()), dashboard.as_ref().map(Dashboard::port)];
    let filter = &mut settings.probe.filter;
    filter.except_ports =
        own.into_iter().flatten().filter(|port| !filter.ports.contains(port)).collect();
    // Nor is what we say on the bus, or to a collector.
    let own_peers = OwnPeers::new(Arc::clone(&filter.except_peers));
    let export = args.otlp.validate("netdiag-up", server.instance(), places)?.map(Export::new);
    let staleness = Staleness { after: stale_after, policy: args.stale.when_stale };
    let models = Models::new(args.model.load(places)?);
    let confinement = args.confinement(pushed_to.is_some() || export.is_some());
    let mut csv = Csv::open(&args, &stop, &confinement)?;
    let (seat, member) = member
        .map(|settings| {
            let (seat, member) = bus::seat();
            (seat, (member, settings))
        })
        .unzip();
    let pacers = Pacers::new(range, models, sharing, seat);
    let (boards, newest) = watch::channel(Arc::new(pacers.board()));
    let feed = dashboard.as_ref().map(|_| feed(staleness, pacers.board().host));
    let status = StatusLine::start_beside(args.csv.as_deref());
    let watcher = Hints {
        pacers,
        pseudonyms: pseudonyms.clone(),
        boards,
        feed: feed.clone(),
        status: status.clone(),
        rows: csv.sender.take(),
        written: csv.written.clone(),
    };
    // Before anything is given up that it takes to examine it.
    let machine = dashboard.as_ref().map(|_| dashboard::machine(&confinement)).transpose()?;
    let sampler = Sampler::start(settings, stop.clone(), watcher, &confinement)?;
    let Start { source, flows, confined } = sampler.found();
    confinement.enter_and_tell(confined.as_deref());
    say(&format!(
        "netdiag: hints on {} ({} to {} tokens/s); watching {flows} flows by {source} every {} s",
        server.place(),
        range.min(),
        range.max(),
        every.as_secs_f64(),
    ));
    let publishing = pushed_to
        .map(|bus| Publishing::start(bus, member, newest.clone(), own_peers.clone(), &stop))
        .transpose()?;
    let given_up = GivenUp::default();
    let options = netdiag_hints::Options {
        range,
        stale_after,
        when_stale: args.stale.when_stale,
        exposure: server.exposure().clone(),
        bus: publishing.as_ref().map(|publishing| Arc::clone(&publishing.status)),
        given_up: given_up.clone(),
        exports: export.as_ref().map(Export::status),
        pseudonyms,
    };
    let (router, scrape) = router_and_metrics(newest.clone(), options);
    let mut scrapes = vec![scrape];
    let looking = match dashboard.zip(feed) {
        Some((dashboard, feed)) => {
            say(&format!("netdiag: dashboard on {}", dashboard.place()));
            let flows = dashboard::flows(newest.clone(), stale_after, args.stale.when_stale);
            let documents = Documents { streams: Some(flows), machine, ..Documents::default() };
            // What becomes of exports is told once.
            let (thread, scrape) = dashboard.start(feed, documents, None, &stop)?;
            scrapes.push(scrape);
            Some(thread)
        }
        None => None,
    };
    let exporting = export
        .map(|export| {
            say(&format!("netdiag: metrics to {}", export.place()));
            export.start(scrapes, move |found| own_peers.set("otlp", found), &stop)
        })
        .transpose()?;
    let served = server.run(router, given_up, &stop);
    stop.ask();
    let published = publishing.map_or(Ok(()), Publishing::join);
    let exported = exporting.map_or(Ok(()), Exporting::join);
    let looked = looking.map_or(Ok(()), |thread| {
        thread.join().map_err(|_| anyhow::anyhow!("the dashboard's thread panicked"))?
    });
    let sampled = sampler.join();
    if let Some(writer) = csv.writer.take() {
        // Its failure has been logged when it happened.
        let _ = writer.join();
    }
    status.clear();
    served.and(looked).and(sampled).and(published).and(exported)
}

impl Args {
    /// It writes a file if it is told to, and connects to a bus and a collector if there are such.
    fn confinement(&self, connects: bool) -> Confinement {
        let writes = self.csv.iter().filter(|path| !is_stdout(path)).cloned().collect();
        Confinement::new(self.sandbox, Needs { writes, connects, ..Needs::default() })
    }
}

/// What becomes of each look at the flows.
struct Hints {
    pacers: Pacers,
    /// Behind the board nobody knows addresses, if there are any.
    pseudonyms: Option<Pseudonyms>,
    boards: watch::Sender<Arc<Board>>,
    feed: Option<Feed>,
    status: StatusLine,
    rows: Option<RowSender>,
    written: Option<Arc<AtomicU64>>,
}

impl Watcher for Hints {
    fn take(&mut self, flows: &[FlowSnapshot], now: Duration, interval: Option<&Interval<'_>>) {
        let mut board = self.pacers.take(flows, now, interval);
        board.lost = match interval {
            Some(interval) => lost(interval.losses),
            None => self.boards.borrow().lost.clone(),
        };
        if let Some(pseudonyms) = &self.pseudonyms {
            board = board.anonymised(pseudonyms);
        }
        let board = Arc::new(board);
        self.boards.send_replace(Arc::clone(&board));
        let Some(interval) = interval else { return };
        if self.status.is_shown() {
            self.status.set(status::with_hint(&board.host, interval.tick, self.written.as_deref()));
        }
        if let Some(feed) = &self.feed {
            let point = Point::new(&interval.tick.host.sample, &board.host);
            feed.push(point, board.host.clone(), board.sampled_at);
        }
        if let Some(rows) = &mut self.rows {
            rows.send(&interval.tick.host);
        }
    }
}

fn bind_dashboard(args: &Args, places: &Places) -> anyhow::Result<Option<Dashboard>> {
    if args.no_dashboard {
        return Ok(None);
    }
    let address = args.dashboard.dashboard_listen.socket(DASHBOARD_PORT);
    let flags = "--dashboard-listen ADDR:PORT, or have none with --no-dashboard";
    Dashboard::bind(address, &args.server.access, flags, places).map(Some)
}

/// What the dashboard shows until there is an interval.
fn feed(staleness: Staleness, hint: Hint) -> Feed {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let label = Label {
        mode: Mode::Up,
        telemetry: host,
        has_streams: true,
        has_gateway: false,
        has_fleet: false,
        has_machine: true,
    };
    Feed::new(label, staleness, hint)
}

/// The file beside the hints, if one is wanted.
struct Csv {
    sender: Option<RowSender>,
    writer: Option<RowWriter>,
    written: Option<Arc<AtomicU64>>,
}

impl Csv {
    fn open(args: &Args, stop: &Stop, confinement: &Confinement) -> anyhow::Result<Self> {
        let Some(path) = &args.csv else {
            return Ok(Self { sender: None, writer: None, written: None });
        };
        let mut file = CsvSink::open(path, args.rows.max_samples.get(), stop)?;
        let (sender, writer) = rows::start(
            move |row| file.append(row),
            |error| tracing::error!("{error:#}; hints go on without the file until a restart"),
            stop.clone(),
            confinement.clone(),
        )?;
        Ok(Self { sender: Some(sender), written: Some(writer.written()), writer: Some(writer) })
    }
}

fn lost(losses: Losses) -> Vec<(&'static str, u64)> {
    let Losses { flows, rtt_samples, closings } = losses;
    vec![("flows", flows), ("rtt_samples", rtt_samples), ("closings", closings)]
}
