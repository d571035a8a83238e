//! `netdiag dashboard`: the page alone, on a CSV that another process writes or on a running hint server.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use netdiag_dashboard::{Document, Feed, Label, Mode, Point, Staleness, flows_json};
use netdiag_http::Pseudonyms;
use netdiag_pacer::{Hint, TpsRange};
use netdiag_telemetry::{Row, Scope};
use tokio::time::Instant;

use crate::args::anonymise::AnonymiseArgs;
use crate::args::otlp::OtlpArgs;
use crate::args::secret::token;
use crate::args::values::{self, DASHBOARD_PORT, ListenAddr, ServerUrl};
use crate::args::{AccessArgs, ModelArgs, RateArgs, SandboxArgs, StaleArgs};
use crate::confine::{Confinement, Needs};
use crate::csv_file::{CsvPacer, POLL, STALE_AFTER};
use crate::dashboard::{Dashboard, Documents, machine};
use crate::failure::{self, UsageError};
use crate::models::Models;
use crate::otlp::{Export, Exporting};
use crate::paced_link::PacedLink;
use crate::place::Places;
use crate::pseudonymous;
use crate::remote::{RemoteFleet, RemoteGateway};
use crate::remote_hints::{RemoteHints, SILENCE};
use crate::stop::{AskOnDrop, Stop};
use crate::terminal::say;

/// How long a list of flows serves all viewers: it crosses a network.
const FLOWS_KEEP: Duration = Duration::from_millis(900);

/// Show links, anomaly light and token rate in a browser, on what another process measures
///
/// Follows a CSV file that `netdiag agent` or `up` writes, or a hint server that runs elsewhere. (`netdiag up` has the same
/// dashboard built in.) Nothing is measured here, and no privileges are needed. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Serve the dashboard on this address: ADDR or ADDR:PORT.
    ///
    /// An IP address or `localhost`, IPv6 in brackets. Port 0 takes any free port; the one taken is printed at the start. An
    /// address that others can reach needs --auth-token-file or --no-auth.
    #[arg(long = "dashboard-listen", visible_alias = "listen", value_name = "ADDR:PORT", env = "NETDIAG_DASHBOARD_LISTEN",
          default_value = "127.0.0.1:8501", value_parser = values::dashboard_listen, help_heading = "Dashboard")]
    dashboard_listen: ListenAddr,

    /// Follow this file.
    ///
    /// A file in the format of `net_data.csv` that another process writes. Judged here, by the flags below. If it is absent, the
    /// page says so until it appears.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_CSV",
        default_value = "net_data.csv",
        help_heading = "Input"
    )]
    csv: PathBuf,

    /// Follow this hint server instead of a file.
    ///
    /// http://HOST or http://HOST:PORT of a running `netdiag up` or `serve`, whose judgement is shown; the flags for rates, model
    /// and stale telemetry are its own then. The page shows what comes from now on. Default: none; a file is followed.
    #[arg(long, value_name = "URL", env = "NETDIAG_HINTS", hide_env_values = true, help_heading = "Input", value_parser = values::hint_url)]
    hints: Option<ServerUrl>,

    /// Show the hint server the token in this file.
    ///
    /// The one of its --auth-token-file. Only with --hints. Default: no token is shown.
    #[arg(long, value_name = "FILE", env = "NETDIAG_HINTS_TOKEN_FILE", help_heading = "Input")]
    hints_token_file: Option<PathBuf>,

    /// Show the streams of this gateway in the view "Streams".
    ///
    /// http://HOST or http://HOST:PORT, the --admin-listen address of a running `netdiag gateway`. Beside a file or a hint server.
    /// Default: no gateway's streams.
    #[arg(long, value_name = "URL", env = "NETDIAG_GATEWAY", hide_env_values = true, help_heading = "Input", value_parser = values::gateway_url)]
    gateway: Option<ServerUrl>,

    /// Show the gateway the token in this file.
    ///
    /// The one of its --auth-token-file. Only with --gateway. Default: no token is shown.
    #[arg(long, value_name = "FILE", env = "NETDIAG_GATEWAY_TOKEN_FILE", help_heading = "Input")]
    gateway_token_file: Option<PathBuf>,

    /// Show the fleet of this process in the view "Fleet" (repeatable).
    ///
    /// http://HOST or http://HOST:PORT, the --listen address of a running `netdiag fleet`. Of several any that answers will do, since all
    /// know the same: name those that may lead. Separate with commas, or repeat the flag. Beside a file or a hint server. Default: no fleet.
    #[arg(long, value_name = "URL", env = "NETDIAG_FLEET", hide_env_values = true, value_delimiter = ',', help_heading = "Input", value_parser = values::fleet_url)]
    fleet: Vec<ServerUrl>,

    /// Show the fleet's process the token in this file.
    ///
    /// The one of its --auth-token-file. Only with --fleet. Default: no token is shown.
    #[arg(long, value_name = "FILE", env = "NETDIAG_FLEET_TOKEN_FILE", help_heading = "Input")]
    fleet_token_file: Option<PathBuf>,

    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    stale: StaleArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
    #[command(flatten)]
    anonymise: AnonymiseArgs,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    if args.hints.is_some() && places.is_flag("hints") && places.is_flag("csv") {
        return Err(UsageError::new(
            "--csv and --hints are two sources for one page: give one of them",
        )
        .into());
    }
    if args.hints.is_none() && places.is_flag("hints_token_file") {
        return Err(UsageError::new(
            "--hints-token-file is for a hint server: give --hints URL, too",
        )
        .into());
    }
    if args.gateway.is_none() && places.is_flag("gateway_token_file") {
        return Err(UsageError::new(
            "--gateway-token-file is for a gateway: give --gateway URL, too",
        )
        .into());
    }
    if args.fleet.is_empty() && places.is_flag("fleet_token_file") {
        return Err(UsageError::new(
            "--fleet-token-file is for a fleet's process: give --fleet URL, too",
        )
        .into());
    }
    let range = args.rates.validate(places)?;
    let pseudonyms = args.anonymise.validate(places)?;
    let others = Documents {
        gateway: args.gateway_document(pseudonyms.clone(), places)?,
        fleet: args.fleet_document(places)?,
        ..Documents::default()
    };
    let stop = Stop::on_signals()?;
    let address = args.dashboard_listen.socket(DASHBOARD_PORT);
    let dashboard = Dashboard::bind(address, &args.access, "--dashboard-listen ADDR:PORT", places)?;
    let export =
        args.otlp.validate("netdiag-dashboard", dashboard.instance(), places)?.map(Export::new);
    let exports = export.as_ref().map(Export::status);
    let staleness = Staleness {
        after: args.stale.stale_after.unwrap_or(STALE_AFTER),
        policy: args.stale.when_stale,
    };
    let place = dashboard.place();
    // A flag wins over a variable, also over that of another flag.
    let hints = args.hints.as_ref().filter(|_| places.is_flag("hints") || !places.is_flag("csv"));
    let confinement = args.confinement(hints.is_some(), export.is_some());
    let machine = match hints {
        Some(_) => None,
        // Before anything is given up that it takes to examine it.
        None => Some(machine(&confinement)?),
    };
    let (source, told, (server, scrape)) = match hints {
        Some(url) => {
            let token = token(args.hints_token_file.as_deref(), "hints_token_file", places)?;
            let remote = RemoteHints { url: url.clone(), token };
            confinement.enter_and_tell(None);
            let label = label(Mode::Hints, url.to_string(), true, &others);
            // What is stale there is the server's to say, as long as it is heard.
            let staleness = Staleness { after: SILENCE, ..staleness };
            let feed = Feed::new(label, staleness, nothing_yet(range));
            let streams = Some(flows(remote.clone(), pseudonyms));
            let documents = Documents { streams, ..others };
            let server = dashboard.start(feed.clone(), documents, exports, &stop)?;
            (follow_server(remote, feed, &stop)?, url.to_string(), server)
        }
        None => {
            let models = Models::new(args.model.load(places)?);
            let label = label(Mode::Csv, args.csv.display().to_string(), false, &others);
            let feed = Feed::new(label, staleness, nothing_yet(range));
            let (pacer, present) = CsvPacer::start(&args.csv, range, models, shown(&feed))?;
            feed.set_hint(pacer.hint(), pacer.sampled_at().map(Into::into));
            confinement.enter_and_tell(None);
            let documents = Documents { machine, ..others };
            let server = dashboard.start(feed.clone(), documents, exports, &stop)?;
            let waiting = if present { "" } else { " (not there yet)" };
            let told = format!("{}{waiting}", args.csv.display());
            (follow_file(pacer, feed, &stop)?, told, server)
        }
    };
    say(&format!("netdiag: dashboard on {place}; following {told}"));
    let exporting = export.map(|export| export.start(vec![scrape], |_| (), &stop)).transpose()?;
    let served = server.join().map_err(|_| anyhow::anyhow!("the dashboard's thread panicked"))?;
    stop.ask();
    let followed = source.join().map_err(|_| anyhow::anyhow!("the following thread panicked"));
    let exported = exporting.map_or(Ok(()), Exporting::join);
    served.and(followed).and(exported)
}

impl Args {
    /// It follows a file, or asks a server; and a gateway and a fleet, if there are such. Metrics may go to a collector.
    fn confinement(&self, asks_hints: bool, exports: bool) -> Confinement {
        let reads = if asks_hints { Vec::new() } else { vec![self.csv.clone()] };
        let asks_others = self.gateway.is_some() || !self.fleet.is_empty();
        let connects = asks_hints || asks_others || exports;
        Confinement::new(self.sandbox, Needs { reads, connects, ..Needs::default() })
    }

    /// What a gateway lists, if there is one.
    fn gateway_document(
        &self,
        pseudonyms: Option<Pseudonyms>,
        places: &Places,
    ) -> Result<Option<Document>, UsageError> {
        let Some(url) = self.gateway.clone() else { return Ok(None) };
        let token = token(self.gateway_token_file.as_deref(), "gateway_token_file", places)?;
        let remote = RemoteGateway { url, token };
        Ok(Some(Document::new(FLOWS_KEEP, move || {
            let asked = one_thread().context("cannot ask");
            let listed = asked.and_then(|runtime| runtime.block_on(remote.streams()));
            let listed = listed.and_then(|json| match &pseudonyms {
                Some(pseudonyms) => pseudonymous::streams(&json, pseudonyms),
                None => Ok(json),
            });
            listed.map_err(|error| format!("{}: {}", remote.url, failure::chain(&error)))
        })))
    }

    /// What the processes of a fleet know, if any is named.
    fn fleet_document(&self, places: &Places) -> Result<Option<Document>, UsageError> {
        if self.fleet.is_empty() {
            return Ok(None);
        }
        let token = token(self.fleet_token_file.as_deref(), "fleet_token_file", places)?;
        let remote = RemoteFleet::new(self.fleet.clone(), token);
        Ok(Some(Document::new(FLOWS_KEEP, move || {
            let asked = one_thread().context("cannot ask");
            let view = asked.and_then(|runtime| runtime.block_on(remote.view()));
            view.map_err(|error| failure::chain(&error))
        })))
    }
}

fn label(mode: Mode, telemetry: String, has_streams: bool, others: &Documents) -> Label {
    Label {
        mode,
        telemetry,
        has_streams,
        has_gateway: others.gateway.is_some(),
        has_fleet: others.fleet.is_some(),
        has_machine: mode != Mode::Hints,
    }
}

fn nothing_yet(range: TpsRange) -> Hint {
    Hint::unknown(range, &Scope::Host, "no telemetry yet")
}

/// Puts rows of a file on the page, as new ones. Those that were there before are older, which is told once all are on it.
fn shown(feed: &Feed) -> impl FnMut(&Row, &PacedLink) {
    let feed = feed.clone();
    move |row, link| {
        let hint = link.hint(&Scope::Host);
        feed.push(Point::new(&row.sample, &hint), hint, Some(Instant::now()));
    }
}

fn follow_file(mut pacer: CsvPacer, feed: Feed, stop: &Stop) -> anyhow::Result<JoinHandle<()>> {
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || {
            let _end = AskOnDrop(&stop);
            while !stop.wait(POLL) {
                if pacer.keep_up(shown(&feed)) {
                    feed.set_hint(pacer.hint(), pacer.sampled_at().map(Into::into));
                }
            }
        })
        .context("cannot start the thread that follows the file")
}

fn follow_server(remote: RemoteHints, feed: Feed, stop: &Stop) -> anyhow::Result<JoinHandle<()>> {
    let runtime = one_thread().context("cannot start following the hint server")?;
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || {
            let _end = AskOnDrop(&stop);
            runtime.block_on(async {
                tokio::select! {
                    () = remote.follow(&feed) => {}
                    () = stop.asked() => {}
                }
            });
        })
        .context("cannot start the thread that follows the hint server")
}

/// The flows that a hint server lists.
fn flows(remote: RemoteHints, pseudonyms: Option<Pseudonyms>) -> Document {
    Document::new(FLOWS_KEEP, move || {
        let asked = one_thread().context("cannot ask").and_then(|runtime| {
            let mut flows = runtime.block_on(remote.flows())?;
            if let Some(pseudonyms) = &pseudonyms {
                flows = pseudonymous::flows(flows, pseudonyms);
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            flows_json(now.as_secs_f64(), flows).map_err(anyhow::Error::msg)
        });
        asked.map_err(|error| format!("{}: {}", remote.url, failure::chain(&error)))
    })
}

fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
