//! `netdiag chaos`: faults on a real interface, to see what they do to whatever uses it.
//!
//! Invariant: nothing is touched before everything that can be known to be wrong has been refused, and whatever ends the
//! command but SIGKILL, the interface is as before or the exit code says that it is not.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::args::values;
use crate::chaos::HANDLE;
use crate::chaos::fault::{Discipline, Fault};
use crate::chaos::injection::{self, Injection, Undone};
use crate::chaos::iproute::{self, Link, ToolError};
use crate::chaos::random::Steps;
use crate::chaos::values::{self as faults, BitRate, Percent, time};
use crate::chaos::{lock, login, privilege};
use crate::failure::UsageError;
use crate::place::Places;
use crate::stop::Stop;
use crate::terminal::say;

/// The most interfaces that are named to somebody who has misspelt one.
const MOST_NAMED: usize = 12;

/// Give an interface delay, jitter, losses or a limited rate for a while
///
/// The faults meet every packet that leaves by the interface, from whatever program; what comes in is left alone. They are
/// undone after --for, on SIGINT, SIGTERM and SIGHUP, and after a failure. What a run that was killed has left behind is
/// reported by `netdiag doctor` and removed by `netdiag chaos --restore`. Needs root or CAP_NET_ADMIN, and the tools `tc`
/// and `ip` (iproute2). Delay, jitter and losses need the kernel's netem; a rate is limited without it, too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make this network interface faulty.
    ///
    /// A name as `ip link` shows it, in the network namespace that the command runs in. Refused if it has a queueing
    /// discipline that somebody configured, which would not come back. With --restore: the only one to restore. Default:
    /// none; with --restore all.
    #[arg(long, value_name = "NAME", env = "NETDIAG_CHAOS_IFACE", help_heading = "What")]
    iface: Option<String>,

    /// Delay every packet.
    ///
    /// A time with its unit, 0ms to 60s. Default: no delay, or that of --jitter.
    #[arg(long, value_name = "TIME", env = "NETDIAG_CHAOS_DELAY", value_parser = faults::delay, help_heading = "What")]
    delay: Option<Duration>,

    /// Let the delay vary by up to this much, up and down.
    ///
    /// A time with its unit, at most --delay; every value is equally likely, and packets stay in order. Without --delay
    /// the delay is as long as the jitter, so that it varies from nothing to twice that. Default: no jitter.
    #[arg(long, value_name = "TIME", env = "NETDIAG_CHAOS_JITTER", value_parser = faults::delay, help_heading = "What")]
    jitter: Option<Duration>,

    /// Lose this share of packets.
    ///
    /// A percentage, 0 to 100, with or without `%`; each packet is lost independently. A packet is what the kernel hands
    /// to the interface: with segmentation offload up to 64 KiB of a fast stream. Default: no losses.
    #[arg(long, value_name = "PERCENT", env = "NETDIAG_CHAOS_LOSS", value_parser = faults::percent, help_heading = "What")]
    loss: Option<Percent>,

    /// Send no faster than this.
    ///
    /// In bits per second with a unit, 1kbit to 32gbit: 500kbit, 1.5mbit. What comes faster waits for up to 400
    /// milliseconds (at slow rates: ten packets) and is lost beyond that. Default: no limit.
    #[arg(long, value_name = "RATE", env = "NETDIAG_CHAOS_RATE", value_parser = faults::rate, help_heading = "What")]
    rate: Option<BitRate>,

    /// Draw faults at random, with calm between them.
    ///
    /// One after the other for two to eight seconds: a delay, jitter, losses, a limited rate, or all of them; without netem
    /// only rates. Then two to six seconds of calm. Not together with faults of your own.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_CHAOS_RANDOM", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "What")]
    random: bool,

    /// Draw the same faults as a run before.
    ///
    /// From 0 to 18446744073709551615; only for --random. Default: another one each time, which is told at the start.
    #[arg(long, value_name = "N", env = "NETDIAG_CHAOS_SEED", value_parser = values::seed, help_heading = "What")]
    seed: Option<u64>,

    /// Undo it after this time.
    ///
    /// A time with its unit (500ms, 30s, 2m) or in seconds, 10ms to 24h.
    #[arg(id = "for", long = "for", value_name = "TIME", env = "NETDIAG_CHAOS_FOR", default_value = "30s",
          value_parser = faults::run_time, help_heading = "How long")]
    run_time: Duration,

    /// Remove what a killed run has left behind, and do nothing else.
    ///
    /// From --iface, or from all interfaces of this network namespace; faults of a run that goes on are removed as well.
    /// Exit code 0 if there is nothing to remove.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_CHAOS_RESTORE", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "How long")]
    restore: bool,

    /// Use the interface even if it carries your own login.
    ///
    /// The faults are undone after --for even if the connection does not survive them. Without it such an interface is
    /// refused.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_CHAOS_FORCE", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "What")]
    force: bool,
}

/// What to do.
#[derive(Debug)]
enum Job {
    Restore,
    Inject { interface: String, what: What },
}

/// Which faults to inject.
#[derive(Clone, Copy, Debug)]
enum What {
    Fixed(Fault),
    Random { seed: u64 },
}

/// Injects faults until their time is over or a signal comes, or removes those that are left behind.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    match args.validate(places)? {
        Job::Restore => restore(args.iface.as_deref(), places),
        Job::Inject { interface, what } => {
            // Before anything is done: a signal in this moment is not to leave it half done.
            let stop = Stop::on_signals()?;
            let named = places.named("iface", &interface);
            let link = usable(&interface, &named, args.force)?;
            privilege::share_with_tools()?;
            let _alone = match lock::take(link.index).context("cannot lock the interface")? {
                Ok(lock) => lock,
                Err(holder) => {
                    return Err(UsageError::new(format!(
                        "{named}: {holder} already injects faults into it; end that one or choose another interface"
                    ))
                    .into());
                }
            };
            refuse_foreign(&link, &named)?;
            inject(link, what, args.run_time, &stop)
        }
    }
}

impl Args {
    fn validate(&self, places: &Places) -> Result<Job, UsageError> {
        let given = self.faults_given(places);
        if self.restore {
            return match given.first() {
                Some(fault) => Err(UsageError::new(format!(
                    "--restore injects no faults; leave out {fault}, or --restore"
                ))),
                None => Ok(Job::Restore),
            };
        }
        let what = match given.first() {
            Some(fault) if self.random => {
                return Err(UsageError::new(format!(
                    "--random draws its own faults; leave out {fault}, or --random"
                )));
            }
            _ if self.random => {
                // As random as the standard library gets: what it keys its hash tables with.
                let any = || RandomState::new().hash_one(());
                What::Random { seed: self.seed.unwrap_or_else(any) }
            }
            _ => What::Fixed(self.fault(places)?),
        };
        let interface = self.iface.clone().ok_or_else(|| {
            UsageError::new("no interface is given; add --iface NAME (`ip -br link` shows them)")
        })?;
        Ok(Job::Inject { interface, what })
    }

    /// The faults that the caller asks for, each with its place.
    fn faults_given(&self, places: &Places) -> Vec<String> {
        let named = |id, value: Option<String>| value.map(|value| places.named(id, value));
        let delays = [("delay", self.delay), ("jitter", self.jitter)]
            .map(|(id, delay)| named(id, delay.map(|delay| format!("{delay:?}"))));
        let loss = named("loss", self.loss.map(|loss| format!("{}%", loss.get())));
        let rate = named("rate", self.rate.map(|rate| format!("{}bit", rate.get())));
        delays.into_iter().chain([loss, rate]).flatten().collect()
    }

    fn fault(&self, places: &Places) -> Result<Fault, UsageError> {
        let jitter = self.jitter.unwrap_or_default();
        let delay = self.delay.unwrap_or(jitter);
        let mut fault = Fault::CALM.delayed(delay, jitter).ok_or_else(|| {
            UsageError::new(format!(
                "{} is more than {}, so that packets would have to leave before they came; raise the delay or lower \
                 the jitter",
                places.named("jitter", format!("{jitter:?}")),
                places.named("delay", format!("{delay:?}")),
            ))
        })?;
        fault = fault.losing(self.loss.unwrap_or_default());
        if let Some(rate) = self.rate {
            fault = fault.limited(rate);
        }
        if fault == Fault::CALM {
            return Err(UsageError::new(
                "no fault is given; add --delay, --jitter, --loss (of more than nothing) or --rate, or --random",
            ));
        }
        Ok(fault)
    }
}

/// The interface, unless it must not be touched.
fn usable(interface: &str, named: &str, force: bool) -> anyhow::Result<Link> {
    let links = iproute::links()?;
    let link = find(&links, interface, named)?;
    for login in login::logins() {
        let way = login.interface()?;
        let carriers = way.map(|way| iproute::carriers(&way, &links)).unwrap_or_default();
        if carriers.contains(link.name.as_str()) && !force {
            return Err(UsageError::new(format!(
                "{named}: carries your own login from {} (SSH_CONNECTION), which the faults would meet, too; choose \
                 another interface, or add --force",
                login.client
            ))
            .into());
        }
    }
    Ok(link.clone())
}

fn find<'l>(links: &'l [Link], interface: &str, named: &str) -> Result<&'l Link, UsageError> {
    links.iter().find(|link| link.is(interface)).ok_or_else(|| {
        let mut names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        if names.len() > MOST_NAMED {
            names.truncate(MOST_NAMED);
            names.push("…");
        }
        let names = names.join(", ");
        UsageError::new(format!(
            "{named}: no such interface in this network namespace; there are {names}"
        ))
    })
}

/// Refuses an interface whose queueing discipline somebody configured. What a killed run of ours left is removed.
fn refuse_foreign(link: &Link, named: &str) -> anyhow::Result<()> {
    let root = iproute::root_qdiscs()?.into_iter().find(|root| root.interface == link.name);
    match root {
        // What the kernel puts there itself, and puts back, has no handle.
        Some(root) if root.handle != "0:" && root.handle != HANDLE => {
            Err(UsageError::new(format!(
                "{named}: has a queueing discipline of somebody's own ({} {}), which would not come back afterwards; \
                 remove it with `tc qdisc del dev {} root`, or choose another interface",
                root.kind, root.handle, link.name
            ))
            .into())
        }
        Some(root) if root.handle == HANDLE => {
            injection::undo(link)?;
            say(&format!("netdiag: {}: removed what a killed run had left ({})", link.name, root.kind));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn inject(link: Link, what: What, run_time: Duration, stop: &Stop) -> anyhow::Result<()> {
    let name = link.name.clone();
    let first = match what {
        What::Fixed(fault) => fault,
        What::Random { .. } => Fault::CALM,
    };
    let started = Instant::now();
    let injection = Injection::start(link, &first).map_err(|error| not_started(error, &first))?;
    let by = injection.discipline();
    let until = format!("for {}; Ctrl-C undoes it sooner", time(run_time));
    let went = match what {
        What::Fixed(fault) => {
            say(&format!("netdiag: {name}: {fault} (by {}) {until}", by.name()));
            stop.wait(run_time);
            Ok(())
        }
        What::Random { seed } => {
            say(&format!(
                "netdiag: {name}: random faults (by {}, --seed {seed}) {until}",
                by.name()
            ));
            if by == Discipline::Tbf {
                say(
                    "netdiag: this kernel has no netem (module sch_netem), so only the rate is limited",
                );
            }
            change_at_random(&injection, &name, seed, started + run_time, stop)
        }
    };
    let undone = injection.undo()?;
    match (undone, went) {
        (Undone::NoInterface, _) => {
            say(&format!("netdiag: {name} is gone, and its faults with it"))
        }
        (Undone::Removed, Ok(())) => {
            let seconds = started.elapsed().as_secs_f64();
            say(&format!("netdiag: {name}: undone after {seconds:.1} s"));
        }
        (Undone::AlreadyGone, Ok(())) => {
            say(&format!("netdiag: {name}: somebody else has removed the fault meanwhile"));
        }
        (Undone::Removed, Err(error)) => return Err(error.into()),
        (Undone::AlreadyGone, Err(error)) => {
            return Err(error).context(format!("{name}: somebody else has removed the fault"));
        }
    }
    Ok(())
}

fn change_at_random(
    injection: &Injection,
    name: &str,
    seed: u64,
    end: Instant,
    stop: &Stop,
) -> Result<(), ToolError> {
    for step in Steps::new(seed, injection.discipline()) {
        let lasts = step.lasts.min(end.saturating_duration_since(Instant::now()));
        if lasts.is_zero() {
            break;
        }
        injection.change(&step.fault)?;
        say(&format!("netdiag: {name}: {} for {}", step.fault, time(lasts)));
        if stop.wait(lasts) {
            break;
        }
    }
    Ok(())
}

/// Why a first fault is not in force, and what to do about it.
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

fn restore(only: Option<&str>, places: &Places) -> anyhow::Result<()> {
    if let Some(interface) = only {
        find(&iproute::links()?, interface, &places.named("iface", interface))?;
    }
    let mut faulty = injection::faulty()?;
    faulty.retain(|(link, _)| only.is_none_or(|only| link.is(only)));
    if faulty.is_empty() {
        let place = only.unwrap_or("any interface of this network namespace");
        say(&format!("netdiag: nothing to restore: no fault of ours on {place}"));
        return Ok(());
    }
    privilege::share_with_tools()?;
    let mut failure = None;
    for (link, qdisc) in faulty {
        let whose = match lock::holder(link.index) {
            Ok(Some(holder)) => format!("of {holder}, which still runs"),
            _ => "left by a run that was killed".to_owned(),
        };
        match injection::undo(&link) {
            Ok(_) => say(&format!("netdiag: {}: removed {} {whose}", link.name, qdisc.kind)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}
