//! What a model makes of intervals that it was not trained on.

use netdiag_health::ranking::{average_precision, roc_auc};
use serde::Serialize;

use super::alarms::Alarms;
use super::recording::{Interval, Judged, ends, span, used_scores};
use super::scores::Scored;

/// The judgement of a part of a recording, or of another one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judgement {
    /// Rows of the part.
    pub(crate) rows: usize,
    /// From the first to the last row of the part, seconds.
    pub(crate) span_seconds: f64,
    #[serde(flatten)]
    pub(crate) scored: Scored,
    /// Share of the used rows with the anomaly light on, 0..=1.
    pub(crate) anomaly_share: f64,
    /// How well labelled rows were found; `None` without a column of labels.
    pub(crate) labels: Option<Labelled>,
}

/// The judgement against labels. All rows of the part count, idle ones with the last judgement before them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Labelled {
    /// Rows labelled 1.
    pub(crate) bad_rows: usize,
    /// The live anomaly score as a ranking of rows.
    pub(crate) anomaly_score: Ranking,
    /// The forest's score alone.
    pub(crate) forest_score: Ranking,
    /// The anomaly light.
    pub(crate) anomaly_light: Alarms,
}

/// How well a score ranks rows labelled 1 above the others; `None` where rows of both labels would be needed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ranking {
    /// Area under the ROC curve, 0..=1; 0.5 is chance.
    pub(crate) roc_auc: Option<f64>,
    /// Average precision, 0..=1; chance is the share of rows labelled 1.
    pub(crate) average_precision: Option<f64>,
}

impl Judgement {
    /// Of intervals with what the live judgement said of each, by a model with this offset.
    pub(super) fn of(intervals: &[Interval], judged: &[Judged], offset: f64) -> Self {
        let scored = Scored::of(&used_scores(intervals, judged), offset);
        let both = || intervals.iter().zip(judged);
        let lit = both().filter(|(interval, judged)| !interval.idle && judged.anomaly).count();
        let bad: Option<Vec<bool>> = intervals.iter().map(|interval| interval.label).collect();
        Self {
            rows: intervals.len(),
            span_seconds: span(intervals).as_secs_f64(),
            anomaly_share: lit as f64 / scored.used_rows.max(1) as f64,
            scored,
            labels: bad.map(|bad| Labelled::of(intervals, judged, &bad)),
        }
    }

    /// Why a figure lacks that one might expect. `part` names what was judged.
    pub(super) fn note(&self, part: &str) -> Option<String> {
        let labels = self.labels.as_ref()?;
        let missing = match labels.bad_rows {
            0 => "1",
            bad if bad == self.rows => "0",
            _ => return None,
        };
        Some(format!("no row of the {part} is labelled {missing}: there is nothing to rank"))
    }
}

impl Labelled {
    fn of(intervals: &[Interval], judged: &[Judged], bad: &[bool]) -> Self {
        let ranking = |score: fn(&Judged) -> f64| {
            let scores: Vec<f64> = judged.iter().map(score).collect();
            Ranking {
                roc_auc: roc_auc(&scores, bad),
                average_precision: average_precision(&scores, bad),
            }
        };
        let light: Vec<bool> = judged.iter().map(|judged| judged.anomaly).collect();
        Self {
            bad_rows: bad.iter().filter(|&&bad| bad).count(),
            anomaly_score: ranking(|judged| judged.anomaly_score),
            // A forest's score falls where a row is unusual.
            forest_score: ranking(|judged| -judged.forest),
            anomaly_light: Alarms::of(&ends(intervals), bad, &light),
        }
    }
}
