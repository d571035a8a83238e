//! What an experiment recorded, and what it comes to: the data behind `summary.json` and `report.html`.
//!
//! Invariant: nothing here is better or worse than what was counted.

use netdiag_lab::metrics::Summary;
use serde::Serialize;

use super::bootstrap::Answer;
use super::comparison::Comparison;
use super::cpu::CpuUse;
use super::phases::{self, PhaseSpan};
use super::rate::Rate;
use crate::figures::counted;

/// A whole experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Version of this file.
    pub(crate) format: &'static str,
    /// Of the program that wrote it, and how that was called.
    pub(crate) version: &'static str,
    pub(crate) command: String,
    pub(crate) scenario: String,
    pub(crate) description: String,
    /// Of the links.
    pub(crate) seed: u64,
    /// Of questions and readers.
    pub(crate) reader_seed: u64,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// How long it should have run: longer than it did if it was cut short.
    pub(crate) planned_seconds: f64,
    /// Whether it was.
    pub(crate) cut_short: bool,
    /// What clients connected to: `engine` or `gateway`.
    pub(crate) via: &'static str,
    /// Streams per arm.
    pub(crate) streams: usize,
    pub(crate) min_tps: f64,
    pub(crate) max_tps: f64,
    /// Which source measured: `ebpf` or `sockdiag`.
    pub(crate) source: String,
    /// What engine and clients were, in sentences.
    pub(crate) model: String,
    /// What to know before reading any figure.
    pub(crate) notes: Vec<String>,
    /// What the machine had to do meanwhile.
    pub(crate) cpu: CpuUse,
    pub(crate) phases: Vec<PhaseSpan>,
    /// Groups of clients; one where the scenario makes no difference between them.
    pub(crate) groups: Vec<ClientGroup>,
    pub(crate) arms: Vec<ArmRecord>,
    /// Of each paced arm with the first that is not.
    pub(crate) comparisons: Vec<Comparison>,
}

/// A group of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClientGroup {
    pub(crate) name: String,
    /// Links, each with a client; streams share them.
    pub(crate) clients: usize,
}

/// One arm.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArmRecord {
    pub(crate) name: String,
    /// Whether the engine followed hints.
    pub(crate) paced: bool,
    /// What it came to for clients and engine.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    pub(crate) rate: Rate,
    /// In the order of the record's groups.
    pub(crate) groups: Vec<GroupFigures>,
    /// Why most of the failed answers failed.
    pub(crate) failure: Option<Failure>,
    /// What each answer contributes to the figures that are compared.
    #[serde(skip)]
    pub(crate) answers: Vec<Answer>,
    /// Drawn, and written to `hints.csv`.
    #[serde(skip)]
    pub(crate) ticks: Vec<Tick>,
}

/// What an arm came to for one group of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct GroupFigures {
    pub(crate) answers: usize,
    pub(crate) qoe_mean: Option<f64>,
    pub(crate) stall_ratio: Option<f64>,
    /// Recommended, tokens/s per stream.
    pub(crate) mean_tps: Option<f64>,
    pub(crate) lowest_tps: Option<f64>,
}

/// A reason for which answers failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) answers: usize,
}

/// One interval of an arm.
#[derive(Clone, Debug)]
pub(crate) struct Tick {
    /// Since the start of the schedule.
    pub(crate) seconds: f64,
    pub(crate) p95_rtt_ms: Option<f64>,
    pub(crate) retrans_segs: u64,
    pub(crate) health: f64,
    pub(crate) anomaly: bool,
    pub(crate) anomaly_score: f64,
    pub(crate) state: &'static str,
    /// Mean over clients, as is the next.
    pub(crate) current_tps: f64,
    pub(crate) target_tps: f64,
    /// The first of them for each group of clients, where there was one with a hint.
    pub(crate) group_tps: Vec<Option<f64>>,
    pub(crate) hold: bool,
    /// All streams together.
    pub(crate) generated_tps: f64,
    pub(crate) delivered_tps: f64,
}

impl Record {
    /// The name of the phase at a time.
    pub(crate) fn phase_at(&self, seconds: f64) -> &str {
        phases::at(&self.phases, seconds).map_or("", |phase| &phase.name)
    }

    /// What was run, in a sentence.
    pub(crate) fn setting(&self) -> String {
        let arms: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        let readers = match self.reader_seed {
            seed if seed == self.seed => String::new(),
            seed => format!(" and {seed} for readers"),
        };
        format!(
            "{} per arm for {:.0} s{}, {} ({}); rates from {} to {} tokens/s, seed {}{}, measured by {}. {}",
            counted(self.streams, "stream", "streams"),
            self.seconds,
            if self.via == "gateway" { " through the gateway" } else { "" },
            counted(arms.len(), "arm", "arms"),
            arms.join(", "),
            self.min_tps,
            self.max_tps,
            self.seed,
            readers,
            self.source,
            self.cpu.sentence(),
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An interval with a rate, for tests.
    pub(in crate::experiment) fn tick(seconds: f64, current_tps: f64) -> Tick {
        Tick {
            seconds,
            p95_rtt_ms: None,
            retrans_segs: 0,
            health: 1.0,
            anomaly: false,
            anomaly_score: 0.0,
            state: "clear",
            current_tps,
            target_tps: current_tps,
            group_tps: Vec::new(),
            hold: false,
            generated_tps: 0.0,
            delivered_tps: 0.0,
        }
    }
}
