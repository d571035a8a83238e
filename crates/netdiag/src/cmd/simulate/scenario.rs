//! `netdiag simulate --scenario`: what `netdiag experiment` is to be expected to measure.
//!
//! The conditions are the experiment's own, so that they cannot drift apart. Links lose and hold up the same packets with every
//! seed, as in each run of an experiment; the first seed is the experiment's, and so are its questions and readers. Readers are no part of
//! what is predicted: who leaves and how much was asked for decides most of the waste, and a run has few of them, so that it is to be
//! compared with a prediction for its own.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use anyhow::Context as _;
use netdiag_lab::metrics::Summary;
use netdiag_lab::sim::{Arm, CongestionControl, Estimate, rehearse};
use netdiag_pacer::TpsRange;
use serde::Serialize;

use super::super::experiment::{open_scenario, wrong_division};
use super::Args;
use crate::experiment::{Conditions, TELL};
use crate::failure::UsageError;
use crate::output;
use crate::place::Places;
use crate::replace::replace;
use crate::terminal::say;

/// Seeds unless told: enough for an interval of a third of what one seed strays.
const SEEDS: u64 = 10;

/// What is expected.
#[derive(Debug, Serialize)]
struct Prediction {
    format: &'static str,
    scenario: String,
    streams: usize,
    seconds: f64,
    congestion_control: CongestionControl,
    seeds: Vec<u64>,
    arms: Vec<ArmFigures>,
}

/// In one arm, over the seeds with something to judge; `None` where there is none. The figures are those of the experiment's
/// `summary.json`, and are dropped where those are.
#[derive(Debug, Serialize)]
struct ArmFigures {
    name: &'static str,
    waste_ratio: Option<Estimate>,
    stall_ratio: Option<Estimate>,
    qoe_mean: Option<Estimate>,
    unread_tokens: Option<Estimate>,
    delivered_tps: Option<Estimate>,
}

/// Simulates the experiment.
pub(super) fn run(name: &str, args: &Args, range: TpsRange, places: &Places) -> anyhow::Result<()> {
    let scenario = open_scenario(name, places)?.fit(args.duration).map_err(|error| {
        let given = places.named("duration", format_args!("{:?}", args.duration));
        UsageError::new(format!("{given}: {error}"))
    })?;
    let conditions = Conditions::new(&scenario, args.streams, range, TELL)
        .map_err(|error| wrong_division(&error, name, args.streams, places))?;
    let rehearsal = conditions.rehearsal()?;
    let count = args.seeds.unwrap_or(SEEDS);
    let first = args.seed.unwrap_or(conditions.reader_seed);
    let seeds: Vec<u64> = (0..count).map(|more| first.wrapping_add(more)).collect();
    let mut arms = Vec::new();
    for arm in Arm::ALL {
        let outcomes: Vec<Summary> =
            seeds.iter().map(|&seed| rehearse(&rehearsal, arm, seed)).collect::<Result<_, _>>()?;
        arms.push(ArmFigures::of(arm, &outcomes));
    }
    let prediction = Prediction {
        format: "netdiag-prediction/1",
        scenario: scenario.name().to_owned(),
        streams: args.streams,
        seconds: conditions.duration.as_secs_f64(),
        congestion_control: rehearsal.control,
        seeds,
        arms,
    };
    let json = serde_json::to_string_pretty(&prediction).context("figures as JSON")? + "\n";
    replace(&args.out, |file| file.write_all(json.as_bytes()))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    output::print(&prediction.to_string())?;
    say(&format!("netdiag: figures written to {}", args.out.display()));
    Ok(())
}

impl ArmFigures {
    fn of(arm: Arm, outcomes: &[Summary]) -> Self {
        let estimate = |of: fn(&Summary) -> Option<f64>| {
            let values: Vec<f64> = outcomes.iter().filter_map(of).collect();
            Estimate::of(&values)
        };
        Self {
            name: arm.as_str(),
            waste_ratio: estimate(|summary| summary.waste_ratio),
            stall_ratio: estimate(|summary| summary.stall_ratio),
            qoe_mean: estimate(|summary| summary.qoe_mean),
            unread_tokens: estimate(|summary| Some(summary.unread_tokens as f64)),
            delivered_tps: estimate(|summary| summary.delivered_tps),
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, streams, seconds, seeds, arms, .. } = self;
        writeln!(
            f,
            "{scenario}, {streams} streams, {seconds:.0} s; ± is the half-width of the 95 % interval over {} seeds",
            seeds.len()
        )?;
        let figure = |estimate: Option<Estimate>, times: f64, digits: usize| {
            let Some(estimate) = estimate else { return "-".to_owned() };
            let mut text = format!("{:.digits$}", estimate.mean * times);
            if let Some(within) = estimate.within {
                // Writing to a String cannot fail.
                let _ = write!(text, " ±{:.digits$}", within * times);
            }
            text
        };
        let names = ["waste %", "stall %", "QoE", "unread tok", "delivered/s"];
        let [waste, stall, qoe, unread, delivered] = names;
        writeln!(
            f,
            "  {:12} {waste:>14} {stall:>14} {qoe:>14} {unread:>14} {delivered:>14}",
            "arm"
        )?;
        for arm in arms {
            writeln!(
                f,
                "  {:12} {:>14} {:>14} {:>14} {:>14} {:>14}",
                arm.name,
                figure(arm.waste_ratio, 100.0, 2),
                figure(arm.stall_ratio, 100.0, 1),
                figure(arm.qoe_mean, 1.0, 3),
                figure(arm.unread_tokens, 1.0, 0),
                figure(arm.delivered_tps, 1.0, 0),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_with_nothing_to_judge_are_no_part_of_a_prediction() {
        let nothing = Summary::default();
        let some = Summary { waste_ratio: Some(0.2), ..Summary::default() };
        let figures = ArmFigures::of(Arm::Carry, &[nothing.clone(), some]);
        assert_eq!(figures.waste_ratio.map(|waste| waste.mean), Some(0.2));
        assert!(figures.stall_ratio.is_none());
        // Tokens that nobody has read can always be counted.
        assert!(ArmFigures::of(Arm::Carry, &[nothing]).unread_tokens.is_some());
    }
}
