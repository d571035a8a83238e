//! Many runs as one answer: each policy in each world, over some seeds, with how sure the answer is.
//!
//! A study is data; [`Study::jobs`] are its runs, which know nothing of each other and can go on any thread in any order, and
//! [`Study::report`] puts their results together. So nothing here starts a thread, and the report does not depend on who did.
//!
//! A seed is the same clients for every policy. Intervals are Student's over the seeds (95 %); where policies are compared, the
//! difference is taken seed by seed first, because most of what differs between two seeds is the same for both.
//!
//! Invariant: a report is a function of the study.

use std::time::Duration;

use netdiag_pacer::TpsRange;
use serde::Serialize;

use super::{InvalidSetup, Outcome, Policies, Policy, Setup, World, run};
use crate::cellular::cellular;
use crate::engine::Model;
use crate::trace::Trace;

/// The quality that counts as served: [`Report`] tells up to which load it is kept.
pub const SERVED_QOE: f64 = 0.95;

/// Loads between which that is looked for, and how finely. Below, no policy of use fails; beyond, none serves.
const LOADS: [f64; 2] = [0.3, 2.3];
const LOAD_STEP: f64 = 0.01;

/// Who the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mix {
    /// Share on cellular links.
    pub cellular: f64,
    /// Share of those that vanish.
    pub vanishing: f64,
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Study {
    /// All but load and mix of clients.
    pub setup: Setup,
    /// The clients.
    pub mixes: Vec<Mix>,
    /// The loads.
    pub loads: Vec<f64>,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Whether to look for the capacity as well.
    pub capacity: bool,
}

/// One piece of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    mix: Mix,
    /// `None`: look for the capacity.
    load: Option<f64>,
    policy: Policy,
    seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// A run.
    Run(Box<Outcome>),
    /// The highest load served.
    Capacity(f64),
}

/// A mean over the seeds and how far the true one may be from it, with 95 % confidence; no distance from one seed alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub within: Option<f64>,
}

/// A policy in a world.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The policy.
    pub policy: Policy,
    /// Mean QoE of a stream.
    pub qoe: Estimate,
    /// By how much that is above the QoE of `none`, clients being the same; `None` without `none`.
    pub qoe_gain: Option<Estimate>,
    /// Wasted share of the tokens generated.
    pub waste_ratio: Estimate,
    /// Tokens acknowledged that their reader never came to.
    pub unread_tokens: Estimate,
    /// Tokens/s by their worth to the reader.
    pub effective_tps: Estimate,
    /// Tokens/s delivered.
    pub delivered_tps: Estimate,
    /// Share of the reading time spent waiting.
    pub stall_ratio: Estimate,
    /// Mean time to the first token, seconds.
    pub ttft_seconds: Estimate,
}

/// All policies in one world.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The clients.
    pub mix: Mix,
    /// The load.
    pub load: f64,
    /// A row for each policy.
    pub rows: Vec<Row>,
}

/// How much each policy can serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capacities {
    /// The clients.
    pub mix: Mix,
    /// The highest load at which mean QoE is at least [`SERVED_QOE`].
    pub loads: Vec<(Policy, Estimate)>,
}

/// What a study found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// By mix and load.
    pub cells: Vec<Cell>,
    /// By mix; empty if it was not asked for.
    pub capacities: Vec<Capacities>,
}

impl Study {
    /// The comparison of the issue that asked for the `carry` policy: loads from 0.7 to 2, 30 % and 60 % of the clients on
    /// cellular links, 15 % and 30 % of those vanishing and 10 % of the others leaving, ten seeds of five minutes.
    pub fn paper(range: TpsRange, traces: Vec<Trace>) -> Self {
        let world = World {
            load: 1.0,
            burstiness: 1.0,
            cellular: 0.0,
            vanishing: 0.0,
            leaving: 0.1,
            patience: None,
            outages: None,
            round_trip: None,
            loss: (0.001, 1.0),
            traces,
            duration: Duration::from_secs(300),
        };
        Self {
            setup: Setup { model: Model::default(), world, policies: Policies::new(range) },
            mixes: vec![
                Mix { cellular: 0.3, vanishing: 0.15 },
                Mix { cellular: 0.6, vanishing: 0.3 },
            ],
            loads: vec![0.7, 1.0, 1.2, 1.5, 2.0],
            policies: Policy::ALL.to_vec(),
            seeds: (1..=10).collect(),
            capacity: true,
        }
    }

    /// The same with what is needed for a first look: two seeds of two minutes.
    pub fn quick(range: TpsRange, traces: Vec<Trace>) -> Self {
        let mut study = Self::paper(range, traces);
        study.setup.world.duration = Duration::from_secs(120);
        study.mixes.truncate(1);
        Self { loads: vec![0.7, 1.2, 2.0], seeds: vec![1, 2], capacity: false, ..study }
    }

    /// The same with clients that give up, come in bursts, and lose their links altogether at times.
    pub fn rough(range: TpsRange, traces: Vec<Trace>) -> Self {
        let mut study = Self::paper(range, traces);
        let world = &mut study.setup.world;
        // A page that shows nothing for ten seconds loses its reader (Nielsen, Usability Engineering, 1993, chapter 5); bursts as
        // ServeGen (arXiv 2505.09999) found them; handovers that lose everything for a second or two, twice a minute.
        world.patience = Some(Duration::from_secs(10));
        world.burstiness = 2.0;
        world.outages = Some((2.0, Duration::from_millis(1500)));
        study
    }

    /// Its pieces of work. The longest come first, so that no thread is left with one at the end.
    pub fn jobs(&self) -> Vec<Job> {
        let searches = self.mixes.iter().filter(|_| self.capacity).map(|&mix| (mix, None));
        let runs =
            self.mixes.iter().flat_map(|&mix| self.loads.iter().map(move |&l| (mix, Some(l))));
        let mut jobs = Vec::new();
        for (mix, load) in searches.chain(runs) {
            for &policy in &self.policies {
                jobs.extend(self.seeds.iter().map(|&seed| Job { mix, load, policy, seed }));
            }
        }
        jobs
    }

    /// Does one of them; `None` if `is_wanted` says before one of its runs that nobody waits for it any more.
    pub fn work(
        &self,
        job: Job,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Done>, InvalidSetup> {
        let at = |load| {
            let Mix { cellular, vanishing } = job.mix;
            let world = World { load, cellular, vanishing, ..self.setup.world.clone() };
            run(&Setup { world, ..self.setup.clone() }, job.policy, job.seed)
        };
        if !is_wanted() {
            return Ok(None);
        }
        if let Some(load) = job.load {
            return Ok(Some(Done::Run(Box::new(at(load)?))));
        }
        let [mut served, mut refused] = LOADS;
        while refused - served > LOAD_STEP {
            if !is_wanted() {
                return Ok(None);
            }
            let middle = (served + refused) / 2.0;
            let qoe = at(middle)?.summary.qoe_mean.unwrap_or(1.0);
            *(if qoe >= SERVED_QOE { &mut served } else { &mut refused }) = middle;
        }
        Ok(Some(Done::Capacity(served)))
    }

    /// What all of them found; `done` in the order of [`Study::jobs`].
    pub fn report(&self, done: &[Done]) -> Report {
        let jobs = self.jobs();
        let of = |mix: Mix, load: Option<f64>, policy: Policy| {
            let both = jobs.iter().zip(done);
            both.filter(move |(job, _)| (job.mix, job.load, job.policy) == (mix, load, policy))
        };
        let outcomes = |mix: Mix, load: f64, policy: Policy| -> Vec<&Outcome> {
            let runs = of(mix, Some(load), policy);
            runs.filter_map(|(_, done)| match done {
                Done::Run(outcome) => Some(&**outcome),
                Done::Capacity(_) => None,
            })
            .collect()
        };
        let cell = |mix: Mix, load: f64| {
            let none = outcomes(mix, load, Policy::None);
            let rows = self
                .policies
                .iter()
                .filter_map(|&policy| row(policy, &outcomes(mix, load, policy), &none));
            Cell { mix, load, rows: rows.collect() }
        };
        let cells = self.mixes.iter().flat_map(|&mix| self.loads.iter().map(move |&l| (mix, l)));
        let capacities = self.mixes.iter().filter(|_| self.capacity).map(|&mix| {
            let loads = self.policies.iter().filter_map(|&policy| {
                let found: Vec<f64> = of(mix, None, policy)
                    .filter_map(|(_, done)| match done {
                        Done::Capacity(load) => Some(*load),
                        Done::Run(_) => None,
                    })
                    .collect();
                Some((policy, Estimate::of(&found)?))
            });
            Capacities { mix, loads: loads.collect() }
        });
        Report {
            seeds: self.seeds.clone(),
            cells: cells.map(|(mix, load)| cell(mix, load)).collect(),
            capacities: capacities.collect(),
        }
    }
}

/// Made-up cellular links, for where no recording is at hand: every other one of 2 Mbit/s and of 500 kbit/s on average, as the UMTS
/// and EVDO drives of Winstein et al. (NSDI 2013) have it. Policies were tuned on 100 to 107 and are judged on others.
pub fn synthetic_traces(seeds: impl IntoIterator<Item = u64>) -> Vec<Trace> {
    let rate = |seed: u64| if seed.is_multiple_of(2) { 2_000_000 } else { 500_000 };
    // Both rates are within the model's.
    seeds.into_iter().filter_map(|seed| cellular(rate(seed), seed).ok()).collect()
}

/// `None` without outcomes.
fn row(policy: Policy, outcomes: &[&Outcome], none: &[&Outcome]) -> Option<Row> {
    let values = |of: fn(&Outcome) -> Option<f64>| -> Vec<f64> {
        outcomes.iter().map(|outcome| of(outcome).unwrap_or(0.0)).collect()
    };
    let estimate = |of| Estimate::of(&values(of));
    let qoe: fn(&Outcome) -> Option<f64> = |outcome| outcome.summary.qoe_mean;
    let gains: Vec<f64> = outcomes
        .iter()
        .zip(none)
        .filter_map(|(ours, theirs)| Some(qoe(ours)? - qoe(theirs)?))
        .collect();
    Some(Row {
        policy,
        qoe: estimate(qoe)?,
        qoe_gain: Estimate::of(&gains),
        waste_ratio: estimate(|o| o.summary.waste_ratio)?,
        unread_tokens: estimate(|o| Some(o.summary.unread_tokens as f64))?,
        effective_tps: estimate(|o| o.summary.effective_tps)?,
        delivered_tps: estimate(|o| o.summary.delivered_tps)?,
        stall_ratio: estimate(|o| o.summary.stall_ratio)?,
        ttft_seconds: estimate(|o| Some(o.summary.ttft?.mean_seconds))?,
    })
}

impl Estimate {
    /// From one value for each seed; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let within = (values.len() > 1)
            .then(|| student(values.len() - 1) * (squares / (n - 1.0) / n).sqrt());
        Some(Self { mean, within })
    }

    /// The least and the most that it may be.
    pub fn range(&self) -> [f64; 2] {
        let within = self.within.unwrap_or(0.0);
        [self.mean - within, self.mean + within]
    }
}

/// The 97.5 % quantile of Student's distribution (Abramowitz and Stegun, table 26.10); from 30 degrees on, within 4 % of the
/// normal one.
fn student(degrees: usize) -> f64 {
    const TABLE: [f64; 29] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045,
    ];
    TABLE.get(degrees.wrapping_sub(1)).copied().unwrap_or(2.0)
}
