//! `cargo xtask soak`: the whole system under load, while everything around it fails in turn.
//!
//! Where a test asks whether one thing comes back from one fault, this asks whether anything stays behind when all of them come again and
//! again: memory, descriptors, streams, rows, processes, namespaces. Everything runs in a lab of its own, in file systems of its own and
//! by a clock of its own, so that the machine's network, disks and time are never touched. Invariant: what a soak has made is gone when it
//! ends, in whatever way that was; a killed one takes its processes with it.

mod broken;
mod faults;
mod leftovers;
mod load;
mod memory;
mod parts;
mod rows;
mod schedule;
mod signs;
mod system;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::leftovers::Marks;
use self::load::Clients;
use self::parts::{FAKETIME, Id};
use self::rows::Reader;
use self::schedule::{LEAST_MINUTES, SLOT, schedule};
use self::signs::Recovery;
use self::system::System;
use self::table::{BOUND, Findings, Outcome};
use crate::command;

/// How a soak is asked to run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long it takes, in minutes; from 20 on memory is judged, after a quarter of an hour to get warm
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(i64::from(LEAST_MINUTES)..))]
    minutes: u32,
    /// The order of faults, what clients ask for, and what links lose follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it, prints what came of it, and fails if that is not clean.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        command::is_root(),
        "a soak needs root, for namespaces, eBPF and file systems of its own"
    );
    command::ensure_debian(&[
        ("nats-server", "nats-server"),
        ("ip", "iproute2"),
        (FAKETIME, "libfaketime"),
        ("/usr/bin/setpriv", "util-linux"),
    ])?;
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let target = ["--example", "demo_engine"];
    let engine = crate::release_binary("netdiag-lab", &target, "examples/demo_engine")?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    own_mounts()?;
    let logs = fresh_logs()?;
    let tally;
    let (mut findings, marks) = {
        let mut system = System::start(&netdiag, &engine, options.seed, &logs, interrupted)?;
        let marks = Marks::of(&system.lab, &system.places);
        eprintln!(
            "{:5.0} s  everything runs; logs are in {}",
            system.begun.elapsed().as_secs_f64(),
            logs.display()
        );
        let mut clients = Clients::start(&system.lab, options.seed)?;
        tally = Arc::clone(&clients.tally);
        let readers = [Id::Up, Id::Agent].map(|id| Reader::start(id, &system.places));
        let outcomes = faults_of(options, &mut system)?;
        eprintln!("{:5.0} s  the end: streams, then parts", system.begun.elapsed().as_secs_f64());
        clients.end();
        let told = Instant::now();
        system.end()?;
        let rows = readers.map(|reader| reader.end(&system.excuses, told));
        let begun = system.begun;
        let memory: String = system.lives.iter().flat_map(|life| life.lines(begun)).collect();
        std::fs::write(
            logs.join("memory.csv"),
            format!("process,seconds,rss_kb,anonymous_kb,descriptors,round\n{memory}"),
        )?;
        let findings = Findings {
            asked: options.minutes,
            minutes: system.begun.elapsed().as_secs_f64() / 60.0,
            outcomes,
            lives: std::mem::take(&mut system.lives),
            starts: system.starts(),
            rows: rows.into(),
            tally: &tally,
            incidents: std::mem::take(&mut system.incidents),
            leftovers: Vec::new(),
        };
        (findings, marks)
    };
    findings.leftovers = marks.found();
    print!("{}", findings.text());
    let wrong = findings.wrong().len();
    if wrong > 0 {
        bail!("{wrong} findings; what the parts said is in {}", logs.display());
    }
    Ok(())
}

/// All faults of the schedule, one after the other.
fn faults_of(options: &Options, system: &mut System) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (number, slot) in (0..).zip(schedule(options.minutes, options.seed)) {
        system.warm_round = slot.warm_round;
        system.watching.signs.iter().for_each(|sign| sign.forget());
        let began = Instant::now();
        let at = began - system.begun;
        let restored = faults::inject(slot.fault, options.seed ^ number, system)?;
        let lasted = restored.max(began) - began;
        // Whatever the fault took, what it broke has its time to come back.
        let calm = (began + SLOT).max(restored + BOUND + Duration::from_millis(500));
        system.pump(calm.saturating_duration_since(Instant::now()))?;
        let (slowest, recovery) = system
            .watching
            .signs
            .iter()
            .map(|sign| (sign.name, sign.recovery(restored)))
            .max_by_key(|(_, recovery)| match recovery {
                Recovery::After(time) => *time,
                Recovery::Never => Duration::MAX,
            })
            .context("there are no signs of life")?;
        let outcome = Outcome { fault: slot.fault, at, lasted, slowest, recovery };
        eprintln!("{}", outcome.line());
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Lets mounts of this process be its own, and gone with it. To be called while it has one thread.
fn own_mounts() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let status = Command::new("mount")
        .args(["--make-rprivate", "/"])
        .status()
        .context("cannot run mount")?;
    ensure!(status.success(), "cannot make mounts private");
    Ok(())
}

/// A folder for what parts say, kept until the next soak.
fn fresh_logs() -> anyhow::Result<PathBuf> {
    let logs = crate::target_directory().join("soak");
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    Ok(Path::new(&logs).to_owned())
}
