//! Training a model from a recording, and finding out what it is worth.
//!
//! It is trained from the features that the live judgement sees, because a recording is replayed through that, interval by
//! interval. What it is worth is told by intervals that it was not trained on: the last quarter of the recording for a model of
//! the first three, another recording, and the same training with other seeds.
//!
//! Invariants: the same recording, parameters and seed give the same model and the same figures; figures about labels are never
//! taken from rows that the judging model was trained on.

mod alarms;
mod judgement;
mod metrics;
mod recording;
mod scores;
mod stability;
mod summary;

use std::sync::Arc;

use netdiag_health::{Features, Model, TrainError, TrainingSet};
use netdiag_iforest::{Contamination, Params};

use crate::figures::{counted, span};
use crate::plot::{ModelChart, ScoreChart};
use crate::terminal::{Progress, Unit};
use judgement::Judgement;
use metrics::{Data, FORMAT, FeatureSummary, HoldOut, Metrics, Parameters, Validation};
pub(crate) use recording::Recording;
use recording::{Judged, used_scores};
use scores::Scored;

/// Share of the rows, from the first on, that the hold-out's model is trained from.
const TRAINED_SHARE: f64 = 0.75;

/// What a training gives.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Trained from all rows.
    pub(crate) model: Arc<Model>,
    /// What it is worth.
    pub(crate) metrics: Metrics,
    /// The same to look at.
    pub(crate) chart: ModelChart,
}

/// Trains a model from `recording`, and judges it there and on `validation`.
pub(crate) fn train(
    recording: &Recording,
    validation: Option<&Recording>,
    params: &Params,
    progress: &Progress,
) -> Result<Outcome, TrainError> {
    let features: Vec<Features> = recording.used().map(|interval| interval.features).collect();
    let split = (features.len() as f64 * TRAINED_SHARE) as usize;
    progress.begin("training", 2 + stability::SEEDS as u64, Unit::Models);
    let fit = |features: &[Features], params: &Params| {
        let rows = TrainingSet::new(features.iter().map(|features| features.to_row()));
        let model = rows.train(params);
        progress.advance(1);
        model.map(Arc::new)
    };
    let model = fit(&features, params)?;
    let earlier = fit(&features[..split], params);
    let stability = stability::measure(&features, params, fit);

    let scores: Vec<f64> = features.iter().map(|features| model.score(features)).collect();
    let training = Scored::of(&scores, model.offset());
    let mut notes = notes(&model, &training, params);
    notes.extend(recording.notes());
    let flagged = scores.iter().map(|&score| score < model.offset()).collect::<Vec<bool>>();
    let (hold_out, judged, scores) = match earlier {
        Ok(earlier) => {
            let judged = recording.judged_by(&earlier, progress);
            let (hold_out, scores) = hold_out(recording, split, &judged, earlier.offset());
            notes.extend(hold_out.judgement.note("hold-out"));
            (Some(hold_out), judged, scores)
        }
        Err(error) => {
            notes.push(format!("no hold-out: in the first three quarters, {error}"));
            let scores = ScoreChart { trained: scores, held_out: None, offset: model.offset() };
            (None, recording.judged_by(&model, progress), scores)
        }
    };
    let validation = validation.map(|other| {
        let judged = other.judged_by(&model, progress);
        let judgement = Judgement::of(&other.intervals, &judged, model.offset());
        notes.extend(other.notes().into_iter().chain(judgement.note("validation")));
        Validation { file: other.name.clone(), judgement }
    });
    notes.extend(stability.as_ref().err().map(|error| format!("no figures of stability: {error}")));
    Ok(Outcome {
        chart: ModelChart {
            title: headline(recording, &training, params),
            scores,
            rows: recording.chart_rows(&judged, &flagged),
        },
        metrics: Metrics {
            format: FORMAT,
            data: Data::of(recording),
            parameters: Parameters::of(params),
            features: FeatureSummary::all(&features, model.training()),
            training,
            hold_out,
            validation,
            stability: stability.ok(),
            notes,
        },
        model,
    })
}

/// What a model of the used rows before the one of number `split` makes of the rest, by its judgement of all rows.
fn hold_out(
    recording: &Recording,
    split: usize,
    judged: &[Judged],
    offset: f64,
) -> (HoldOut, ScoreChart) {
    let from = recording.row_of_used(split);
    let (trained, held_out) = recording.intervals.split_at(from);
    let (judged_trained, judged_held_out) = judged.split_at(from);
    let judgement = Judgement::of(held_out, judged_held_out, offset);
    let scores = ScoreChart {
        trained: used_scores(trained, judged_trained),
        held_out: Some((from, used_scores(held_out, judged_held_out))),
        offset,
    };
    (HoldOut { trained_rows: split, judgement }, scores)
}

/// What a person should know of the training itself.
fn notes(model: &Model, training: &Scored, params: &Params) -> Vec<String> {
    let mut notes = Vec::new();
    let constant = &model.training().constant_features;
    if !constant.is_empty() {
        let names = constant.join(", ");
        notes.push(format!(
            "trained around {names}: the same in all rows, so nothing to tell them apart by"
        ));
        if constant.contains(&"rtt_slope") {
            notes.push(
                "a slope needs five round trips within three seconds: intervals of at most 0.7 s"
                    .to_owned(),
            );
        }
    }
    if let Contamination::Fraction(share) = params.contamination {
        let wanted = share * training.used_rows as f64;
        if (training.flagged_rows as f64 - wanted).abs() > 1.0 {
            notes.push(format!(
                "{} flagged instead of {wanted:.0}: many rows are alike, and the line cannot be drawn between them",
                counted(training.flagged_rows, "row is", "rows are")
            ));
        }
    }
    notes
}

/// The title of the picture.
fn headline(recording: &Recording, training: &Scored, params: &Params) -> String {
    format!(
        "{}: {} over {}, {}, {:.1} % flagged",
        recording.name,
        counted(training.used_rows, "row", "rows"),
        span(recording.span().as_secs_f64()),
        counted(params.n_estimators, "tree", "trees"),
        100.0 * training.flagged_share,
    )
}
