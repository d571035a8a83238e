//! The forest: fitting, and what it says about rows.
//!
//! Invariant: a forest has at least one tree, all trees were grown from the same number of rows (two or more), and every
//! split names a feature that rows have. So scoring has no case to fail in but wrong rows.

use std::fmt;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{FitError, InvalidModel, ScoreError};
use crate::grow::Grower;
use crate::model::Stored;
use crate::nodes::{MAX_FEATURES, Nodes, score};
use crate::params::{Params, Resolved};
use crate::rows;

/// Where the line is drawn without a contamination: at an average path length (Liu et al. 2008, section 2, with
/// scikit-learn's sign).
const AUTO_OFFSET: f64 = -0.5;

/// Fewer rows than this make no tree.
const LEAST_ROWS: usize = 2;

/// A fitted forest.
///
/// Its serialised form is compact, and complete in that a forest read back scores the same to the last bit; see
/// [`InvalidModel`] for what is refused.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "Stored")]
pub struct IsolationForest {
    pub(crate) nodes: Nodes,
    pub(crate) features: usize,
    pub(crate) max_samples: u32,
    pub(crate) offset: f64,
}

/// What a row is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Like the training rows.
    Inlier,
    /// Unlike them: the decision function is below 0. scikit-learn's -1.
    Outlier,
}

impl IsolationForest {
    /// Grows a forest from rows of `features` values each, row-major.
    ///
    /// Columns with one value only are never split on. Rows that are all alike make a forest too, which finds
    /// every row average.
    ///
    /// # Errors
    ///
    /// Rows that are no rows of finite numbers or fewer than two, and parameters outside their range; see [`FitError`].
    ///
    /// ```
    /// use netdiag_iforest::{Contamination, IsolationForest, Label, Params};
    ///
    /// let rows: Vec<f32> = (0..200).map(|i| (i % 50) as f32).collect();
    /// let params = Params { contamination: Contamination::Fraction(0.1), ..Params::default() };
    /// let forest = IsolationForest::fit(&params, &rows, 2)?;
    /// let outliers = forest.predict(&rows, 2)?.iter().filter(|&&label| label == Label::Outlier).count();
    /// assert!(outliers <= 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit(params: &Params, rows: &[f32], features: usize) -> Result<Self, FitError> {
        let count = rows::check(rows, features)?;
        if features > MAX_FEATURES {
            return Err(FitError::TooManyFeatures(features));
        }
        if count < LEAST_ROWS {
            return Err(FitError::TooFewRows { rows: count, needed: LEAST_ROWS });
        }
        if u32::try_from(count).is_err() {
            return Err(FitError::TooManyRows(count));
        }
        let Resolved { samples, max_features, contamination } = params.resolve(count, features)?;

        let random = Xoshiro256PlusPlus::seed_from_u64(params.seed);
        let mut grower = Grower::new(rows, features, samples, max_features, random);
        let mut nodes = Nodes::default();
        for _ in 0..params.n_estimators {
            grower.grow(&mut nodes);
        }
        let max_samples = samples as u32;
        let mut forest = Self { nodes, features, max_samples, offset: AUTO_OFFSET };
        if let Some(share) = contamination {
            forest.offset = percentile(forest.scores(rows), share);
        }
        Ok(forest)
    }

    /// The score of each row, -1 (isolated at once) to 0; around -0.5 and above is what the training rows are like.
    /// No rows give no scores.
    ///
    /// # Errors
    ///
    /// Rows that are no rows of finite numbers, or with another number of features than those of the training.
    pub fn score_samples(&self, rows: &[f32], features: usize) -> Result<Vec<f64>, ScoreError> {
        rows::check(rows, features)?;
        self.check_features(features)?;
        Ok(self.scores(rows))
    }

    /// The score of each row above the offset: negative for outliers.
    ///
    /// # Errors
    ///
    /// As for [`score_samples`](Self::score_samples).
    pub fn decision_function(&self, rows: &[f32], features: usize) -> Result<Vec<f64>, ScoreError> {
        let mut scores = self.score_samples(rows, features)?;
        scores.iter_mut().for_each(|score| *score -= self.offset);
        Ok(scores)
    }

    /// What each row is taken for.
    ///
    /// # Errors
    ///
    /// As for [`score_samples`](Self::score_samples).
    pub fn predict(&self, rows: &[f32], features: usize) -> Result<Vec<Label>, ScoreError> {
        let decisions = self.decision_function(rows, features)?;
        Ok(decisions.into_iter().map(Label::of).collect())
    }

    /// [`score_samples`](Self::score_samples) for one row, to the same bits. Allocates nothing.
    ///
    /// # Errors
    ///
    /// A value that is not finite, or another number of features than those of the training.
    pub fn score_row(&self, row: &[f32]) -> Result<f64, ScoreError> {
        self.check_features(row.len())?;
        rows::check(row, row.len())?;
        Ok(self.score_of(self.nodes.path_length(row)))
    }

    /// [`decision_function`](Self::decision_function) for one row. Allocates nothing.
    ///
    /// # Errors
    ///
    /// As for [`score_row`](Self::score_row).
    pub fn decision_row(&self, row: &[f32]) -> Result<f64, ScoreError> {
        Ok(self.score_row(row)? - self.offset)
    }

    /// [`predict`](Self::predict) for one row. Allocates nothing.
    ///
    /// # Errors
    ///
    /// As for [`score_row`](Self::score_row).
    pub fn predict_row(&self, row: &[f32]) -> Result<Label, ScoreError> {
        self.decision_row(row).map(Label::of)
    }

    /// Values per row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Trees.
    pub fn n_estimators(&self) -> usize {
        self.nodes.trees()
    }

    /// Rows that each tree was grown from: what [`MaxSamples`](crate::MaxSamples) came to.
    pub fn max_samples(&self) -> usize {
        self.max_samples as usize
    }

    /// The score below which a row is an outlier.
    pub fn offset(&self) -> f64 {
        self.offset
    }

    fn check_features(&self, given: usize) -> Result<(), ScoreError> {
        let expected = self.features;
        if given == expected { Ok(()) } else { Err(ScoreError::Features { given, expected }) }
    }

    fn scores(&self, rows: &[f32]) -> Vec<f64> {
        let mut scores = self.nodes.path_lengths(rows, self.features);
        scores.iter_mut().for_each(|score| *score = self.score_of(*score));
        scores
    }

    fn score_of(&self, path_length: f64) -> f64 {
        score(path_length, self.nodes.trees(), self.max_samples)
    }
}

impl Label {
    fn of(decision: f64) -> Self {
        if decision < 0.0 { Label::Outlier } else { Label::Inlier }
    }
}

impl fmt::Debug for IsolationForest {
    /// Without the trees, which nobody wants to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IsolationForest")
            .field("n_estimators", &self.n_estimators())
            .field("max_samples", &self.max_samples)
            .field("features", &self.features)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl TryFrom<Stored> for IsolationForest {
    type Error = InvalidModel;

    fn try_from(stored: Stored) -> Result<Self, InvalidModel> {
        stored.into_forest()
    }
}

impl Serialize for IsolationForest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored::of(self).serialize(serializer)
    }
}

/// The value below which this share of the numbers lies, linearly interpolated, as `numpy.percentile` does it to the last
/// bit.
fn percentile(mut numbers: Vec<f64>, share: f64) -> f64 {
    // scikit-learn asks for a percentage, of which NumPy makes a share again; for 0.119 and others that is another number.
    let share = 100.0 * share / 100.0;
    let place = share * (numbers.len() - 1) as f64;
    let below = (place as usize).min(numbers.len() - 1);
    let (_, &mut low, above) = numbers.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    let (step, weight) = (high - low, place - below as f64);
    // From the nearer end, which is how NumPy keeps the result between both.
    if weight >= 0.5 { high - step * (1.0 - weight) } else { low + step * weight }
}

#[cfg(test)]
mod tests;
