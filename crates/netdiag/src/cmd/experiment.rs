//! `netdiag experiment`: the whole loop in a lab of its own, paced and unpaced side by side, with a report.

use std::path::PathBuf;
use std::time::Duration;

use netdiag_lab::{InvalidDivision, Scenario, ScenarioError};

use crate::args::values::DASHBOARD_PORT;
use crate::args::{AccessArgs, DashboardArgs, RateArgs, values};
use crate::chaos::values::run_time;
use crate::config_file::alike;
use crate::confine::Confinement;
use crate::dashboard::{Dashboard, Documents, machine};
use crate::experiment::{self, Conditions, Ended, Folder, Plan, Policy, Ran, Record, TELL, Via};
use crate::failure::UsageError;
use crate::open_files::raise_limit;
use crate::output;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// The most streams, of an arm, and so the most clients that groups can count.
const MOST_STREAMS: usize = 200;

/// Run the same faults with and without pacing, on this kernel's real TCP, and report what came of it
///
/// Sets up emulated links in network namespaces of its own, an engine that streams tokens without a model, and clients that read
/// them; plays a scenario of good and bad links to all arms at the same time; and writes report.html, summary.json,
/// timeline.png, net_data.csv, hints.csv and tokens.csv. Nothing outside its namespaces is touched, and nothing is left of them
/// however it ends. Where it may not make namespaces it makes itself a user namespace, if the kernel allows that, and measures with
/// sock_diag.
///
/// SIGINT or SIGTERM ends it early: the report of the time there was is written, marked as cut short, and the exit code is 0. Before the
/// arms have begun nothing is written, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Play this scenario: a shipped one's name or a TOML file.
    ///
    /// --list shows the shipped ones. A name with a slash or a dot in it is a file.
    #[arg(
        long,
        value_name = "NAME|FILE",
        env = "NETDIAG_SCENARIO",
        default_value = "flaky-wifi",
        help_heading = "Experiment"
    )]
    scenario: String,

    /// List the shipped scenarios and end.
    ///
    /// Default: not asked for.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_LIST", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Experiment")]
    list: bool,

    /// Print a shipped scenario, to begin one's own with, and end.
    ///
    /// docs/scenarios.md explains the format. Default: none is printed.
    #[arg(long, value_name = "NAME", env = "NETDIAG_SHOW", help_heading = "Experiment")]
    show: Option<String>,

    /// Run this many streams per arm.
    ///
    /// From 1 to 200. Up to eight have a link of their own, or as many as the scenario's groups count; more share one with others.
    /// The engine has 32 seats, so that streams beyond wait in its queue.
    #[arg(long, value_name = "N", env = "NETDIAG_STREAMS", default_value = "8", value_parser = values::streams, help_heading = "Experiment")]
    streams: usize,

    /// Let the scenario take this long, in seconds.
    ///
    /// From 10 milliseconds to a day, in seconds or with a unit (60s, 5m), and long enough for every phase of the scenario, which is
    /// repeated as often as brings it nearest, and then stretched or shortened. Below 30s most phases are shorter than the rate takes to
    /// follow. The arrival of every token is kept until the end, so that ten million of them are the most: two hours of the default
    /// streams.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_EXPERIMENT_DURATION", default_value = "60", value_parser = run_time, help_heading = "Experiment")]
    duration: Duration,

    /// Draw other questions and readers than the scenario's seed does.
    ///
    /// From 0 to 18446744073709551615. Lengths of answers and who loses patience come from it; links lose the same packets whatever it
    /// is. `netdiag simulate --scenario` with the same one expects the same readers. Default: the scenario's seed.
    #[arg(long, value_name = "N", env = "NETDIAG_EXPERIMENT_SEED", value_parser = values::seed, help_heading = "Experiment")]
    seed: Option<u64>,

    /// Compare these arms: a list of none, classic and carry.
    ///
    /// `none` generates as fast as --max-tps, `classic` at the rate that is recommended for its client by health, `carry` at the one
    /// that its own connection carries, as `netdiag up` finds it. They run at the same time.
    #[arg(long, value_name = "ARMS", env = "NETDIAG_ARMS", default_value = "none,classic,carry", value_delimiter = ',', value_parser = values::arm, help_heading = "Experiment")]
    arms: Vec<Policy>,

    /// Let clients connect to this: the engine, or the gateway before it.
    ///
    /// With `gateway` each arm has one in the server's namespace, as `netdiag gateway` is: in arm `none` without pacing, in arm `carry`
    /// with it, and with --engine netdiag. There is no `classic` then, because the gateway has no pace by health. What counts
    /// as delivered is what clients have read, and the recommended rates are what `netdiag up` would say beside the gateway.
    #[arg(long, value_name = "WHAT", env = "NETDIAG_VIA", default_value = "engine", hide_possible_values = true,
          value_parser = values::via(), help_heading = "Experiment")]
    via: Via,

    /// Write the results into this folder.
    ///
    /// Made if it is not there; files of an earlier run are replaced, all of them or none.
    #[arg(
        long,
        value_name = "DIR",
        env = "NETDIAG_OUT_DIR",
        default_value = "experiment",
        help_heading = "Output"
    )]
    out: PathBuf,

    /// Show the experiment in a browser while it runs, and its report afterwards.
    ///
    /// On the address of --dashboard-listen. The command then goes on after the end of the experiment, so that the report can
    /// be read, until SIGINT or SIGTERM. Default: no dashboard.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_SERVE_DASHBOARD", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Dashboard")]
    serve_dashboard: bool,

    #[command(flatten)]
    dashboard: DashboardArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    rates: RateArgs,
}

/// Runs once.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    if args.list {
        for name in Scenario::builtin_names() {
            let scenario = Scenario::builtin(name)?;
            output::print(&format!("{name:<16} {}\n", scenario.description()))?;
        }
        return Ok(());
    }
    if let Some(name) = &args.show {
        return output::print(shipped(name, places)?);
    }
    let range = args.rates.validate(places)?;
    if places.is_flag("dashboard_listen") && !args.serve_dashboard {
        return Err(UsageError::new(
            "--dashboard-listen is for a dashboard: give --serve-dashboard, too",
        )
        .into());
    }
    let arms = &check_arms(args, places)?;
    let natural = open_scenario(&args.scenario, places)?;
    let scenario = natural.fit(args.duration).map_err(|error| {
        let given = places.named("duration", format_args!("{:?}", args.duration));
        UsageError::new(format!("{given}: {error}"))
    })?;
    let mut conditions = Conditions::new(&scenario, args.streams, range, TELL)
        .map_err(|error| wrong_division(&error, &args.scenario, args.streams, places))?;
    conditions.via = args.via;
    conditions.reader_seed = args.seed.unwrap_or(conditions.reader_seed);
    check_room(&conditions, arms.len(), args, places)?;
    // Before this process leaves the network in which somebody looks.
    let dashboard = args
        .serve_dashboard
        .then(|| {
            let address = args.dashboard.dashboard_listen.socket(DASHBOARD_PORT);
            Dashboard::bind(address, &args.access, "--dashboard-listen ADDR:PORT", places)
        })
        .transpose()?;
    conditions.source = experiment::acquire_privileges()?;
    let folder = Folder::prepare(&args.out, &places.named("out", args.out.display()))?;
    let stop = Stop::on_signals()?;
    let phases = experiment::spans(&scenario);
    let notes: Vec<String> =
        experiment::too_short(&phases, &experiment::spans(&natural)).into_iter().collect();
    for note in &notes {
        tracing::warn!("{note}");
    }
    let shown = dashboard
        .map(|dashboard| {
            say(&format!("netdiag: dashboard on {}", dashboard.place()));
            let feed = experiment::feed(range);
            feed.begin_experiment(experiment::about(&scenario, &phases, args.streams, arms));
            let documents =
                Documents { machine: Some(machine(&Confinement::none())?), ..Documents::default() };
            let (thread, _) = dashboard.start(feed.clone(), documents, None, &stop)?;
            Ok::<_, anyhow::Error>((feed, thread))
        })
        .transpose()?;
    let feed = shown.as_ref().map(|(feed, _)| feed);
    let plan = Plan { scenario: &scenario, arms, conditions, phases, notes, command: command() };
    let ran = experiment::run(plan, feed, &stop);
    if let (Err(_) | Ok(None), Some(feed)) = (&ran, feed) {
        feed.end_experiment(None);
    }
    let Some(Ran { record, data, ended }) = ran? else {
        anyhow::bail!("interrupted before it began; nothing was written");
    };
    // Files and words do not wait for each other: neither a full disk nor a full pipe shall cost the other.
    let written = experiment::write(&folder, &record, &data);
    let printed = output::print(&told(&record));
    if written.is_ok() {
        say(&format!("netdiag: report in {}", folder.report().display()));
    }
    if let (Err(_), Err(error)) = (&written, &printed) {
        tracing::error!("{error:#}");
    }
    written.and(printed)?;
    anyhow::ensure!(
        !matches!(ended, Ended::ProbeLost | Ended::LinksLost),
        "telemetry or links of an arm ended early, so the report has {:.0} s of {:.0} s; the log says why",
        record.seconds,
        record.planned_seconds
    );
    if let Some((feed, thread)) = shown {
        feed.end_experiment(Some(experiment::report(&record).into_bytes()));
        if ended == Ended::TimeUp {
            say("netdiag: the dashboard stays until SIGINT or SIGTERM (Ctrl-C)");
        }
        thread.join().map_err(|_| anyhow::anyhow!("the dashboard's thread panicked"))??;
    }
    Ok(())
}

/// The text of a shipped scenario.
fn shipped(name: &str, places: &Places) -> Result<&'static str, UsageError> {
    Scenario::builtin_text(name).ok_or_else(|| {
        let remedy = meant(name).unwrap_or_else(|| {
            let known: Vec<&str> = Scenario::builtin_names().collect();
            format!("there are {}", known.join(", "))
        });
        UsageError::new(format!("{}: no such scenario; {remedy}", places.named("show", name)))
    })
}

fn meant(name: &str) -> Option<String> {
    alike(name, Scenario::builtin_names()).map(|meant| format!("did you mean {meant}?"))
}

/// The arms that are to be. Of those that nobody asked for, what cannot be is left out.
fn check_arms(args: &Args, places: &Places) -> Result<Vec<Policy>, UsageError> {
    for (index, arm) in args.arms.iter().enumerate() {
        if args.arms[..index].contains(arm) {
            let names: Vec<&str> = args.arms.iter().map(|arm| arm.name()).collect();
            return Err(UsageError::new(format!(
                "{}: {} is named twice; name each arm once",
                places.named("arms", names.join(",")),
                arm.name()
            )));
        }
    }
    if places.is_default("arms") {
        return Ok(args.arms.iter().copied().filter(|arm| args.via.has(*arm)).collect());
    }
    match args.arms.iter().find(|arm| !args.via.has(**arm)) {
        None => Ok(args.arms.clone()),
        Some(arm) => {
            let names: Vec<&str> = args.arms.iter().map(|arm| arm.name()).collect();
            Err(UsageError::new(format!(
                "{}: the gateway has no arm {}, because it has no pace by health; leave it out",
                places.named("arms", names.join(",")),
                arm.name()
            )))
        }
    }
}

/// A shipped scenario, or one from a file.
pub(super) fn open_scenario(name: &str, places: &Places) -> Result<Scenario, UsageError> {
    Scenario::open(name).map_err(|error| {
        let given = places.named("scenario", name);
        match (&error, meant(name)) {
            (ScenarioError::Unknown { .. }, Some(meant)) => {
                UsageError::new(format!("{given}: no such scenario; {meant}"))
            }
            _ => UsageError::new(format!("{given}: {error}")),
        }
    })
}

pub(super) fn wrong_division(
    error: &InvalidDivision,
    name: &str,
    streams: usize,
    places: &Places,
) -> UsageError {
    let scenario = places.named("scenario", name);
    UsageError::new(match error {
        InvalidDivision::TooFew { counted, .. } if *counted > MOST_STREAMS => format!(
            "{scenario}: its groups count {counted} clients, and {MOST_STREAMS} are the most; count fewer, or give shares"
        ),
        InvalidDivision::TooFew { counted, .. } => format!(
            "{}: the groups of {} count {counted} clients; give --streams {counted} or more",
            places.named("streams", streams),
            name
        ),
        error => format!("{scenario}: {error}"),
    })
}

/// Refuses what would fail half-way: more files or more memory than there are.
fn check_room(
    conditions: &Conditions,
    arms: usize,
    args: &Args,
    places: &Places,
) -> Result<(), UsageError> {
    if let Some(longest) = conditions.longest(arms) {
        return Err(UsageError::new(format!(
            "{}: every token's arrival is kept in memory until the end, which lasts for {:.0}s of such streams; shorten it, or give \
             fewer --streams",
            places.named("duration", format_args!("{:?}", args.duration)),
            longest.as_secs_f64().floor()
        )));
    }
    let (needed, limit) = (conditions.open_files(arms), raise_limit());
    if needed > limit {
        return Err(UsageError::new(format!(
            "{}: so many need {needed} open files, and {limit} are allowed; raise that (`ulimit -n {needed}`), or give fewer",
            places.named("streams", args.streams),
        )));
    }
    Ok(())
}

/// What is printed at the end.
fn told(record: &Record) -> String {
    let mut told = experiment::table(record) + "\n";
    for note in &record.notes {
        told += &format!("Note: {note}.\n");
    }
    for sentence in experiment::findings(record).into_iter().chain([record.cpu.sentence()]) {
        told += &(sentence + "\n");
    }
    told
}

/// How this process was called, as one would type it.
fn command() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let words = std::env::args_os().skip(1).map(|word| {
        let word = word.to_string_lossy().into_owned();
        let is_plain = !word.is_empty() && word.chars().all(plain);
        if is_plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    std::iter::once("netdiag".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
