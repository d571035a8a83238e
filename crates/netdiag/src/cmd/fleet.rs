//! `netdiag fleet`: shares engines among the nodes of a fleet, over the message bus.
//!
//! Invariant: nothing depends on this one process: others that run beside it take over within three seconds, and without any of them nodes
//! go on with what they had.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_hints::bus::{EngineName, FleetSettings, FleetView, NodeName, coordinate};
use netdiag_hints::fleet_router_and_metrics;
use netdiag_http::GivenUp;
use netdiag_telemetry::Tps;
use tokio::sync::watch;

use crate::args::bus::{BrokerArgs, this_node};
use crate::args::otlp::OtlpArgs;
use crate::args::values::{self, EngineCapacity, FLEET_PORT, ListenAddr};
use crate::args::{AccessArgs, SandboxArgs};
use crate::bus;
use crate::confine::{Confinement, Needs};
use crate::failure::UsageError;
use crate::listening::Listening;
use crate::otlp::{Export, Exporting};
use crate::place::Places;
use crate::stop::{AskOnDrop, Stop};
use crate::terminal::{StatusLine, say};

/// How often the status line is renewed.
const REFRESH: Duration = Duration::from_millis(500);

/// Share engines among the streams of many nodes, over the message bus
///
/// For nodes that run `netdiag up --bus URL --shared-engine NAME`: each says what its streams ask of the engine and, where it was
/// given --capacity-tps, what the engine generates. One process finds out how much there is for each and tells all. Run two or
/// three of it: one leads (which takes a server with JetStream), and another takes over within three seconds if it dies. `curl
/// localhost:9002` shows who has what. Runs until SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,

    /// Stand for election under this name.
    ///
    /// 1 to 63 characters of A-Z a-z 0-9 - _; no two processes have the same. Default: the host's name and the process' ID.
    #[arg(long, value_name = "NAME", env = "NETDIAG_FLEET_NODE", value_parser = values::node, help_heading = "Fleet")]
    node: Option<NodeName>,

    /// What an engine generates with all seats taken, ENGINE=TPS (repeatable).
    ///
    /// Wins over what nodes say of it by their --capacity-tps. All processes that may lead should be told the same. Several
    /// engines: repeat the flag, or separate with commas. Default: what nodes say; the least if they disagree.
    #[arg(long, value_name = "ENGINE=TPS", env = "NETDIAG_FLEET_CAPACITY", value_delimiter = ',',
          value_parser = values::engine_capacity, help_heading = "Fleet")]
    capacity: Vec<EngineCapacity>,

    /// Show the fleet on this address: ADDR or ADDR:PORT.
    ///
    /// /v1/fleet (JSON), /metrics, /livez, /readyz. Port 0 takes any free port; the one taken is printed at the start. An address
    /// that others can reach needs --auth-token-file or --no-auth.
    #[arg(long, value_name = "ADDR:PORT", env = "NETDIAG_FLEET_LISTEN", default_value = "127.0.0.1:9002",
          value_parser = values::fleet_listen, help_heading = "Fleet")]
    listen: ListenAddr,

    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// Runs until a signal.
pub(crate) fn run(args: Args, places: &Places) -> anyhow::Result<()> {
    let node =
        args.node.clone().unwrap_or_else(|| NodeName::of_process(&this_node(), std::process::id()));
    let bus = args.broker.settings_or_local("netdiag-fleet", places)?;
    let settings = FleetSettings { node, capacities: capacities(&args.capacity, places)? };
    let stop = Stop::on_signals()?;
    let wanted = args.listen.socket(FLEET_PORT);
    let listening = Listening::bind(wanted, &args.access, "--listen ADDR:PORT", places)?;
    let export =
        args.otlp.validate("netdiag-fleet", listening.instance(), places)?.map(Export::new);
    say(&format!(
        "netdiag: fleet on {}; {} stands for election over {}",
        listening.place(),
        settings.node,
        bus.place(),
    ));
    let needs = Needs { connects: true, ..Needs::default() };
    Confinement::new(args.sandbox, needs).enter_and_tell(None);
    let (known, view) = watch::channel(FleetView::default());
    let status = StatusLine::start_beside(None);
    let telling = tell(status.clone(), view.clone(), stop.clone())?;
    let exports = export.as_ref().map(Export::status);
    let given_up = GivenUp::default();
    let exposure = listening.exposure().clone();
    let (router, scrape) = fleet_router_and_metrics(view, exposure, given_up.clone(), exports);
    let exporting = export.map(|export| export.start(vec![scrape], |_| (), &stop)).transpose()?;
    let (runtime, ending) = (bus::runtime()?, stop.clone());
    let thread = std::thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || {
            let _end = AskOnDrop(&ending);
            runtime.block_on(coordinate(&bus, &settings, &known, ending.asked()));
            // A name that takes its time to be resolved delays nobody.
            runtime.shutdown_background();
        })
        .context("cannot start the message bus's thread")?;
    let served = listening.serve(router, "fleet", 1, given_up, &stop);
    stop.ask();
    let ended = thread.join().map_err(|_| anyhow::anyhow!("the message bus's thread panicked"));
    telling.join().map_err(|_| anyhow::anyhow!("the status line's thread panicked"))?;
    status.clear();
    let exported = exporting.map_or(Ok(()), Exporting::join);
    served.and(ended).and(exported)
}

fn capacities(
    given: &[EngineCapacity],
    places: &Places,
) -> Result<BTreeMap<EngineName, Tps>, UsageError> {
    let mut capacities = BTreeMap::new();
    for EngineCapacity { engine, capacity } in given {
        if let Some(before) = capacities.insert(engine.clone(), *capacity) {
            return Err(UsageError::new(format!(
                "{} is given twice, as {before} and as {capacity}; give it once",
                places.named("capacity", engine),
            )));
        }
    }
    Ok(capacities)
}

fn tell(
    status: StatusLine,
    view: watch::Receiver<FleetView>,
    stop: Stop,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("status".to_owned())
        .spawn(move || {
            while status.is_shown() && !stop.wait(REFRESH) {
                status.set(line(&view.borrow()));
            }
        })
        .context("cannot start the status line's thread")
}

fn line(view: &FleetView) -> String {
    let mut line = match (&view.leader, view.is_leader) {
        _ if !view.is_connected => "no connection to the bus".to_owned(),
        (_, true) => "leads".to_owned(),
        (Some(leader), false) => format!("{leader} leads"),
        (None, false) => "no leader yet".to_owned(),
    };
    for engine in &view.engines {
        let streams: u64 = engine.nodes.iter().map(|node| u64::from(node.streams)).sum();
        let capacity = match engine.capacity_tps {
            Some(capacity) => format!("{capacity:.0}"),
            None => "unknown".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " │ {}: {} nodes, {streams} streams, {:.1} of {capacity} tok/s",
            engine.engine,
            engine.nodes.len(),
            engine.given_tps,
        );
    }
    line
}
