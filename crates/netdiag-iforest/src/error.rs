//! What can be wrong with parameters, rows and model files, each with the value, its place and the remedy.

use crate::nodes::{MAX_FEATURES, MAX_ROWS_PER_TREE};
use crate::rows::InvalidRows;

/// Why nothing was fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The rows are no rows of numbers.
    #[error(transparent)]
    Rows(#[from] InvalidRows),
    /// Nothing can be learned from so few.
    #[error("{rows} rows are too few: give at least {needed}")]
    TooFewRows {
        /// Rows given.
        rows: usize,
        /// The least that will do.
        needed: usize,
    },
    /// More than a tree can choose from.
    #[error("{0} rows are too many: give at most {max}", max = u32::MAX)]
    TooManyRows(usize),
    /// More than a node can name.
    #[error("{0} features are too many: give at most {MAX_FEATURES}")]
    TooManyFeatures(usize),
    /// A forest of nothing.
    #[error("n_estimators is 0: give at least 1")]
    NoEstimators,
    /// Outside (0, 0.5].
    #[error("contamination {0} is outside (0, 0.5]: give a share of the rows, or auto")]
    Contamination(f64),
    /// A number of rows per tree that makes no tree, or too large a one.
    #[error("max_samples {0} is outside 2..={MAX_ROWS_PER_TREE}: 256 is the usual value")]
    MaxSamples(usize),
    /// Outside (0, 1].
    #[error("max_samples {0} is outside (0, 1]: give a share of the rows, or a count")]
    MaxSamplesFraction(f64),
    /// None, or more than there are.
    #[error("max_features {given} is outside 1..={features}, the features of a row")]
    MaxFeatures {
        /// Features per tree, as given.
        given: usize,
        /// Features of a row.
        features: usize,
    },
    /// Outside (0, 1].
    #[error("max_features {0} is outside (0, 1]: give a share of the features, or a count")]
    MaxFeaturesFraction(f64),
}

/// Why rows were not scored or scaled.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// The rows are no rows of numbers.
    #[error(transparent)]
    Rows(#[from] InvalidRows),
    /// Other rows than those of the training.
    #[error("rows have {given} features, and {expected} were trained on")]
    Features {
        /// Features per row, as given.
        given: usize,
        /// Features of the training.
        expected: usize,
    },
}

/// Why a stored model is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidModel {
    /// The number of features is 0 or more than a node can name.
    #[error("model has {0} features, outside 1..={MAX_FEATURES}")]
    Features(usize),
    /// The number of rows per tree makes no tree, or too large a one.
    #[error("model has max_samples {0}, outside 2..={MAX_ROWS_PER_TREE}")]
    MaxSamples(usize),
    /// The offset is no score.
    #[error("model has offset {0}, outside -1..=0")]
    Offset(f64),
    /// A forest of nothing.
    #[error("model has no trees")]
    NoTrees,
    /// A tree is none.
    #[error("tree {tree}, node {node}: {problem}")]
    Tree {
        /// From 0.
        tree: usize,
        /// From 0, in the order of the file.
        node: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The scaler's lists have different lengths, or none.
    #[error(
        "scaler has {mean} means and {scale} scales: as many of one as of the other, at least 1"
    )]
    ScalerLength {
        /// Means in the file.
        mean: usize,
        /// Scales in the file.
        scale: usize,
    },
    /// A mean is not finite, or a scale not positive.
    #[error(
        "scaler column {column}: mean {mean}, scale {scale}; means are finite, scales positive"
    )]
    Scaler {
        /// From 0.
        column: usize,
        /// Its mean.
        mean: f64,
        /// Its scale.
        scale: f64,
    },
}
