//! What every function checks about the rows it is given: their shape, and that each value is a number.
//!
//! Invariant: nothing behind [`check`] sees a value that is not finite, so comparisons there have an answer.

/// Rows that cannot be read as rows of numbers.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRows {
    /// Rows without columns.
    #[error("rows have no features: give at least 1")]
    NoFeatures,
    /// The last row is incomplete.
    #[error("{len} values are no whole number of rows of {features} features")]
    Ragged {
        /// Values given.
        len: usize,
        /// Features per row.
        features: usize,
    },
    /// NaN or infinite.
    #[error("row {row}, column {column} is {value}: leave out rows with missing values")]
    NotFinite {
        /// From 0.
        row: usize,
        /// From 0.
        column: usize,
        /// NaN or an infinity.
        value: f32,
    },
}

/// The number of rows, if all is well with them.
pub(crate) fn check(rows: &[f32], features: usize) -> Result<usize, InvalidRows> {
    if features == 0 {
        return Err(InvalidRows::NoFeatures);
    }
    if !rows.len().is_multiple_of(features) {
        return Err(InvalidRows::Ragged { len: rows.len(), features });
    }
    // Chunks without an early end inside are checked several values at a time.
    let is_bad = |values: &[f32]| values.iter().fold(false, |bad, value| bad | !value.is_finite());
    if rows.chunks(1024).any(is_bad)
        && let Some(index) = rows.iter().position(|value| !value.is_finite())
    {
        let (row, column) = (index / features, index % features);
        return Err(InvalidRows::NotFinite { row, column, value: rows[index] });
    }
    Ok(rows.len() / features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_and_finite() {
        assert_eq!(check(&[], 3), Ok(0));
        assert_eq!(check(&[1.0; 6], 3), Ok(2));
        assert_eq!(check(&[], 0), Err(InvalidRows::NoFeatures));
        assert_eq!(check(&[1.0; 7], 3), Err(InvalidRows::Ragged { len: 7, features: 3 }));
        let mut rows = [0.0; 6000];
        for (index, value) in [(4000, f32::NAN), (3998, f32::INFINITY), (3, f32::NEG_INFINITY)] {
            rows[index] = value;
            let error = check(&rows, 3).expect_err("not finite").to_string();
            let place = format!("row {}, column {} is {value}", index / 3, index % 3);
            assert!(error.starts_with(&place), "{error}");
        }
    }
}
