//! Rows brought to mean 0 and deviation 1, column by column, as scikit-learn's `StandardScaler` does.
//!
//! A forest does not need it (its splits are the same on any scale), but what is drawn, compared or combined with its
//! scores does, and so does a model that says what it was trained on. Invariant: scales are positive and finite, so
//! that scaling never divides by zero.

use serde::{Deserialize, Serialize};

use crate::error::{FitError, InvalidModel, ScoreError};
use crate::rows;

/// Means and standard deviations of columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredScaler")]
pub struct StandardScaler {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredScaler {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl StandardScaler {
    /// Learns each column's mean and (population) standard deviation. A constant column's scale is 1: it becomes 0.
    ///
    /// # Errors
    ///
    /// Rows that are no rows of finite numbers, or none.
    ///
    /// ```
    /// use netdiag_iforest::StandardScaler;
    ///
    /// let scaler = StandardScaler::fit(&[1.0, 5.0, 3.0, 5.0], 2)?;
    /// assert_eq!(scaler.mean(), [2.0, 5.0]);
    /// assert_eq!(scaler.scale(), [1.0, 1.0]);
    /// assert_eq!(scaler.transform(&[4.0, 5.0], 2)?, [2.0, 0.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit(rows: &[f32], features: usize) -> Result<Self, FitError> {
        let count = rows::check(rows, features)?;
        if count == 0 {
            return Err(FitError::TooFewRows { rows: 0, needed: 1 });
        }
        let n = count as f64;
        let columns = |f: &dyn Fn(usize, f64) -> f64| {
            let mut sums = vec![0.0; features];
            for row in rows.chunks_exact(features) {
                for (column, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += f(column, f64::from(value));
                }
            }
            sums
        };
        let mean: Vec<f64> = columns(&|_, value| value).iter().map(|sum| sum / n).collect();
        let squares = columns(&|column, value| (value - mean[column]).powi(2));
        // What the mean's rounding has left in the sum of squares is taken out again: the corrected two-pass algorithm (Chan,
        // Golub, LeVeque 1983), which scikit-learn uses too.
        let rest = columns(&|column, value| value - mean[column]);
        let scale = mean.iter().zip(squares.iter().zip(rest)).map(|(&mean, (square, rest))| {
            let variance = (square - rest * rest / n) / n;
            if is_constant(variance, mean, n) { 1.0 } else { variance.sqrt() }
        });
        Ok(Self { scale: scale.collect(), mean })
    }

    /// The rows, scaled.
    ///
    /// # Errors
    ///
    /// Rows that are no rows of finite numbers, or with another number of features than those of the training.
    pub fn transform(&self, rows: &[f32], features: usize) -> Result<Vec<f32>, ScoreError> {
        rows::check(rows, features)?;
        self.check_features(features)?;
        let mut scaled = rows.to_vec();
        scaled.chunks_exact_mut(features).for_each(|row| self.scale_in_place(row));
        Ok(scaled)
    }

    /// Scales one row where it stands. Allocates nothing.
    ///
    /// # Errors
    ///
    /// A value that is not finite, or another number of features than those of the training; the row is then as it was.
    pub fn transform_row(&self, row: &mut [f32]) -> Result<(), ScoreError> {
        self.check_features(row.len())?;
        rows::check(row, row.len())?;
        self.scale_in_place(row);
        Ok(())
    }

    /// Each column's mean.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// What each column is divided by: its standard deviation, 1 if it is constant.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    fn check_features(&self, given: usize) -> Result<(), ScoreError> {
        let expected = self.mean.len();
        if given == expected { Ok(()) } else { Err(ScoreError::Features { given, expected }) }
    }

    fn scale_in_place(&self, row: &mut [f32]) {
        for ((value, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
            // Kept finite: however far a value is outside what was trained on, it can be scored.
            let scaled = ((f64::from(*value) - mean) / scale) as f32;
            *value = scaled.clamp(f32::MIN, f32::MAX);
        }
    }
}

/// Whether a column's variance is no more than what rounding makes of a constant (`_is_constant_feature` in
/// scikit-learn).
fn is_constant(variance: f64, mean: f64, n: f64) -> bool {
    variance <= n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2)
}

impl TryFrom<StoredScaler> for StandardScaler {
    type Error = InvalidModel;

    fn try_from(stored: StoredScaler) -> Result<Self, InvalidModel> {
        let StoredScaler { mean, scale } = stored;
        if mean.len() != scale.len() || mean.is_empty() {
            return Err(InvalidModel::ScalerLength { mean: mean.len(), scale: scale.len() });
        }
        for (column, (&mean, &scale)) in mean.iter().zip(&scale).enumerate() {
            let is_valid = mean.is_finite() && scale.is_finite() && scale > 0.0;
            if !is_valid {
                return Err(InvalidModel::Scaler { column, mean, scale });
            }
        }
        Ok(Self { mean, scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_column_becomes_zero() {
        // 0.1 is no binary fraction: its mean differs from it by rounding.
        let rows: Vec<f32> = (0..1000).flat_map(|i| [0.1, i as f32]).collect();
        let scaler = StandardScaler::fit(&rows, 2).expect("valid");
        assert_eq!(scaler.scale()[0], 1.0);
        let scaled = scaler.transform(&rows, 2).expect("valid");
        assert!(scaled.chunks(2).all(|row| row[0].abs() < 1e-6));
        let variance = scaled.chunks(2).map(|row| row[1] * row[1]).sum::<f32>() / 1000.0;
        assert!((variance - 1.0).abs() < 1e-4, "{variance}");
    }

    #[test]
    fn a_row_and_a_batch_come_to_the_same() {
        let rows: Vec<f32> = (0..60).map(|i| (i * i % 17) as f32).collect();
        let scaler = StandardScaler::fit(&rows, 3).expect("valid");
        let mut one = rows[3..6].to_vec();
        scaler.transform_row(&mut one).expect("valid");
        assert_eq!(one, scaler.transform(&rows, 3).expect("valid")[3..6]);
        let wrong = scaler.transform_row(&mut [0.0; 2]);
        assert_eq!(wrong, Err(ScoreError::Features { given: 2, expected: 3 }));
        assert_eq!(scaler.transform(&[], 3), Ok(vec![]));
    }

    #[test]
    fn scaled_values_stay_finite() {
        let scaler = StandardScaler::fit(&[0.0, 1e-30], 1).expect("valid");
        let scaled = scaler.transform(&[f32::MAX, f32::MIN], 1).expect("valid");
        assert_eq!(scaled, [f32::MAX, f32::MIN]);
        let scaler = StandardScaler::fit(&[f32::MAX, f32::MIN, f32::MAX], 1).expect("valid");
        assert!(scaler.scale()[0].is_finite());
    }

    #[test]
    fn a_stored_scaler_is_checked() {
        let check = |json: &str, expected: &str| {
            let result = serde_json::from_str::<StandardScaler>(json);
            let message = result.map_or_else(|error| error.to_string(), |_| String::new());
            assert!(
                message.contains(expected) && message.is_empty() == expected.is_empty(),
                "{message}"
            );
        };
        check(r#"{"mean":[1],"scale":[2]}"#, "");
        check(r#"{"mean":[1,2],"scale":[2]}"#, "2 means and 1 scales");
        check(r#"{"mean":[],"scale":[]}"#, "0 means");
        check(r#"{"mean":[1],"scale":[0]}"#, "column 0: mean 1, scale 0");
        check(r#"{"mean":[1],"scale":[-1]}"#, "column 0");
        check(r#"{"mean":[1],"scale":[2],"more":0}"#, "unknown field");
    }
}
