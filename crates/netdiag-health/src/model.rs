//! A trained model: an Isolation Forest of a link's features, what its scores are on healthy data, and its file.
//!
//! Invariants: training is a pure function of rows and parameters; a model that exists is valid in every part, whether it was
//! trained or read; what [`Model::render`] writes, [`Model::parse`] reads back to the same judgement.

mod file;

use netdiag_iforest::{FitError, IsolationForest, Params, StandardScaler};

pub use file::ModelError;

use crate::features::{FEATURE_NAMES, FEATURES, Features};
use crate::quantile::quantile_of_sorted;
use crate::score::{self, Envelope, ForestPart};
use crate::training::TrainingSet;

/// Fewest rows to train from: one in twenty of them is then five.
const FEWEST_ROWS: usize = 100;

/// Most trees: a hundred times as many as scores take to settle. The envelope asks all of them some hundred times, which has to
/// end soon after a model is loaded.
const MOST_TREES: usize = 10_000;

/// Least distance from the median score to the 5th percentile, for links whose rows are all alike: a score moves by so much
/// when a row is isolated a tenth of the average depth earlier.
const LEAST_SPREAD: f64 = 0.03;

/// An Isolation Forest of a link's features, calibrated.
#[derive(Clone, Debug)]
pub struct Model {
    scaler: StandardScaler,
    forest: IsolationForest,
    calibration: Calibration,
    training: Training,
    /// Follows from the others.
    envelope: Envelope,
}

/// What healthy data looks like, from the training rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Calibration {
    /// Median of the forest's scores.
    score_median: f64,
    /// Their 5th percentile: what an interval in twenty is like.
    score_p5: f64,
    /// 95th percentile of badness.
    usual_badness: f64,
    /// Median of each feature.
    medians: [f32; FEATURES],
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Rows it was trained from.
    pub rows: usize,
    /// Features that had the same value in all of them, and so tell nothing.
    pub constant_features: Vec<&'static str>,
    /// The parameters.
    pub params: Params,
}

/// Why no model was trained.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// Nothing can be calibrated on so few.
    #[error(
        "{rows} rows with telemetry are too few: record at least {FEWEST_ROWS} intervals of traffic"
    )]
    TooFewRows {
        /// Rows given.
        rows: usize,
    },
    /// Every feature has one value only.
    #[error("all {rows} rows are alike: record intervals of real traffic")]
    NoVariation {
        /// Rows given.
        rows: usize,
    },
    /// More than a model file may have.
    #[error("n_estimators {0} is more than {MOST_TREES}: 100 to 500 trees will do")]
    TooManyTrees(usize),
    /// The forest refused.
    #[error(transparent)]
    Fit(#[from] FitError),
}

impl TrainingSet {
    /// Trains a model. A pure function of the rows and `params`, which takes some milliseconds: run it where it holds nobody
    /// up.
    ///
    /// # Errors
    ///
    /// Fewer than 100 rows, rows that are all alike, more than 10,000 trees, or parameters outside their range; see
    /// [`TrainError`].
    pub fn train(&self, params: &Params) -> Result<Model, TrainError> {
        let rows = self.rows().len();
        if rows < FEWEST_ROWS {
            return Err(TrainError::TooFewRows { rows });
        }
        if params.n_estimators > MOST_TREES {
            return Err(TrainError::TooManyTrees(params.n_estimators));
        }
        let columns = columns(self.rows());
        let is_constant = |column: &Vec<f64>| column.first() == column.last();
        if columns.iter().all(is_constant) {
            return Err(TrainError::NoVariation { rows });
        }
        let flat = self.rows().as_flattened();
        let scaler = StandardScaler::fit(flat, FEATURES)?;
        let scaled: Vec<f32> = self.rows().iter().flat_map(|row| scale(&scaler, *row)).collect();
        let forest = IsolationForest::fit(params, &scaled, FEATURES)?;
        // The forest was fitted on these very rows, so it scores them.
        let mut scores = forest.score_samples(&scaled, FEATURES).unwrap_or_default();
        scores.sort_by(f64::total_cmp);
        let mut badness: Vec<f64> =
            self.rows().iter().map(|row| score::badness(&Features::from_row(*row), 0.0)).collect();
        badness.sort_by(f64::total_cmp);
        let at = |sorted: &[f64], q| quantile_of_sorted(sorted, q).unwrap_or_default();
        let calibration = Calibration {
            score_median: at(&scores, 0.5),
            score_p5: at(&scores, 0.05),
            usual_badness: at(&badness, 0.95),
            medians: columns.each_ref().map(|column| at(column, 0.5) as f32),
        };
        let constant = FEATURE_NAMES.iter().zip(&columns).filter(|(_, column)| is_constant(column));
        let constant_features = constant.map(|(name, _)| *name).collect();
        let training = Training { rows, constant_features, params: *params };
        Ok(Model::new(scaler, forest, calibration, training))
    }
}

impl Model {
    /// From valid parts.
    fn new(
        scaler: StandardScaler,
        forest: IsolationForest,
        calibration: Calibration,
        training: Training,
    ) -> Self {
        let usual = Features::from_row(calibration.medians);
        let envelope = Envelope::of(|rtt_ratio, retrans_rate| {
            // A link at its best is at the edge of what it shows. That is unusual, and no worse than usual.
            let rtt_ratio = rtt_ratio.max(usual.rtt_ratio);
            let retrans_rate = retrans_rate.max(usual.retrans_rate);
            let features = Features { rtt_ratio, retrans_rate, ..usual };
            calibration.verdict(raw_score(&scaler, &forest, &features))
        });
        Self { scaler, forest, calibration, training, envelope }
    }

    /// The forest's score of these features, −1..=0: the lower, the more unusual, as scikit-learn's `score_samples`.
    pub fn score(&self, features: &Features) -> f64 {
        raw_score(&self.scaler, &self.forest, features)
    }

    /// The score below which the forest calls a row an outlier. With a contamination given, that share of the *training* rows is
    /// below it by definition, healthy as they may be; health and the anomaly flag do not use it.
    pub fn offset(&self) -> f64 {
        self.forest.offset()
    }

    /// Where the model comes from.
    pub fn training(&self) -> &Training {
        &self.training
    }

    pub(crate) fn judge(&self, features: &Features) -> ForestPart {
        ForestPart {
            verdict: self.calibration.verdict(self.score(features)),
            envelope: self.envelope.at(features),
        }
    }

    /// What counts as usual, in units of badness.
    pub(crate) fn usual(&self) -> f64 {
        self.calibration.usual_badness
    }
}

impl Calibration {
    /// A forest's score as 0..=1: 0 for what one healthy interval in twenty is like or better, 1 at twice that one's distance
    /// from the median. Not further out: a forest tells the edge of what it was trained on, and nothing beyond.
    fn verdict(&self, score: f64) -> f64 {
        let spread = (self.score_median - self.score_p5).max(LEAST_SPREAD);
        ((self.score_p5 - score) / spread).clamp(0.0, 1.0)
    }
}

fn raw_score(scaler: &StandardScaler, forest: &IsolationForest, features: &Features) -> f64 {
    // Features are finite; one beyond what f32 holds is as unusual as can be.
    forest.score_row(&scale(scaler, features.to_row())).unwrap_or(-1.0)
}

fn scale(scaler: &StandardScaler, mut row: [f32; FEATURES]) -> [f32; FEATURES] {
    // What cannot be scaled is left as it is, and refused by the forest.
    let _ = scaler.transform_row(&mut row);
    row
}

/// Each feature's values, ascending.
fn columns(rows: &[[f32; FEATURES]]) -> [Vec<f64>; FEATURES] {
    std::array::from_fn(|feature| {
        let mut column: Vec<f64> = rows.iter().map(|row| f64::from(row[feature])).collect();
        column.sort_by(f64::total_cmp);
        column
    })
}

#[cfg(test)]
mod tests;
