//! Isolation Forest and a standard scaler: scikit-learn's algorithm, the fastest way one core can run it.
//!
//! A tree that splits at random isolates an unusual row after few splits, because there is little around it to be split off
//! first. A forest averages that depth over many trees (F. T. Liu, K. M. Ting, Z.-H. Zhou: *Isolation Forest*, ICDM 2008,
//! <https://doi.org/10.1109/ICDM.2008.17>; *Isolation-Based Anomaly Detection*, TKDD 6(1), 2012,
//! <https://doi.org/10.1145/2133360.2133363>). No label is needed, and the cost does not grow with the training set: each
//! tree sees [`max_samples`](Params::max_samples) rows only.
//!
//! Rows are `f32`, row-major, with the number of features given beside them. Everything is deterministic: the same rows,
//! parameters and seed give the same forest on every machine.
//!
//! ```
//! use netdiag_iforest::{IsolationForest, Label, Params};
//!
//! // Forty rows of two features around (20, 1), and one that is far away.
//! let mut rows: Vec<f32> = (0..40).flat_map(|i| [20.0 + (i % 7) as f32, 1.0 + (i % 5) as f32 / 10.0]).collect();
//! rows.extend([180.0, 4.0]);
//! let forest = IsolationForest::fit(&Params { seed: 7, ..Params::default() }, &rows, 2)?;
//!
//! assert_eq!(forest.predict_row(&[180.0, 4.0])?, Label::Outlier);
//! assert_eq!(forest.predict_row(&[22.0, 1.2])?, Label::Inlier);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is like scikit-learn, and what is not
//!
//! The algorithm, its constants and the meaning of every figure are those of scikit-learn 1.9
//! (`sklearn/ensemble/_iforest.py`, `node_split_random` in `sklearn/tree/_splitter.pyx`, `sklearn/preprocessing/_data.py`).
//! Trees exported from it (`tests/fixture/export.py`) score here as they do there. Deviations:
//!
//! | scikit-learn | here | why |
//! | --- | --- | --- |
//! | NumPy's Mersenne Twister, `rand_r` in trees | xoshiro256++ | faster, and a seed gives the same forest everywhere |
//! | thresholds are `f64` | `f32`, rounded down | exactly the same decision for every `f32` feature, at half the size |
//! | NaN allowed, learned as a direction | refused, with row and column | a missing measurement is not evidence of a fault |
//! | one row is enough; `max_samples=1` too | at least 2 | a tree of one row scores everything alike |
//! | `max_samples` above the number of rows warns | takes all rows | a library has nobody to warn |
//! | a fraction of `max_samples` may come to 0 or 1 | at least 2 | as above |
//! | `StandardScaler` computes in the input's `f32` | in `f64`, rounded once, kept finite | large means lose nothing |
//! | sparse input, bootstrap, sample weights, warm start | none | nothing here needs them |
//! | no limits | 4096 features, 524,288 rows per tree | a node then takes 8 bytes |
//! | `predict` gives ±1 | [`Label`] | |
//! | pickle | serde, validated completely | a model file may come from anyone |

#![forbid(unsafe_code)]

mod error;
mod forest;
mod grow;
mod model;
mod nodes;
mod params;
mod rows;
mod scaler;

pub use error::{FitError, InvalidModel, ScoreError};
pub use forest::{IsolationForest, Label};
pub use params::{Contamination, MaxFeatures, MaxSamples, Params};
pub use rows::InvalidRows;
pub use scaler::StandardScaler;
