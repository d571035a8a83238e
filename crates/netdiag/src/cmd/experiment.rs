//! `netdiag experiment`: the whole loop in a lab of its own, paced and unpaced side by side, with a report.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_dashboard::Feed;
use netdiag_lab::{LabError, PhaseKind, Scenario};
use netdiag_pacer::TpsRange;
use netdiag_probe::SourceChoice;

use crate::args::values::DASHBOARD_PORT;
use crate::args::{AccessArgs, DashboardArgs, RateArgs, values};
use crate::chaos::values::run_time;
use crate::dashboard::{Dashboard, machine};
use crate::experiment::{
    self, Arm, ArmData, Conditions, CpuMeter, EndedArm, PhaseSpan, Policy, Record, Shown, WORKER,
};
use crate::failure::UsageError;
use crate::output;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::{StatusLine, say};

/// Most clients with a link of their own per arm; streams beyond share theirs.
const CLIENTS: usize = 8;

/// How often something is told while it runs.
const TELL: Duration = Duration::from_millis(500);

/// Run the same faults with and without pacing, on this kernel's real TCP, and report what came of it
///
/// Sets up emulated links in network namespaces of its own, an engine that streams tokens without a model, and clients that read
/// them; plays a scenario of good and bad links to all arms at the same time; and writes report.html, summary.json,
/// timeline.png, net_data.csv, hints.csv and tokens.csv. Nothing outside its namespaces is touched, and nothing is left of them
/// however it ends. Without root it makes itself a user namespace, where the kernel allows that, and measures with sock_diag.
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

    /// Run this many streams per arm.
    ///
    /// From 1 to 200. Up to eight have a link of their own; more share one with others.
    #[arg(long, value_name = "N", env = "NETDIAG_STREAMS", default_value = "8", value_parser = values::streams, help_heading = "Experiment")]
    streams: usize,

    /// Let the scenario take this long, in seconds.
    ///
    /// From 10 milliseconds to a day, in seconds or with a unit (60s, 5m), and long enough for every phase of the scenario, which is
    /// repeated as often as brings it nearest, and then stretched or shortened.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_EXPERIMENT_DURATION", default_value = "60", value_parser = run_time, help_heading = "Experiment")]
    duration: Duration,

    /// Compare these arms: a list of none and classic.
    ///
    /// `none` generates as fast as --max-tps, `classic` at the rate that is recommended. They run at the same time.
    #[arg(long, value_name = "ARMS", env = "NETDIAG_ARMS", default_value = "none,classic", value_delimiter = ',', value_parser = values::arm, help_heading = "Experiment")]
    arms: Vec<Policy>,

    /// Write the results into this folder.
    ///
    /// Made if it is not there; files of an earlier run are replaced.
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
    let range = args.rates.validate(places)?;
    for (index, arm) in args.arms.iter().enumerate() {
        if args.arms[..index].contains(arm) {
            let names: Vec<&str> = args.arms.iter().map(|arm| arm.name()).collect();
            return Err(UsageError::new(format!(
                "{}: {} is named twice; name each arm once",
                places.named("arms", names.join(",")),
                arm.name()
            ))
            .into());
        }
    }
    let wrong = |error: &dyn std::fmt::Display| {
        UsageError::new(format!("{}: {error}", places.named("scenario", &args.scenario)))
    };
    let scenario = Scenario::open(&args.scenario).map_err(|error| wrong(&error))?;
    let scenario = scenario.fit(args.duration).map_err(|error| wrong(&error))?;
    let clients = scenario.divide(args.streams.min(CLIENTS)).map_err(|error| wrong(&error))?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    // Before this process leaves the network in which somebody looks.
    let dashboard = args
        .serve_dashboard
        .then(|| {
            let address = args.dashboard.dashboard_listen.socket(DASHBOARD_PORT);
            Dashboard::bind(address, &args.access, "--dashboard-listen ADDR:PORT")
        })
        .transpose()?;
    let source = privileges()?;
    let stop = Stop::on_signals()?;
    let schedules = scenario.schedules();
    let conditions = Conditions {
        schedules: schedules
            .iter()
            .zip(clients)
            .flat_map(|(schedule, clients)| vec![schedule.clone(); clients])
            .collect(),
        seed: scenario.seed(),
        streams: args.streams,
        range,
        interval: TELL,
        source,
        duration: scenario.duration(),
    };
    let phases = phases(&scenario);
    let shown = dashboard
        .map(|dashboard| {
            say(&format!("netdiag: dashboard on {}", dashboard.place()));
            let feed = experiment::feed(range);
            feed.begin_experiment(experiment::about(&scenario, &phases, args.streams, &args.arms));
            let thread = dashboard.start(feed.clone(), None, Some(machine()), &stop)?;
            Ok::<_, anyhow::Error>((feed, thread))
        })
        .transpose()?;
    let looking = shown.as_ref().map(|(feed, _)| feed);
    let compared = compare(args, &scenario, &conditions, phases, range, looking, &stop);
    if let (Err(_), Some(feed)) = (&compared, looking) {
        feed.end_experiment(None);
    }
    let (record, data) = compared?;
    let mut told = experiment::table(&record) + "\n";
    for sentence in experiment::findings(&record).into_iter().chain([record.cpu.sentence()]) {
        told += &(sentence + "\n");
    }
    // First what needs no room on a disk.
    output::print(&told)?;
    experiment::write(&args.out, &record, &data)?;
    say(&format!("netdiag: report in {}", args.out.join("report.html").display()));
    if let Some((feed, thread)) = shown {
        feed.end_experiment(Some(experiment::report(&record).into_bytes()));
        say("netdiag: the dashboard stays until SIGINT or SIGTERM (Ctrl-C)");
        thread.join().map_err(|_| anyhow::anyhow!("the dashboard's thread panicked"))??;
    }
    Ok(())
}

fn compare(
    args: &Args,
    scenario: &Scenario,
    conditions: &Conditions,
    phases: Vec<PhaseSpan>,
    range: TpsRange,
    feed: Option<&Feed>,
    stop: &Stop,
) -> anyhow::Result<(Record, Vec<ArmData>)> {
    // The arms end with the experiment; who looks at it may stay.
    let measuring = Stop::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(WORKER)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let prepared: Vec<Arm> = args
        .arms
        .iter()
        .enumerate()
        .map(|(number, policy)| {
            let is_last = number + 1 == args.arms.len();
            let shown =
                feed.map(|feed| Shown { feed: feed.clone(), arm: number, is_host: is_last });
            Arm::prepare(*policy, conditions, runtime.handle(), shown, &measuring)
        })
        .collect::<Result<_, _>>()?;
    let source = prepared.first().map_or("none", |arm| arm.source().as_str()).to_owned();
    say(&format!(
        "netdiag: {}: {} ({} arms, {} streams each, {:.0} s, by {source})",
        scenario.name(),
        scenario.description(),
        prepared.len(),
        args.streams,
        conditions.duration.as_secs_f64()
    ));
    let meter = CpuMeter::start();
    let began = Instant::now();
    let running: Vec<_> = prepared
        .into_iter()
        .map(|arm| arm.begin(conditions, runtime.handle()))
        .collect::<Result<_, _>>()?;
    let status = StatusLine::start_beside(None);
    let mut told = "";
    let mut interrupted = false;
    while began.elapsed() < conditions.duration {
        if stop.wait(TELL.min(conditions.duration.saturating_sub(began.elapsed()))) {
            interrupted = true;
            break;
        }
        let now = began.elapsed().as_secs_f64();
        let phase = phases
            .iter()
            .rev()
            .find(|phase| now >= phase.from_seconds)
            .map_or("", |phase| phase.name.as_str());
        let arms: Vec<String> = running
            .iter()
            .map(|arm| {
                let Some(tick) = arm.newest() else { return format!("{} –", arm.name()) };
                let rtt = tick.p95_rtt_ms.map_or("–".to_owned(), |ms| format!("{ms:.0} ms"));
                format!(
                    "{} {:.0} tok/s, health {:.2}, {rtt}, {} resent",
                    arm.name(),
                    tick.generated_tps,
                    tick.health,
                    tick.retrans_segs
                )
            })
            .collect();
        let line = format!("{now:>3.0} s {phase} │ {}", arms.join(" │ "));
        if status.is_shown() {
            status.set(line);
        } else if phase != told {
            say(&line);
            told = phase;
        }
    }
    status.clear();
    anyhow::ensure!(
        !interrupted,
        "interrupted after {:.0} s; nothing was written",
        began.elapsed().as_secs_f64()
    );
    let cpu = meter.used();
    let ended: Vec<EndedArm> =
        running.into_iter().map(|arm| arm.end(runtime.handle())).collect::<Result<_, _>>()?;
    let counts: Vec<_> = ended.iter().map(EndedArm::count).collect();
    // Samplers end with the stop; what they measured is there.
    measuring.ask();
    let mut record = Record {
        format: "netdiag-experiment/1",
        scenario: scenario.name().to_owned(),
        description: scenario.description().to_owned(),
        seed: scenario.seed(),
        seconds: conditions.duration.as_secs_f64(),
        streams: args.streams,
        min_tps: range.min().get(),
        max_tps: range.max().get(),
        source,
        cpu,
        phases,
        arms: Vec::new(),
    };
    let mut data = Vec::new();
    for (arm, tokens) in ended.into_iter().zip(counts) {
        let (arm, left) = arm.close(tokens, conditions, &record.phases)?;
        record.arms.push(arm);
        data.push(left);
    }
    runtime.shutdown_background();
    Ok((record, data))
}

fn phases(scenario: &Scenario) -> Vec<PhaseSpan> {
    let mut start = 0.0;
    let span = |phase: &netdiag_lab::Phase| {
        let from_seconds = start;
        start += phase.duration().as_secs_f64();
        PhaseSpan {
            name: phase.name().to_owned(),
            kind: phase.kind().name(),
            from_seconds,
            to_seconds: start,
            fault: phase.kind() != PhaseKind::Calm,
        }
    };
    scenario.phases().iter().map(span).collect()
}

/// Makes sure that a lab can be set up, and says what can measure in it.
fn privileges() -> anyhow::Result<SourceChoice> {
    if rustix::process::geteuid().is_root() {
        return Ok(SourceChoice::Auto);
    }
    netdiag_lab::enter_user_namespace().map_err(|error: LabError| {
        let remedy = "run it as root, or allow user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, and on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)";
        UsageError::because(format!("an experiment needs network namespaces; {remedy}"), error)
    })?;
    Ok(SourceChoice::Sockdiag)
}
