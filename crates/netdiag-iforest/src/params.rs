//! What a forest is fitted with, under scikit-learn's names and defaults, and what these come to for given rows.

use serde::{Deserialize, Serialize};

use crate::error::FitError;
use crate::nodes::MAX_ROWS_PER_TREE;

/// Parameters of a forest; the defaults are scikit-learn's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Number of trees. Scores settle well before 100 (Liu et al. 2008, section 4.1).
    pub n_estimators: usize,
    /// Rows that each tree is grown from.
    pub max_samples: MaxSamples,
    /// Share of the training rows to call outliers.
    pub contamination: Contamination,
    /// Features that each tree may split on.
    pub max_features: MaxFeatures,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            n_estimators: 100,
            max_samples: MaxSamples::Auto,
            contamination: Contamination::Auto,
            max_features: MaxFeatures::All,
            seed: 0,
        }
    }
}

/// What parameters come to for given rows.
pub(crate) struct Resolved {
    pub(crate) samples: usize,
    pub(crate) max_features: usize,
    pub(crate) contamination: Option<f64>,
}

impl Params {
    /// Whether a forest can be fitted with these parameters to so many rows and features.
    ///
    /// # Errors
    ///
    /// The parameter that is outside its range.
    pub fn check(&self, rows: usize, features: usize) -> Result<(), FitError> {
        self.resolve(rows, features).map(drop)
    }

    pub(crate) fn resolve(&self, rows: usize, features: usize) -> Result<Resolved, FitError> {
        if self.n_estimators == 0 {
            return Err(FitError::NoEstimators);
        }
        Ok(Resolved {
            samples: self.max_samples.of(rows)?,
            max_features: self.max_features.of(features)?,
            contamination: self.contamination.share()?,
        })
    }
}

/// How many rows a tree is grown from, drawn without replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxSamples {
    /// 256, or all rows if there are fewer. More rows hide outliers among inliers: swamping and masking (Liu et al. 2008,
    /// section 3).
    #[default]
    Auto,
    /// So many, or all rows if there are fewer; 2..=524,288.
    Count(usize),
    /// This share of the rows, in (0, 1], rounded down, at least 2.
    Fraction(f64),
}

/// Where the line between inliers and outliers is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contamination {
    /// At a score of -0.5: a mean depth as of an average row (Liu et al. 2008, section 2).
    #[default]
    Auto,
    /// So that this share of the training rows, in (0, 0.5], lies beyond it.
    Fraction(f64),
}

/// How many features a tree may split on, drawn anew for each tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxFeatures {
    /// All of them.
    #[default]
    All,
    /// So many, 1 to as many as there are.
    Count(usize),
    /// This share of them, in (0, 1], rounded down, at least 1.
    Fraction(f64),
}

impl MaxSamples {
    fn of(self, rows: usize) -> Result<usize, FitError> {
        let wanted = match self {
            MaxSamples::Auto => 256,
            MaxSamples::Count(count) if count < 2 => return Err(FitError::MaxSamples(count)),
            MaxSamples::Count(count) => count,
            MaxSamples::Fraction(share) if !is_share(share, 1.0) => {
                return Err(FitError::MaxSamplesFraction(share));
            }
            MaxSamples::Fraction(share) => (share * rows as f64) as usize,
        };
        match wanted.clamp(2, rows.max(2)) {
            samples if samples > MAX_ROWS_PER_TREE => Err(FitError::MaxSamples(samples)),
            samples => Ok(samples),
        }
    }
}

impl Contamination {
    /// The share of outliers, if one is asked for.
    fn share(self) -> Result<Option<f64>, FitError> {
        match self {
            Contamination::Auto => Ok(None),
            Contamination::Fraction(share) if is_share(share, 0.5) => Ok(Some(share)),
            Contamination::Fraction(share) => Err(FitError::Contamination(share)),
        }
    }
}

impl MaxFeatures {
    fn of(self, features: usize) -> Result<usize, FitError> {
        match self {
            MaxFeatures::All => Ok(features),
            MaxFeatures::Count(given) if given == 0 || given > features => {
                Err(FitError::MaxFeatures { given, features })
            }
            MaxFeatures::Count(count) => Ok(count),
            MaxFeatures::Fraction(share) if !is_share(share, 1.0) => {
                Err(FitError::MaxFeaturesFraction(share))
            }
            MaxFeatures::Fraction(share) => Ok(((share * features as f64) as usize).max(1)),
        }
    }
}

/// Whether this is in (0, most]; NaN is not.
fn is_share(value: f64, most: f64) -> bool {
    value > 0.0 && value <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_the_rows() {
        let check = |given: MaxSamples, rows, expected| assert_eq!(given.of(rows), expected);
        check(MaxSamples::Auto, 8000, Ok(256));
        check(MaxSamples::Auto, 100, Ok(100));
        check(MaxSamples::Count(1000), 100, Ok(100));
        check(MaxSamples::Count(64), 100, Ok(64));
        check(MaxSamples::Count(1), 100, Err(FitError::MaxSamples(1)));
        check(MaxSamples::Fraction(0.5), 101, Ok(50));
        check(MaxSamples::Fraction(0.001), 100, Ok(2));
        check(MaxSamples::Fraction(1.5), 100, Err(FitError::MaxSamplesFraction(1.5)));
        check(MaxSamples::Fraction(1.0), 1 << 20, Err(FitError::MaxSamples(1 << 20)));
    }

    #[test]
    fn features_follow_the_row() {
        let check = |given: MaxFeatures, expected| assert_eq!(given.of(6), expected);
        check(MaxFeatures::All, Ok(6));
        check(MaxFeatures::Count(3), Ok(3));
        check(MaxFeatures::Count(0), Err(FitError::MaxFeatures { given: 0, features: 6 }));
        check(MaxFeatures::Count(7), Err(FitError::MaxFeatures { given: 7, features: 6 }));
        check(MaxFeatures::Fraction(0.5), Ok(3));
        check(MaxFeatures::Fraction(0.01), Ok(1));
        check(MaxFeatures::Fraction(0.0), Err(FitError::MaxFeaturesFraction(0.0)));
    }

    #[test]
    fn contamination_is_at_most_half() {
        for share in [0.0, -0.1, 0.51, f64::INFINITY] {
            let error = Contamination::Fraction(share).share();
            assert_eq!(error, Err(FitError::Contamination(share)));
        }
        assert!(Contamination::Fraction(f64::NAN).share().is_err());
        assert_eq!(Contamination::Fraction(0.5).share(), Ok(Some(0.5)));
        assert_eq!(Contamination::Auto.share(), Ok(None));
    }
}
