//! Running the arms beside each other, from setting up to taking stock.
//!
//! Invariants: stock is taken of all arms when their time is over and before any of them is closed. The wish to end is heard at any
//! time, also while links are set up; what was measured until then is given back.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_dashboard::Feed;
use netdiag_lab::Scenario;
use tokio::runtime::{Builder, Handle, Runtime};

use super::arm::{Arm, ArmData, EndedArm, RunningArm};
use super::comparison::compare;
use super::conditions::{Conditions, Policy, Via};
use super::cpu::{CpuMeter, CpuUse, WORKER};
use super::live::Shown;
use super::phases::{self, PhaseSpan};
use super::privileges::refusal;
use super::progress::Progress;
use super::record::Record;
use crate::figures::counted;
use crate::stop::Stop;
use crate::terminal::say;

/// How often something is told while it runs, and looked at whether it still does.
pub(crate) const TELL: Duration = Duration::from_millis(500);

/// How soon the wish to end is heard while links are set up.
const HEED: Duration = Duration::from_millis(50);

/// What is to be run.
pub(crate) struct Plan<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) arms: &'a [Policy],
    pub(crate) conditions: Conditions,
    pub(crate) phases: Vec<PhaseSpan>,
    /// What to know before reading any figure.
    pub(crate) notes: Vec<String>,
    /// How the program was called.
    pub(crate) command: String,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was over.
    TimeUp,
    /// Somebody asked for the end.
    Interrupted,
    /// An arm has no telemetry any more.
    ProbeLost,
    /// The links of an arm carry nothing any more.
    LinksLost,
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) record: Record,
    pub(crate) data: Vec<ArmData>,
    pub(crate) ended: Ended,
}

/// Runs the arms. `None` if the end was asked for before they began.
pub(crate) fn run(plan: Plan<'_>, feed: Option<&Feed>, stop: &Stop) -> anyhow::Result<Option<Ran>> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(WORKER)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ran = run_on(&runtime, plan, feed, stop);
    runtime.shutdown_background();
    ran
}

fn run_on(
    runtime: &Runtime,
    plan: Plan<'_>,
    feed: Option<&Feed>,
    stop: &Stop,
) -> anyhow::Result<Option<Ran>> {
    // The arms end with the experiment; who looks at it may stay.
    let measuring = Stop::new();
    let conditions = &plan.conditions;
    let Some(prepared) = set_up(&plan, feed, runtime.handle(), &measuring, stop)? else {
        measuring.ask();
        return Ok(None);
    };
    let source = prepared.first().map_or("none", |arm| arm.source().as_str());
    say(&introduction(&plan, source));
    let meter = CpuMeter::start();
    let began = Instant::now();
    let running: Vec<RunningArm> = prepared
        .into_iter()
        .map(|arm| arm.begin(conditions, runtime.handle()))
        .collect::<Result<_, _>>()?;
    let ended = watch(&plan, &running, began, &measuring, stop);
    let ran = began.elapsed().min(conditions.duration);
    let cpu = meter.used();
    let over: Vec<EndedArm> = running
        .into_iter()
        .map(|arm| match ended {
            Ended::TimeUp => arm.end(runtime.handle()),
            Ended::Interrupted | Ended::ProbeLost | Ended::LinksLost => arm.cut(runtime.handle()),
        })
        .collect::<Result<_, _>>()?;
    let counts: Vec<_> = over.iter().map(EndedArm::count).collect();
    // Samplers end with the stop; what they measured is there.
    measuring.ask();
    let mut record = record(&plan, source, cpu, ended, ran);
    let mut data = Vec::new();
    for (arm, tokens) in over.into_iter().zip(counts) {
        let (arm, left) = arm.close(tokens, ran, conditions, &record.phases)?;
        record.arms.push(arm);
        data.push(left);
    }
    record.comparisons = compare(&record.arms, record.seed);
    Ok(Some(Ran { record, data, ended }))
}

/// Sets up the arms one after the other, on a thread of its own: it takes seconds, and nobody should wait for the end of it.
fn set_up(
    plan: &Plan<'_>,
    feed: Option<&Feed>,
    runtime: &Handle,
    measuring: &Stop,
    stop: &Stop,
) -> anyhow::Result<Option<Vec<Arm>>> {
    let (arms, conditions) = (plan.arms.to_vec(), plan.conditions.clone());
    let (feed, runtime, measuring) = (feed.cloned(), runtime.clone(), measuring.clone());
    let (done, ready) = sync_channel(1);
    let prepare = move || {
        let prepared: anyhow::Result<Vec<Arm>> = arms
            .iter()
            .enumerate()
            .map(|(arm, policy)| {
                let is_host = arm + 1 == arms.len();
                let shown = feed.clone().map(|feed| Shown { feed, arm, is_host });
                Arm::prepare(*policy, &conditions, &runtime, shown, &measuring)
            })
            .collect();
        // Nobody waits for it any more if the end came first.
        let _ = done.send(prepared);
    };
    std::thread::Builder::new()
        .name("set-up".to_owned())
        .spawn(prepare)
        .context("cannot start the thread that sets up the links")?;
    loop {
        match ready.recv_timeout(HEED) {
            Ok(prepared) => return prepared.map(Some).map_err(refusal),
            Err(RecvTimeoutError::Timeout) if stop.wait(Duration::ZERO) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("the thread that sets up the links panicked")
            }
        }
    }
}

fn introduction(plan: &Plan<'_>, source: &str) -> String {
    let description = plan.scenario.description();
    format!(
        "netdiag: {}{}{description} ({}, {} each{}, {:.0} s, by {source})",
        plan.scenario.name(),
        if description.is_empty() { "" } else { ": " },
        counted(plan.arms.len(), "arm", "arms"),
        counted(plan.conditions.streams, "stream", "streams"),
        if plan.conditions.via == Via::Gateway { ", through the gateway" } else { "" },
        plan.conditions.duration.as_secs_f64()
    )
}

/// Tells what happens until it is over.
fn watch(
    plan: &Plan<'_>,
    running: &[RunningArm],
    began: Instant,
    measuring: &Stop,
    stop: &Stop,
) -> Ended {
    let duration = plan.conditions.duration;
    let mut progress = Progress::start(&plan.phases, running);
    let ended = loop {
        let elapsed = began.elapsed();
        if elapsed >= duration {
            break Ended::TimeUp;
        }
        if stop.wait(TELL.min(duration - elapsed)) {
            break Ended::Interrupted;
        }
        // Only a sampler that ends asks for this one while the arms run.
        if measuring.wait(Duration::ZERO) {
            break Ended::ProbeLost;
        }
        if let Some((arm, why)) = running.iter().find_map(|arm| Some((arm, arm.link_failure()?))) {
            tracing::error!("arm {}: {why}", arm.name());
            break Ended::LinksLost;
        }
        progress.tell(began.elapsed().as_secs_f64());
    };
    progress.end(began.elapsed().as_secs_f64());
    ended
}

/// The record of a run, to which its arms come.
fn record(plan: &Plan<'_>, source: &str, cpu: CpuUse, ended: Ended, ran: Duration) -> Record {
    let (scenario, conditions) = (plan.scenario, &plan.conditions);
    let (seconds, planned) = (ran.as_secs_f64(), conditions.duration.as_secs_f64());
    let why = match ended {
        Ended::TimeUp => None,
        Ended::Interrupted => Some("by a signal"),
        Ended::ProbeLost => Some("because telemetry ended"),
        Ended::LinksLost => Some("because links ended"),
    };
    let cut = why.map(|why| format!("cut short {why} after {seconds:.1} s of {planned:.0} s"));
    Record {
        format: "netdiag-experiment/1",
        version: env!("CARGO_PKG_VERSION"),
        command: plan.command.clone(),
        scenario: scenario.name().to_owned(),
        description: scenario.description().to_owned(),
        seed: conditions.seed,
        reader_seed: conditions.reader_seed,
        seconds,
        planned_seconds: planned,
        cut_short: ended != Ended::TimeUp,
        via: conditions.via.name(),
        streams: conditions.streams,
        min_tps: conditions.range.min().get(),
        max_tps: conditions.range.max().get(),
        source: source.to_owned(),
        model: conditions.model(),
        notes: cut.into_iter().chain(plan.notes.iter().cloned()).collect(),
        cpu,
        phases: phases::until(&plan.phases, seconds),
        groups: conditions.groups.clone(),
        arms: Vec::new(),
        comparisons: Vec::new(),
    }
}
