//! What an experiment recorded, and what it comes to: the data behind `summary.json` and `report.html`.
//!
//! Invariant: nothing here is better or worse than what was counted.

use std::time::Duration;

use netdiag_lab::metrics::{self, Summary};
use serde::Serialize;

use super::cpu::CpuUse;

/// Share of the highest rate that counts as slowed down, and as recovered.
const SLOW: f64 = 0.5;
const RECOVERED: f64 = 0.9;

/// A whole experiment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Version of this file.
    pub(crate) format: &'static str,
    pub(crate) scenario: String,
    pub(crate) description: String,
    pub(crate) seed: u64,
    /// Length of the link schedule.
    pub(crate) seconds: f64,
    /// Streams per arm.
    pub(crate) streams: usize,
    pub(crate) min_tps: f64,
    pub(crate) max_tps: f64,
    /// Which source measured: `ebpf` or `sockdiag`.
    pub(crate) source: String,
    /// What the machine had to do meanwhile.
    pub(crate) cpu: CpuUse,
    pub(crate) phases: Vec<PhaseSpan>,
    pub(crate) arms: Vec<ArmRecord>,
}

/// A phase as it was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseSpan {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) from_seconds: f64,
    pub(crate) to_seconds: f64,
    /// Not a calm one.
    pub(crate) fault: bool,
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
    /// Drawn, and written to `hints.csv`.
    #[serde(skip)]
    pub(crate) ticks: Vec<Tick>,
}

/// What was recommended, tokens/s per stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Rate {
    pub(crate) mean_in_calm_tps: Option<f64>,
    pub(crate) mean_in_faults_tps: Option<f64>,
    pub(crate) lowest_tps: Option<f64>,
    /// Faults that followed a calm phase.
    pub(crate) faults: usize,
    /// Those in which the rate fell below half of the maximum, and how long that took, median.
    pub(crate) slowed: usize,
    pub(crate) slowed_after_seconds: Option<f64>,
    /// Calm phases after a fault.
    pub(crate) calms: usize,
    /// Those in which the rate came back to 90 % of the maximum, and how long that took, median.
    pub(crate) recovered: usize,
    pub(crate) recovered_after_seconds: Option<f64>,
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
    pub(crate) hold: bool,
    /// All streams together.
    pub(crate) generated_tps: f64,
    pub(crate) delivered_tps: f64,
}

impl Record {
    /// The name of the phase at a time.
    pub(crate) fn phase_at(&self, seconds: f64) -> &str {
        let phase = self.phases.iter().rev().find(|phase| seconds >= phase.from_seconds);
        phase.map_or("", |phase| &phase.name)
    }

    /// What was run, in a sentence.
    pub(crate) fn setting(&self) -> String {
        let arms: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        format!(
            "{} streams per arm for {:.0} s, arms {}; rates from {} to {} tokens/s, seed {}, measured by {}. {}",
            self.streams,
            self.seconds,
            arms.join(", "),
            self.min_tps,
            self.max_tps,
            self.seed,
            self.source,
            self.cpu.sentence(),
        )
    }
}

impl Rate {
    /// Of an arm's intervals. `highest` is the most that can be recommended.
    pub(crate) fn of(ticks: &[Tick], phases: &[PhaseSpan], highest: f64) -> Self {
        let fault_at = |seconds: f64| {
            let phase = phases
                .iter()
                .find(|phase| seconds > phase.from_seconds && seconds <= phase.to_seconds);
            phase.is_some_and(|phase| phase.fault)
        };
        let mean = |fault: bool| {
            let rates: Vec<f64> = ticks
                .iter()
                .filter(|tick| fault_at(tick.seconds) == fault)
                .map(|tick| tick.current_tps)
                .collect();
            (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
        };
        // Faults that follow one another are one.
        let turns = |to_fault: bool| -> Vec<f64> {
            let pairs = phases.windows(2);
            let turns = pairs.filter(|pair| pair[0].fault != to_fault && pair[1].fault == to_fault);
            turns.map(|pair| pair[1].from_seconds).collect()
        };
        let (faults, calms) = (turns(true), turns(false));
        let reaction = |causes: &[f64], others: &[f64], is: &dyn Fn(&Tick) -> bool| {
            let reactions = ticks.iter().filter(|tick| is(tick)).map(|tick| tick.seconds);
            Reactions::of(causes, others, &reactions.collect::<Vec<_>>())
        };
        let down = reaction(&faults, &calms, &|tick| tick.current_tps < SLOW * highest);
        let back = reaction(&calms, &faults, &|tick| tick.current_tps >= RECOVERED * highest);
        Self {
            mean_in_calm_tps: mean(false),
            mean_in_faults_tps: mean(true),
            lowest_tps: ticks.iter().map(|tick| tick.current_tps).reduce(f64::min),
            faults: faults.len(),
            slowed: down.count,
            slowed_after_seconds: down.median_seconds,
            calms: calms.len(),
            recovered: back.count,
            recovered_after_seconds: back.median_seconds,
        }
    }
}

/// How often something was reacted to, and how soon.
struct Reactions {
    count: usize,
    median_seconds: Option<f64>,
}

impl Reactions {
    /// Reactions to `causes`, all in seconds and ascending. One that comes after the next of `others`, which turns things
    /// round again, is none.
    fn of(causes: &[f64], others: &[f64], reactions: &[f64]) -> Self {
        let durations = |seconds: &[f64]| -> Vec<Duration> {
            seconds.iter().map(|&second| Duration::from_secs_f64(second)).collect()
        };
        let times = metrics::reaction_times(&durations(causes), &durations(reactions));
        let in_time = causes.iter().zip(times).filter_map(|(cause, time)| {
            let time = time?.as_secs_f64();
            let end = others.iter().copied().find(|other| other > cause);
            (cause + time <= end.unwrap_or(f64::INFINITY)).then_some(time)
        });
        let mut in_time: Vec<f64> = in_time.collect();
        in_time.sort_unstable_by(f64::total_cmp);
        Self {
            count: in_time.len(),
            median_seconds: netdiag_health::quantile_of_sorted(&in_time, 0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(from_seconds: f64, to_seconds: f64, fault: bool) -> PhaseSpan {
        PhaseSpan { name: String::new(), kind: "", from_seconds, to_seconds, fault }
    }

    fn tick(seconds: f64, current_tps: f64) -> Tick {
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
            hold: false,
            generated_tps: 0.0,
            delivered_tps: 0.0,
        }
    }

    #[test]
    fn reactions_are_timed_from_the_turn_of_the_link() {
        // Two faults in a row are one; the rate has not come back when the next begins.
        let phases = [
            phase(0.0, 10.0, false),
            phase(10.0, 15.0, true),
            phase(15.0, 20.0, true),
            phase(20.0, 30.0, false),
            phase(30.0, 40.0, true),
            phase(40.0, 45.0, false),
            phase(45.0, 50.0, true),
        ];
        let rates = [
            (9.0, 80.0),
            (11.0, 50.0),
            (12.0, 39.0),
            (19.0, 5.0),
            (21.0, 60.0),
            (23.5, 72.0),
            (34.0, 30.0),
            (44.0, 71.0),
            (49.0, 72.0),
        ];
        let ticks: Vec<Tick> = rates.iter().map(|&(at, rate)| tick(at, rate)).collect();
        let rate = Rate::of(&ticks, &phases, 80.0);
        assert_eq!((rate.faults, rate.slowed, rate.slowed_after_seconds), (3, 2, Some(3.0)));
        assert_eq!((rate.calms, rate.recovered, rate.recovered_after_seconds), (2, 1, Some(3.5)));
        assert_eq!(rate.lowest_tps, Some(5.0));
        assert_eq!(rate.mean_in_calm_tps, Some((80.0 + 60.0 + 72.0 + 71.0) / 4.0));
    }

    #[test]
    fn nothing_recorded_is_nothing_said() {
        let rate = Rate::of(&[], &[phase(0.0, 1.0, false)], 80.0);
        assert_eq!((rate.mean_in_calm_tps, rate.lowest_tps, rate.faults), (None, None, 0));
    }
}
