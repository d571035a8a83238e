//! From link telemetry to judgement: how healthy a link is, whether something is wrong with it, and when it changed.
//!
//! Pure: no I/O, no clock. Intervals come in as [`Observation`]s with their length, and twice the same intervals give twice
//! the same judgement.
//!
//! - [`Health`] judges one scope, interval by interval: [`Assessment`].
//! - [`ChangeDetector`] scores how much a round trip differs from those before it; it is a part of the score.
//! - [`TrainingSet`] and [`Model`]: what a link has been like, and an Isolation Forest of it. A `Health` gathers the rows
//!   itself; without a model it judges by rolling quantiles alone, and says so.
//! - [`ranking`]: how well a score finds what somebody has labelled, and how alike two scores are.
//!
//! A link is measured by itself: round trips by their ratio to the link's own baseline, so that a long clean path is as
//! healthy as a short one. Behaviour is stated in seconds and does not change with the interval, up to the
//! three intervals that a judgement needs; only the slope needs five within three seconds, and is zero where they are longer.

#![forbid(unsafe_code)]

mod change;
mod features;
mod health;
mod model;
mod quantile;
pub mod ranking;
mod score;
mod training;

pub use change::ChangeDetector;
pub use features::{FEATURE_NAMES, FEATURES, Features, Observation, Recent, RttRange};
pub use health::{Assessment, Basis, Health};
pub use model::{Model, ModelError, TrainError, Training};
pub use quantile::quantile_of_sorted;
pub use training::TrainingSet;
