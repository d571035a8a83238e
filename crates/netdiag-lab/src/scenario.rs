//! Scenarios: named phases of good and bad links, for one or several groups of clients, read from TOML.
//!
//! Invariant: a scenario that was read can be run; what is wrong with a file is told with its line, key, value and remedy.

mod builtin;
mod fields;
mod file;
mod fit;
mod phase;
mod read;
mod settings;

use std::time::Duration;

pub use fit::{InvalidDivision, InvalidDuration};
pub use phase::{Phase, PhaseKind};
pub use read::ScenarioError;

use crate::schedule::Schedule;
use crate::spec::Duplex;

/// What happens to links, phase by phase. Its file:
///
/// ```toml
/// description = "One line that says what it shows"
/// seed = 7                       # what chance does; 1 unless given
///
/// [link]                         # what every phase starts from; by default nothing happens to packets
/// delay = "20ms"                 # one way
/// rate = "20mbit"
/// queue = "200ms"                # as much as the rate carries in this time; also "64kB", "100 packets", "codel 200ms"
///
/// [[phase]]
/// kind = "calm"
/// duration = "20s"
///
/// [[phase]]
/// name = "microwave oven"        # the kind unless given
/// kind = "lossy"
/// duration = "10s"
/// loss = "10%"                   # in place of the kind's own
/// up.loss = "2%"                 # in one direction
///
/// [[group]]                      # all clients are one group where there is none
/// name = "phones"
/// share = "30%"                  # or count = 3; shares add up to 100 % at most
/// phases = ["microwave oven"]    # in all others they are as [link] says
/// link.delay = "50ms"            # in place of [link]'s
/// ```
///
/// | kind          | unless the phase says otherwise                                              |
/// | ------------- | ---------------------------------------------------------------------------- |
/// | `calm`        | as `[link]` says                                                             |
/// | `jitter`      | `jitter = "40ms"`; the delay is raised by the jitter, which only ever adds to it |
/// | `lossy`       | `loss = "5%"`, `burst = 3`                                                   |
/// | `blackout`    | nothing comes through; `loss` and `burst` have no place in it                |
/// | `bufferbloat` | `rate = "1mbit"`, `queue = "2s"`                                             |
/// | `trace`       | `queue = "2s"`; it must have a `trace`, here or in `[link]`                  |
///
/// Keys of `[link]`, of a phase, and of `up` and `down` in both: `delay`, `jitter`, `loss`, `burst` (packets lost in a row, on
/// average), `rate`, `trace`, `queue`. A trace is a file in Mahimahi's format, relative to the scenario's, or made up:
/// `{ model = "cellular", mean = "6mbit", seed = 3 }`. It is played as if it had begun with the scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    name: String,
    description: String,
    seed: u64,
    /// At least one.
    phases: Vec<Phase>,
    /// At least one.
    groups: Vec<Group>,
}

/// Clients behind links of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    name: String,
    portion: Portion,
    /// One for each phase of the scenario.
    links: Vec<Duplex>,
}

/// How many of the clients are of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Portion {
    /// This share of those that are in no group with a count, relative to the other groups' shares.
    Share(f64),
    /// So many.
    Count(usize),
}

impl Scenario {
    /// Its name: that of the file without its ending, or the shipped scenario's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it shows, in a line. Empty where the file does not say.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What chance does, for [`Lab::start_links`](crate::Lab::start_links).
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How long it takes.
    pub fn duration(&self) -> Duration {
        self.phases.iter().map(Phase::duration).sum()
    }

    /// The phases, one after the other.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The groups of clients.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What the link of each group does, in the order of the groups.
    pub fn schedules(&self) -> Vec<Schedule> {
        self.groups.iter().map(|group| self.schedule(group)).collect()
    }

    fn schedule(&self, group: &Group) -> Schedule {
        let mut start = Duration::ZERO;
        let steps = self.phases.iter().zip(&group.links).map(|(phase, link)| {
            let at = start;
            start += phase.duration();
            (at, link.clone().playing_from(at))
        });
        Schedule::from_ordered(steps.collect())
    }
}

impl Group {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many of the clients it has.
    pub fn portion(&self) -> Portion {
        self.portion
    }
}

#[cfg(test)]
mod tests;
