//! A run: a fault in force, or one after the other, for its time.
//!
//! Invariant: while a fault is in force only the clock, the wish to end and `tc` are waited for, never somebody who reads
//! what we tell: a terminal on hold would hold the fault, too.

use std::fmt::Display;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::fault::{Discipline, Fault};
use super::injection::{Injection, Undone};
use super::iproute::{Link, ToolError};
use super::privilege;
use super::random::Steps;
use super::values::time;
use crate::failure::UsageError;
use crate::stop::Stop;
use crate::terminal::say;

/// Which faults to inject.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// This one, all the time.
    Fixed(Fault),
    /// Those of this seed, one after the other.
    Random { seed: u64 },
}

/// Injects faults until `run_time` is over or somebody asks to end; then the interface is as before.
pub(crate) fn inject(
    link: Link,
    what: What,
    run_time: Duration,
    stop: &Stop,
) -> anyhow::Result<()> {
    let (lines, told) = channel::<String>();
    let teller = Teller { interface: link.name.clone(), lines };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("teller".to_owned())
            .spawn_scoped(scope, move || told.iter().for_each(|line| say(&line)))?;
        // Takes the teller along, so that the thread ends with it.
        inject_and_tell(link, what, run_time, stop, teller)
    })
}

fn inject_and_tell(
    link: Link,
    what: What,
    run_time: Duration,
    stop: &Stop,
    teller: Teller,
) -> anyhow::Result<()> {
    let first = match what {
        What::Fixed(fault) => fault,
        What::Random { .. } => Fault::CALM,
    };
    let started = Instant::now();
    let injection = Injection::start(link, &first).map_err(|error| not_started(error, &first))?;
    let by = injection.discipline().name();
    let until = format!("for {}; Ctrl-C undoes it sooner", time(run_time));
    let went = match what {
        What::Fixed(fault) => {
            teller.tell(format!("{fault} (by {by}) {until}"));
            stop.wait(run_time);
            Ok(())
        }
        What::Random { seed } => {
            teller.tell(format!("random faults (by {by}, --seed {seed}) {until}"));
            if injection.discipline() == Discipline::Tbf {
                teller.tell("no netem in this kernel (module sch_netem), so only the rate varies");
            }
            change_at_random(&injection, seed, started + run_time, stop, &teller)
        }
    };
    match (injection.undo()?, went) {
        (Undone::NoInterface, _) => teller.tell("the interface is gone, and its faults with it"),
        (Undone::Removed, Ok(())) => {
            teller.tell(format!("undone after {:.1} s", started.elapsed().as_secs_f64()));
        }
        (Undone::AlreadyGone, Ok(())) => teller.tell("somebody else has removed the fault"),
        (Undone::Removed, Err(error)) => return Err(error.into()),
        (Undone::AlreadyGone, Err(error)) => {
            let place = format!("{}: somebody else has removed the fault", teller.interface);
            return Err(error).context(place);
        }
    }
    Ok(())
}

fn change_at_random(
    injection: &Injection,
    seed: u64,
    end: Instant,
    stop: &Stop,
    teller: &Teller,
) -> Result<(), ToolError> {
    for step in Steps::new(seed, injection.discipline()) {
        let lasts = step.lasts.min(end.saturating_duration_since(Instant::now()));
        if lasts.is_zero() {
            break;
        }
        injection.change(&step.fault)?;
        teller.tell(format!("{} for {}", step.fault, time(lasts)));
        if stop.wait(lasts) {
            break;
        }
    }
    Ok(())
}

/// Why the first fault is not in force, and what to do about it.
fn not_started(error: ToolError, fault: &Fault) -> anyhow::Error {
    if error.is_not_permitted() {
        return privilege::lacking().into();
    }
    if !error.is_unknown_discipline() {
        return error.into();
    }
    let remedy = if fault.needs_netem() {
        "needs netem, which this kernel lacks; `modprobe sch_netem`, or use a kernel with it; --rate alone does without"
    } else {
        "needs netem or tbf, and this kernel has neither; `modprobe sch_tbf`, or use a kernel with it"
    };
    UsageError::new(format!("{fault}: {remedy}")).into()
}

/// Tells what happens to an interface, without waiting until it has been told.
#[derive(Debug)]
struct Teller {
    interface: String,
    lines: Sender<String>,
}

impl Teller {
    fn tell(&self, what: impl Display) {
        // An error means that the thread that tells is gone; then nobody can be told.
        let _ = self.lines.send(format!("netdiag: {}: {what}", self.interface));
    }
}
