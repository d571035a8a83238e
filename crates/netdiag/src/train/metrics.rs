//! `training_metrics.json`: what a training found out about its model, format `netdiag-training-metrics/1`.
//!
//! Field names are a contract; their units are in the names or said here. A figure that could not be computed is `null`, and
//! `notes` say why. Nothing in it depends on when, where or how fast the training ran.

use netdiag_health::{FEATURE_NAMES, FEATURES, Features, Training};
use netdiag_iforest::{Contamination, Params};
use serde::Serialize;

use super::judgement::Judgement;
use super::recording::Recording;
use super::scores::Scored;
use super::stability::Stability;

/// The tag of the format.
pub(super) const FORMAT: &str = "netdiag-training-metrics/1";

/// Units of the features, in the order of their names.
const UNITS: [&str; FEATURES] = ["ln", "ln", "share", "ln per second"];

/// The whole file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Metrics {
    /// `netdiag-training-metrics/1`.
    pub(crate) format: &'static str,
    /// What was trained from.
    pub(crate) data: Data,
    /// What it was trained with.
    pub(crate) parameters: Parameters,
    /// The features over the used rows.
    pub(crate) features: Vec<FeatureSummary>,
    /// The model's scores of the rows that it was trained from.
    pub(crate) training: Scored,
    /// A model of the first three quarters of the used rows, judging the rest of the recording.
    pub(crate) hold_out: Option<HoldOut>,
    /// The model, judging the recording given by `--validate`.
    pub(crate) validation: Option<Validation>,
    /// How alike models of other seeds are.
    pub(crate) stability: Option<Stability>,
    /// What a person should know, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// A recording.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Data {
    /// The file's name without its folder.
    pub(crate) file: String,
    /// Rows of the file.
    pub(crate) rows: usize,
    /// Rows that showed something; these are trained from.
    pub(crate) used_rows: usize,
    /// Rows without a round trip, a retransmission or a stalled flow.
    pub(crate) idle_rows: usize,
    /// From the first row to the last, seconds.
    pub(crate) span_seconds: f64,
    /// Whether the file has a column `label`.
    pub(crate) labelled: bool,
}

/// Parameters of a training.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Parameters {
    /// Share of the training rows to flag, in (0, 0.5]; `None` for `auto`.
    pub(crate) contamination: Option<f64>,
    /// Trees.
    pub(crate) estimators: usize,
    /// Where the random numbers start.
    pub(crate) seed: u64,
}

/// One feature over the used rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FeatureSummary {
    /// As in the model file.
    pub(crate) name: &'static str,
    /// Of mean and deviation.
    pub(crate) unit: &'static str,
    /// Arithmetic mean.
    pub(crate) mean: f64,
    /// Standard deviation.
    pub(crate) deviation: f64,
    /// It has one value only, and tells the forest nothing.
    pub(crate) constant: bool,
}

/// The hold-out in time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HoldOut {
    /// Used rows that the judging model was trained from; those that follow are judged.
    pub(crate) trained_rows: usize,
    /// What that model makes of them; its fields stand beside the others.
    #[serde(flatten)]
    pub(crate) judgement: Judgement,
}

/// Another recording.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Validation {
    /// The file's name without its folder.
    pub(crate) file: String,
    #[serde(flatten)]
    pub(crate) judgement: Judgement,
}

impl Data {
    pub(super) fn of(recording: &Recording) -> Self {
        let (rows, used) = (recording.intervals.len(), recording.used().count());
        Self {
            file: recording.name.clone(),
            rows,
            used_rows: used,
            idle_rows: rows - used,
            span_seconds: recording.span().as_secs_f64(),
            labelled: recording.intervals.iter().any(|interval| interval.label.is_some()),
        }
    }
}

impl Parameters {
    pub(super) fn of(params: &Params) -> Self {
        let contamination = match params.contamination {
            Contamination::Auto => None,
            Contamination::Fraction(share) => Some(share),
        };
        Self { contamination, estimators: params.n_estimators, seed: params.seed }
    }
}

impl FeatureSummary {
    /// Of all features, in the order of their names.
    pub(super) fn all(rows: &[Features], training: &Training) -> Vec<Self> {
        let n = rows.len().max(1) as f64;
        let summary = |feature: usize| {
            let values = || rows.iter().map(|row| f64::from(row.to_row()[feature]));
            let mean = values().sum::<f64>() / n;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
            let name = FEATURE_NAMES[feature];
            let constant = training.constant_features.contains(&name);
            Self {
                name,
                unit: UNITS[feature],
                mean,
                // What rounding leaves of a constant is no deviation.
                deviation: if constant { 0.0 } else { variance.sqrt() },
                constant,
            }
        };
        (0..FEATURES).map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use netdiag_health::TrainingSet;

    use super::*;

    #[test]
    fn features_are_summarised() {
        let row = |i: i32| Features {
            rtt_ratio: f64::from(i % 3),
            retrans_rate: 0.1,
            ..Features::default()
        };
        let rows: Vec<Features> = (0..300).map(row).collect();
        let set = TrainingSet::new(rows.iter().map(|row| row.to_row()));
        let model = set.train(&Params::default()).expect("trainable");
        let all = FeatureSummary::all(&rows, model.training());
        assert_eq!(all.iter().map(|feature| feature.name).collect::<Vec<_>>(), FEATURE_NAMES);
        // 0, 1, 2 in turn: mean 1, variance 2/3.
        assert_eq!((all[0].mean, all[0].constant), (1.0, false));
        assert!((all[0].deviation - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((all[2].deviation, all[2].constant, all[2].unit), (0.0, true, "share"));
        assert!((all[2].mean - 0.1).abs() < 1e-8);
    }
}
