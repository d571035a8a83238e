//! The kinds of phases, and what each does to a link unless the scenario says otherwise.

use std::fmt;
use std::time::Duration;

use super::settings::{Set, Settings};
use crate::queue::{Discipline, Queue, QueueLength};
use crate::spec::Capacity;

/// Jitter to either side: between a good Wi-Fi's 5 ms and the 100 ms at which a stream stutters.
const JITTER: Duration = Duration::from_millis(40);

/// Loss and its bursts: enough for TCP to retransmit several times a second at 30 tokens/s.
const LOSS: f64 = 0.05;
const BURST: f64 = 3.0;

/// A rate below what a few streams need, and a queue that takes two seconds of it, as home routers and base stations have
/// (Gettys & Nichols, "Bufferbloat: Dark Buffers in the Internet", ACM Queue 9, 2011).
const BLOATED_RATE: u64 = 1_000_000;
const BLOATED_QUEUE: QueueLength = QueueLength::Time(Duration::from_secs(2));

/// What a phase is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseKind {
    /// Nothing special.
    Calm,
    /// Delay that varies.
    Jitter,
    /// Packets that get lost, in bursts.
    Lossy,
    /// Silence.
    Blackout,
    /// A slow link behind a long queue.
    Bufferbloat,
    /// A recorded or made-up link.
    Trace,
}

/// A stretch of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    pub(super) name: String,
    pub(super) kind: PhaseKind,
    pub(super) duration: Duration,
}

impl Phase {
    /// Its name, which several may share.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is about.
    pub fn kind(&self) -> PhaseKind {
        self.kind
    }

    /// How long it takes.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl PhaseKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Calm, Self::Jitter, Self::Lossy, Self::Blackout, Self::Bufferbloat, Self::Trace];

    /// As it is written in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Jitter => "jitter",
            Self::Lossy => "lossy",
            Self::Blackout => "blackout",
            Self::Bufferbloat => "bufferbloat",
            Self::Trace => "trace",
        }
    }

    /// What it does to a link, as if the phase at `line` had said so.
    pub(super) fn settings(self, line: usize) -> Settings {
        let queue = |length| Queue::try_new(Discipline::DropTail, length).ok();
        let none = Settings::default();
        match self {
            Self::Calm | Self::Blackout => none,
            Self::Jitter => Settings { jitter: Some(Set { value: JITTER, line }), ..none },
            Self::Lossy => Settings {
                loss: Some(Set { value: LOSS, line }),
                burst: Some(Set { value: BURST, line }),
                ..none
            },
            Self::Bufferbloat => Settings {
                capacity: Some(Set { value: Capacity::Rate(BLOATED_RATE), line }),
                queue: queue(BLOATED_QUEUE).map(|value| Set { value, line }),
                ..none
            },
            Self::Trace => {
                Settings { queue: queue(BLOATED_QUEUE).map(|value| Set { value, line }), ..none }
            }
        }
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
