//! `netdiag chaos`: faults on a real interface, to see what they do to whatever uses it.
//!
//! Invariant: nothing is touched before everything that can be known to be wrong has been refused, and whatever ends the
//! command but SIGKILL, the interface is as before or the exit code says that it is not.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anyhow::Context as _;

use crate::args::values;
use crate::chaos::fault::Fault;
use crate::chaos::run::{What, inject};
use crate::chaos::values::{self as faults, BitRate, Percent};
use crate::chaos::{lock, privilege, restore, target};
use crate::failure::UsageError;
use crate::place::Places;
use crate::stop::Stop;

/// Give an interface delay, jitter, losses or a limited rate for a while
///
/// The faults meet every packet that leaves by the interface, from whatever program; what comes in is left alone. They are
/// undone after --for, on SIGINT, SIGTERM, SIGQUIT and SIGHUP, and after a failure. What a run that was killed has left behind is
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
    /// In bits per second with a unit, 1kbit to 32gbit: 500kbit, 1.5mbit. What comes faster waits, as many packets as leave
    /// in 400 milliseconds if they are full (but 10 to 1000), and is lost beyond that. Default: no limit.
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
    /// A time with its unit (500ms, 30s, 2m or 2min, 1h) or in seconds, 10ms to 24h.
    #[arg(id = "for", long = "for", value_name = "TIME", env = "NETDIAG_CHAOS_FOR", default_value = "30s",
          value_parser = faults::run_time, help_heading = "Undoing")]
    run_time: Duration,

    /// Remove what a killed run has left behind, and do nothing else.
    ///
    /// From --iface, or from all interfaces of this network namespace; faults of a run that goes on are removed as well.
    /// Exit code 0 if there is nothing to remove.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_CHAOS_RESTORE", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true, help_heading = "Undoing")]
    restore: bool,

    /// Use the interface even if it carries your own login.
    ///
    /// The faults are undone after --for even if the connection does not survive them. Without it such an interface is
    /// refused, as far as SSH_CONNECTION and the routes tell; what a VPN stands on they do not.
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

/// Injects faults until their time is over or a signal comes, or removes those that are left behind.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    match args.validate(places)? {
        Job::Restore => {
            let only = args.iface.as_deref();
            let only = only.map(|name| target::find(name, &places.named("iface", name)));
            restore::remove_all(only.transpose()?.as_ref())
        }
        Job::Inject { interface, what } => {
            // Before anything is done: a signal in this moment is not to leave it half done.
            let stop = Stop::on_signals()?;
            let named = places.named("iface", &interface);
            let link = target::find(&interface, &named)?;
            if !args.force {
                target::refuse_login(&link, &named)?;
            }
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
            target::make_free(&link, &named)?;
            inject(link, what, args.run_time, &stop)
        }
    }
}

impl Args {
    fn validate(&self, places: &Places) -> Result<Job, UsageError> {
        let mut given = self.faults_given(places);
        let seed = self.seed.map(|seed| places.named("seed", seed));
        if self.restore {
            given.extend(self.random.then(|| "--random".to_owned()));
            given.extend(seed);
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
            _ => match seed {
                Some(seed) => {
                    return Err(UsageError::new(format!(
                        "{seed} is for random faults; add --random, or leave it out"
                    )));
                }
                None => What::Fixed(self.fault(places)?),
            },
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
        let rate = named("rate", self.rate.map(BitRate::as_flag));
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
