//! `netdiag simulate`: pacing policies against links and loads, in virtual time.
//!
//! The simulator is the lab's and starts no thread; here its runs are spread over the processors. Results are put back in the
//! order of the runs, so that the same settings give the same files however many processors there are.

mod scenario;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_lab::Trace;
use netdiag_lab::sim::{Done, InvalidSetup, Policy, Study, StudyJob, synthetic_traces};
use netdiag_telemetry::Tps;

use crate::args::{RateArgs, values};
use crate::chaos::values::run_time;
use crate::failure::UsageError;
use crate::figures::counted;
use crate::output;
use crate::place::Places;
use crate::plot;
use crate::replace::{check_distinct, check_writable, replace};
use crate::stop::Stop;
use crate::terminal::{Progress, Unit, say};

/// Made-up links that policies were not tuned on; see ARCHITECTURE.md. Two dozen, so that no single one decides.
const TRACES: std::ops::Range<u64> = 200..224;

/// How often the wish to end is looked for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Compare pacing policies on simulated links, engines and readers
///
/// Thousands of clients come to one engine, each with a link, a TCP connection and a reading rate of its own, in virtual time, much
/// faster than real time. The policies are none, classic, proteus (by round trip), buffer (by what is unread, as if all had
/// arrived), carry (by what the kernel says has arrived) and oracle (knows the link's future, and shows what can be had at most). They
/// meet the same clients. Prints a table and writes the figures as JSON and a picture. The same settings give the same bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Simulate this: quick, paper or rough.
    ///
    /// `quick` takes seconds. `paper` takes minutes: loads 0.7 to 2, 30 and 60 % of the clients on cellular links, 15 and 30 % of
    /// those vanishing, 10 % of the others leaving early, 10 seeds of 5 minutes, and the load up to which each policy serves well.
    /// `rough` is the same with requests in bursts, links that fail altogether at times, and readers who give up.
    #[arg(
        long,
        value_name = "PRESET",
        env = "NETDIAG_PRESET",
        default_value = "quick",
        help_heading = "Simulation"
    )]
    preset: Preset,

    /// Compare these policies: a list of none, classic, proteus, buffer, carry and oracle.
    ///
    /// Default: all of them.
    #[arg(long, value_name = "POLICIES", env = "NETDIAG_POLICIES", value_delimiter = ',', value_parser = values::policy, help_heading = "Simulation")]
    policies: Vec<Policy>,

    /// Simulate these loads: a list of numbers.
    ///
    /// 1 is as many requests as the engine can answer with all seats taken; from 0.01 to 10. Default: the preset's.
    #[arg(long, value_name = "LOADS", env = "NETDIAG_LOADS", value_delimiter = ',', value_parser = values::load, help_heading = "Simulation")]
    loads: Vec<f64>,

    /// Simulate each world with this many seeds.
    ///
    /// From 1 to 1000. Intervals of confidence are over the seeds, so it takes two to have one. Default: the preset's.
    #[arg(long, value_name = "N", env = "NETDIAG_SEEDS", value_parser = values::seeds, help_heading = "Simulation")]
    seeds: Option<u64>,

    /// Let cellular links carry what the traces in this folder say.
    ///
    /// Every file in it, in Mahimahi's format: a line for each millisecond at which 1500 bytes may leave. Default: made-up links.
    #[arg(long, value_name = "DIR", env = "NETDIAG_TRACES", help_heading = "Simulation")]
    traces: Option<PathBuf>,

    /// Simulate `netdiag experiment` with this scenario instead: a shipped one's name or a TOML file.
    ///
    /// The same links, questions and engine, on a simulated TCP, in no time and without root; prints what waste and stalls the
    /// experiment is to be expected to measure in its arms none, classic and carry. Writes no picture. Default: a preset is
    /// simulated.
    #[arg(long, value_name = "NAME|FILE", env = "NETDIAG_SIMULATE_SCENARIO", help_heading = "Simulation",
          conflicts_with_all = ["preset", "policies", "loads", "traces", "reading_tps"])]
    scenario: Option<String>,

    /// With --scenario, let this many streams run.
    ///
    /// From 1 to 200; see `netdiag experiment --help`.
    #[arg(long, value_name = "N", env = "NETDIAG_STREAMS", default_value = "8", value_parser = values::streams, help_heading = "Simulation")]
    streams: usize,

    /// With --scenario, let it take this long, in seconds.
    ///
    /// From 10 milliseconds to a day, in seconds or with a unit (60s, 5m); see `netdiag experiment --help`.
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_EXPERIMENT_DURATION", default_value = "60", value_parser = run_time, help_heading = "Simulation")]
    duration: Duration,

    /// With --scenario, draw questions and readers by this seed first.
    ///
    /// From 0 to 18446744073709551615; see `netdiag experiment --help`. With --seeds 1 it is the only one, with more the next ones
    /// follow. Default: the scenario's seed, as in an experiment.
    #[arg(long, value_name = "N", env = "NETDIAG_EXPERIMENT_SEED", value_parser = values::seed, help_heading = "Simulation")]
    seed: Option<u64>,

    /// Let policies assume that everybody reads this many tokens/s.
    ///
    /// From 0.000001 to 1000000. Readers read 8 to 16. Default: clients tell their own rate.
    #[arg(long, value_name = "TPS", env = "NETDIAG_READING_TPS", value_parser = values::rate, help_heading = "Simulation")]
    reading_tps: Option<Tps>,

    /// Write the figures to this file.
    ///
    /// JSON. Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_SIMULATION",
        default_value = "simulation.json",
        help_heading = "Output"
    )]
    out: PathBuf,

    /// Write the picture to this file.
    ///
    /// PNG. Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_SIMULATION_PLOT",
        default_value = "simulation.png",
        help_heading = "Output"
    )]
    plot: PathBuf,

    #[command(flatten)]
    rates: RateArgs,
}

/// What is simulated.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Preset {
    Quick,
    Paper,
    Rough,
}

/// Simulates once. A signal ends it with nothing written.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    if args.scenario.is_none()
        && let Some(name) = ["streams", "duration", "seed"].iter().find(|name| places.is_flag(name))
    {
        // From elsewhere it is meant for the experiment as well.
        let why = format!("--{name} is for an experiment's scenario: give --scenario, too");
        return Err(UsageError::new(why).into());
    }
    let outputs: &[(&str, &Path)] = &[("out", &args.out), ("plot", &args.plot)];
    check_distinct(outputs, places)?;
    check_writable(if args.scenario.is_some() { &outputs[..1] } else { outputs }, places)?;
    let range = args.rates.validate(places)?;
    if let Some(name) = &args.scenario {
        return scenario::run(name, args, range, places);
    }
    let traces = match &args.traces {
        Some(folder) => read_traces(folder, places)?,
        None => synthetic_traces(TRACES),
    };
    let mut study = match args.preset {
        Preset::Quick => Study::quick(range, traces),
        Preset::Paper => Study::paper(range, traces),
        Preset::Rough => Study::rough(range, traces),
    };
    study.setup.policies.assumed_reading = args.reading_tps;
    if !args.policies.is_empty() {
        study.policies = args.policies.clone();
        study.policies.dedup();
    }
    if !args.loads.is_empty() {
        study.loads = args.loads.clone();
    }
    if let Some(seeds) = args.seeds {
        study.seeds = (1..=seeds).collect();
    }
    let stop = Stop::on_signals()?;
    let progress = Progress::start();
    let done = work(&study, &stop, &progress)?;
    drop(progress);
    let report = study.report(&done);
    let json = serde_json::to_string_pretty(&report).context("figures as JSON")? + "\n";
    let png = plot::draw_policies(&report)?;
    for (path, bytes) in [(&args.out, json.as_bytes()), (&args.plot, &png)] {
        replace(path, |file| file.write_all(bytes))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    output::print(&report.to_string())?;
    let (out, plot) = (args.out.display(), args.plot.display());
    say(&format!("netdiag: figures written to {out}, picture to {plot}"));
    Ok(())
}

/// A job by its number, and what came of it.
type Finished = (usize, Result<Option<Done>, InvalidSetup>);

/// Does all of a study's jobs, on all processors.
fn work(study: &Study, stop: &Stop, progress: &Progress) -> anyhow::Result<Vec<Done>> {
    let jobs = study.jobs();
    say(&format!("netdiag: simulating {}", counted(jobs.len(), "run", "runs")));
    progress.begin("simulating", jobs.len() as u64, Unit::Runs);
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let finished: Mutex<Vec<Finished>> = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| take_jobs(study, &jobs, &next, &is_stopped, &finished, progress))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            is_stopped.fetch_or(stop.wait(PATIENCE), Ordering::Relaxed);
        }
    });
    anyhow::ensure!(!is_stopped.into_inner(), "interrupted; nothing was written");
    let mut finished = finished.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    finished.sort_by_key(|(number, _)| *number);
    let mut all = Vec::with_capacity(finished.len());
    for (_, done) in finished {
        all.extend(done?);
    }
    Ok(all)
}

fn take_jobs(
    study: &Study,
    jobs: &[StudyJob],
    next: &AtomicUsize,
    is_stopped: &AtomicBool,
    finished: &Mutex<Vec<Finished>>,
    progress: &Progress,
) {
    while !is_stopped.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(&job) = jobs.get(number) else { return };
        let done = study.work(job, || !is_stopped.load(Ordering::Relaxed));
        finished.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((number, done));
        progress.advance(1);
    }
}

/// All files of a folder, by name.
fn read_traces(folder: &Path, places: &Places) -> Result<Vec<Trace>, UsageError> {
    let place = |path: &Path| places.named("traces", path.display());
    let unread = |path: &Path| {
        let place = place(path);
        move |error| {
            UsageError::because(format!("{place} cannot be read; give a folder of traces"), error)
        }
    };
    let entries = fs::read_dir(folder).map_err(unread(folder))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .map_err(unread(folder))?;
    paths.retain(|path| path.is_file());
    paths.sort();
    let mut traces = Vec::new();
    for path in paths {
        let text = fs::read(&path).map_err(unread(&path))?;
        let trace = Trace::parse(&text)
            .map_err(|error| UsageError::because(format!("{} is no trace", place(&path)), error))?;
        traces.push(trace);
    }
    if traces.is_empty() {
        return Err(UsageError::new(format!(
            "{} has no files; give a folder of traces",
            place(folder)
        )));
    }
    Ok(traces)
}
