//! The judgement of one link, interval by interval.
//!
//! Training is the caller's to run, wherever it likes: [`Health::take_training_set`] hands out a copy of the rows when a
//! training is due, [`TrainingSet::train`](crate::TrainingSet::train) is a pure function of them, and [`Health::set_model`]
//! puts its result in place between two intervals.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::change::ChangeDetector;
use crate::features::{FeatureTracker, Features, Observation, Recent};
use crate::model::Model;
use crate::score::{self, Flag, ForestPart, Scores};
use crate::training::{Reservoir, TrainingSet};

/// The memory of one scope: some 15 KB, and 32 KB of rows if it gathers them.
#[derive(Clone, Debug)]
pub struct Health {
    tracker: FeatureTracker,
    change: ChangeDetector,
    flag: Flag,
    /// `None` if it gathers no rows.
    reservoir: Option<Reservoir>,
    model: Option<Arc<Model>>,
}

/// What a judgement rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Rolling quantiles alone: there is no model yet.
    Quantiles,
    /// Rolling quantiles and a model's forest.
    Model,
}

/// The judgement after an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment {
    /// 0..=1; 1 is as good as this link gets.
    pub health: f64,
    /// The anomaly light: something that hurts has lasted for some two seconds.
    pub anomaly: bool,
    /// 0..=1; the light is on from one half, if it lasts.
    pub anomaly_score: f64,
    /// How much the interval's p95 RTT differs from those just before, see [`ChangeDetector`]; 0 without an RTT.
    pub surprise: f64,
    /// What the judgement was made from.
    pub features: Features,
    /// The same for people.
    pub recent: Recent,
    /// Share of flows that stall, 0..=1, lately.
    pub stalled: f64,
    /// The interval showed nothing to judge by; the judgement is the last one, and after some seconds a clean sheet.
    pub idle: bool,
    /// What it rests on.
    pub basis: Basis,
}

impl Health {
    /// A link of which nothing is known: presumed healthy. `seed` picks the rows that models are trained from.
    pub fn new(seed: u64) -> Self {
        Self { reservoir: Some(Reservoir::new(seed)), ..Self::without_training() }
    }

    /// The same without gathering rows: for the many streams of a host, which are judged by the host's model.
    pub fn without_training() -> Self {
        Self {
            tracker: FeatureTracker::new(),
            change: ChangeDetector::new(),
            flag: Flag::default(),
            reservoir: None,
            model: None,
        }
    }

    /// Takes in an interval that lasted `elapsed` and judges the link as it is after it.
    pub fn observe(&mut self, seen: &Observation, elapsed: Duration) -> Assessment {
        let view = self.tracker.observe(seen, elapsed);
        let surprise = seen.rtt.map_or(0.0, |rtt| self.change.push(rtt.p95.max(rtt.min)));
        let mut usual = score::range_as_badness(view.usual);
        let mut forest = ForestPart::default();
        if let Some(model) = &self.model {
            forest = model.judge(&view.features);
            usual = usual.max(model.usual());
        }
        let Scores { health, lasting, anomaly: anomaly_score } =
            score::combine(&view, usual, forest, surprise);
        let anomaly = self.flag.update(lasting, elapsed);
        // What the rules call an anomaly must not become the norm.
        if let Some(reservoir) = &mut self.reservoir
            && !view.idle
            && !anomaly
        {
            reservoir.offer(view.features, elapsed);
        }
        Assessment {
            health,
            anomaly,
            anomaly_score,
            surprise,
            features: view.features,
            recent: view.recent,
            stalled: view.stalled,
            idle: view.idle,
            basis: if self.model.is_some() { Basis::Model } else { Basis::Quantiles },
        }
    }

    /// The rows to train a model from, if a training is due: after 300 seconds of activity, then every 1024.
    pub fn take_training_set(&mut self) -> Option<TrainingSet> {
        self.reservoir.as_mut()?.take()
    }

    /// The training set that was taken came to nothing: one is due again after 60 seconds of activity.
    pub fn put_training_off(&mut self) {
        if let Some(reservoir) = &mut self.reservoir {
            reservoir.put_off();
        }
    }

    /// The model from now on.
    pub fn set_model(&mut self, model: Arc<Model>) {
        self.model = Some(model);
    }

    /// The model in use.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.model.as_ref()
    }
}

impl fmt::Display for Assessment {
    /// The reason, for people: `p95 RTT 62 ms, usually 20 ms, 1.2 % retransmitted, no model yet`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recent { p95_rtt, usual_rtt, retrans_segs, segs_out } = self.recent;
        match p95_rtt.zip(usual_rtt) {
            Some((now, usual)) => write!(f, "p95 RTT {}, usually {}", Millis(now), Millis(usual))?,
            None => f.write_str("no round trip was measured")?,
        }
        match segs_out {
            // Counts that two sources took at different moments may disagree.
            Some(sent) => {
                let share = retrans_segs as f64 / sent.max(retrans_segs).max(1) as f64;
                write!(f, ", {:.1} % retransmitted", share * 100.0)?;
            }
            None if retrans_segs == 1 => f.write_str(", 1 segment retransmitted")?,
            None => write!(f, ", {retrans_segs} segments retransmitted")?,
        }
        if self.stalled > 0.0 {
            write!(f, ", {:.0} % of flows stalled", self.stalled * 100.0)?;
        }
        match self.basis {
            Basis::Quantiles => f.write_str(", no model yet"),
            Basis::Model => Ok(()),
        }
    }
}

/// Whole milliseconds, or tenths where those would round most of the value away.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        write!(f, "{ms:.*} ms", usize::from(ms < 10.0))
    }
}

#[cfg(test)]
mod tests;
