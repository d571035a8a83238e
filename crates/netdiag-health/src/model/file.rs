//! `netdiag-model/1`: a model as JSON, and everything that is checked before one is built from it.
//!
//! ```json
//! {"format": "netdiag-model/1",
//!  "features": ["rtt_ratio", "rtt_spread", "retrans_rate", "rtt_slope"],
//!  "scaler": {…}, "forest": {…},
//!  "calibration": {"score_median": -0.43, "score_p5": -0.61, "usual_badness": 0.08, "medians": [0.1, 0.2, 0.0, 0.0]},
//!  "training": {"rows": 2048, "constant_features": [], "params": {…}}}
//! ```
//!
//! The tag is read first and by itself, so that a file of another format is told as that and not as one with a wrong field.
//! Scaler and forest check themselves. Invariant: reading takes memory in proportion to the file, which is bounded.

use netdiag_iforest::{FitError, IsolationForest, Params, StandardScaler};
use serde::{Deserialize, Serialize};

use super::{Calibration, FEWEST_ROWS, MOST_TREES, Model, Training};
use crate::features::{FEATURE_NAMES, FEATURES};

/// The tag of the format that this version writes and reads.
const FORMAT: &str = "netdiag-model/1";

/// No feature comes near: the logarithm of a ratio, a share, or a slope of the former within a tenth of a second.
const LARGEST_FIGURE: f64 = 1e6;

/// Why a model file is none. Each message names the place and the remedy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Not JSON, cut off, or a part that is not what it should be.
    #[error("model file, {0}: restore it from a copy, or train again with `netdiag train`")]
    Json(String),
    /// Larger than any model.
    #[error("model file has more than {} bytes: this is no model of netdiag", Model::LARGEST_FILE)]
    TooLarge,
    /// JSON of something else.
    #[error("model file has format `{0}`, not `{FORMAT}`: train a model with `netdiag train`")]
    Foreign(String),
    /// A later version of the format.
    #[error(
        "model file has format `{0}`, and this version reads `{FORMAT}`: update netdiag, or train again"
    )]
    Future(String),
    /// Trained on something else.
    #[error(
        "model file, features: `{found}` instead of `{expected}`: train again with this version"
    )]
    Features {
        /// In the file.
        found: String,
        /// What this version computes.
        expected: String,
    },
    /// Scaler or forest of other rows.
    #[error("model file, {part}: has {found} features instead of {FEATURES}: train again")]
    Width {
        /// `scaler` or `forest`.
        part: &'static str,
        /// Features of that part.
        found: usize,
    },
    /// More trees than are ever trained.
    #[error(
        "model file, forest.trees: {0} trees are more than {MOST_TREES}: train again with fewer"
    )]
    TooManyTrees(usize),
    /// What is said to be constant is no feature, or is said twice.
    #[error(
        "model file, training.constant_features: `{0}` is no feature, or is there twice: train again"
    )]
    ConstantFeature(String),
    /// Parameters with which nothing could have been trained.
    #[error("model file, training.params: {0}: train again")]
    Params(FitError),
    /// A figure outside its range.
    #[error("model file, {field}: {value} is not {range}: train again")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it should be.
        range: &'static str,
    },
}

#[derive(Deserialize)]
struct Tag {
    format: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    features: Vec<String>,
    scaler: StandardScaler,
    forest: IsolationForest,
    calibration: StoredCalibration,
    training: StoredTraining,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCalibration {
    score_median: f64,
    score_p5: f64,
    usual_badness: f64,
    medians: [f32; FEATURES],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTraining {
    rows: usize,
    constant_features: Vec<String>,
    params: Params,
}

impl Model {
    /// Largest file that is read, bytes: half as much again as the most trees there may be take if each has 256 rows. What
    /// is built from a file on the way takes up to nine times as much.
    pub const LARGEST_FILE: usize = 32 << 20;

    /// Reads a model file.
    ///
    /// # Errors
    ///
    /// Anything that is not a complete and valid `netdiag-model/1`; see [`ModelError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() > Self::LARGEST_FILE {
            return Err(ModelError::TooLarge);
        }
        let json = |error: serde_json::Error| ModelError::Json(place(&error));
        let Tag { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format != FORMAT {
            return Err(other_format(format));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(json)?;
        stored.into_model()
    }

    /// The model as a file.
    pub fn render(&self) -> String {
        let Calibration { score_median, score_p5, usual_badness, medians } = self.calibration;
        let Training { rows, constant_features, params } = &self.training;
        let stored = Stored {
            format: FORMAT.to_owned(),
            features: FEATURE_NAMES.map(str::to_owned).to_vec(),
            scaler: self.scaler.clone(),
            forest: self.forest.clone(),
            calibration: StoredCalibration { score_median, score_p5, usual_badness, medians },
            training: StoredTraining {
                rows: *rows,
                constant_features: constant_features.iter().map(|&name| name.to_owned()).collect(),
                params: *params,
            },
        };
        // Only maps with keys that are no strings and writers that fail make this fail; there are none.
        serde_json::to_string(&stored).unwrap_or_default() + "\n"
    }
}

impl Stored {
    fn into_model(self) -> Result<Model, ModelError> {
        if self.features != FEATURE_NAMES {
            let (found, expected) =
                (shortened(&self.features.join(", ")), FEATURE_NAMES.join(", "));
            return Err(ModelError::Features { found, expected });
        }
        for (part, found) in
            [("scaler", self.scaler.mean().len()), ("forest", self.forest.features())]
        {
            if found != FEATURES {
                return Err(ModelError::Width { part, found });
            }
        }
        if self.forest.n_estimators() > MOST_TREES {
            return Err(ModelError::TooManyTrees(self.forest.n_estimators()));
        }
        for (field, figures) in
            [("scaler.mean", self.scaler.mean()), ("scaler.scale", self.scaler.scale())]
        {
            let wrong = figures.iter().copied().find(|figure| figure.abs() > LARGEST_FIGURE);
            if let Some(value) = wrong {
                return Err(ModelError::Range { field, value, range: "in -1e6..=1e6" });
            }
        }
        let training = self.training.into_training(self.forest.n_estimators())?;
        Ok(Model::new(self.scaler, self.forest, self.calibration.into_calibration()?, training))
    }
}

impl StoredCalibration {
    fn into_calibration(self) -> Result<Calibration, ModelError> {
        let Self { score_median, score_p5, usual_badness, medians } = self;
        let check = |field, value: f64, valid, range| match valid {
            true => Ok(()),
            false => Err(ModelError::Range { field, value, range }),
        };
        let is_score = |score| (-1.0..=0.0).contains(&score);
        check("calibration.score_median", score_median, is_score(score_median), "in -1..=0")?;
        let below = is_score(score_p5) && score_p5 <= score_median;
        check("calibration.score_p5", score_p5, below, "in -1..=score_median")?;
        let is_badness = (0.0..=LARGEST_FIGURE).contains(&usual_badness);
        check("calibration.usual_badness", usual_badness, is_badness, "in 0..=1e6")?;
        for median in medians.map(f64::from) {
            let is_feature = median.abs() <= LARGEST_FIGURE;
            check("calibration.medians", median, is_feature, "in -1e6..=1e6")?;
        }
        Ok(Calibration { score_median, score_p5, usual_badness, medians })
    }
}

impl StoredTraining {
    /// Of a model whose forest has so many trees.
    fn into_training(self, trees: usize) -> Result<Training, ModelError> {
        if self.rows < FEWEST_ROWS {
            return Err(ModelError::Range {
                field: "training.rows",
                value: self.rows as f64,
                range: "as many as a training needs",
            });
        }
        if self.params.n_estimators != trees {
            return Err(ModelError::Range {
                field: "training.params.n_estimators",
                value: self.params.n_estimators as f64,
                range: "the number of trees of the forest",
            });
        }
        self.params.check(self.rows, FEATURES).map_err(ModelError::Params)?;
        let mut constant_features = Vec::new();
        for name in &self.constant_features {
            let known = FEATURE_NAMES.into_iter().find(|known| known == name);
            match known.filter(|known| !constant_features.contains(known)) {
                Some(known) => constant_features.push(known),
                None => return Err(ModelError::ConstantFeature(shortened(name))),
            }
        }
        Ok(Training { rows: self.rows, constant_features, params: self.params })
    }
}

fn other_format(format: String) -> ModelError {
    let is_ours = |version: &str| version.parse::<u64>().is_ok_and(|version| version > 1);
    match format.strip_prefix("netdiag-model/").is_some_and(is_ours) {
        true => ModelError::Future(shortened(&format)),
        false => ModelError::Foreign(shortened(&format)),
    }
}

/// serde_json's message with its place in front, in our order of words.
fn place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(&*message, |(what, _)| what);
    match error.line() {
        0 => shortened(what),
        line => format!("line {line}, column {}: {}", error.column(), shortened(what)),
    }
}

/// A piece of a hostile file, short enough for a terminal and without anything that would steer it.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= LONGEST {
            shown.push('…');
            break;
        }
        match c {
            // serde_json's messages quote with these, and have escaped what is between.
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}
