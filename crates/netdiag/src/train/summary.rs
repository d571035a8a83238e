//! The metrics as a person reads them: a short table.

use std::fmt;

use super::alarms::Alarms;
use super::judgement::{Judgement, Ranking};
use super::metrics::{Metrics, Parameters};
use super::scores::{Quantiles, Scored};
use crate::figures::{counted, span};

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = &self.data;
        line(
            f,
            "data",
            format_args!(
                "{}: {} over {}, {} used, {} idle",
                data.file,
                counted(data.rows, "row", "rows"),
                span(data.span_seconds),
                data.used_rows,
                data.idle_rows
            ),
        )?;
        line(f, "forest", format_args!("{}", self.parameters))?;
        writeln!(f)?;
        writeln!(f, "{:16}{:>10}{:>11}", "feature", "mean", "deviation")?;
        for feature in &self.features {
            let constant = if feature.constant { ", constant: trained around" } else { "" };
            let (name, mean, deviation) = (feature.name, feature.mean, feature.deviation);
            writeln!(f, "{name:16}{mean:>10.4}{deviation:>11.4}  {}{constant}", feature.unit)?;
        }
        writeln!(f)?;
        let parts = self.parts();
        writeln!(
            f,
            "{:16}{:>8}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>10}",
            "scores", "rows", "lowest", "5 %", "median", "95 %", "offset", "below", "light on"
        )?;
        scores(f, "training", &self.training, None)?;
        for (name, part) in &parts {
            scores(f, name, &part.scored, Some(part.anomaly_share))?;
        }
        for (name, part) in &parts {
            labels(f, name, part)?;
        }
        writeln!(f)?;
        if let Some(stability) = &self.stability {
            line(
                f,
                "stability",
                format_args!(
                    "{} seeds: rank correlation {} on average, {} at worst; {} of what a pair flags is flagged by both",
                    stability.seeds.len(),
                    figure(stability.rank_correlation_mean),
                    figure(stability.rank_correlation_min),
                    percent(stability.flagged_jaccard_mean)
                ),
            )?;
        }
        self.notes.iter().try_for_each(|note| line(f, "note", format_args!("{note}")))
    }
}

impl Metrics {
    /// What was judged by a model that was not trained on it.
    fn parts(&self) -> Vec<(&'static str, &Judgement)> {
        let hold_out = self.hold_out.as_ref().map(|part| ("hold-out", &part.judgement));
        let validation = self.validation.as_ref().map(|part| ("validation", &part.judgement));
        hold_out.into_iter().chain(validation).collect()
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, contamination ", counted(self.estimators, "tree", "trees"))?;
        match self.contamination {
            Some(share) => write!(f, "{share}")?,
            None => f.write_str("auto")?,
        }
        write!(f, ", seed {}", self.seed)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{name:16}{text}")
}

fn scores(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    scored: &Scored,
    light: Option<f64>,
) -> fmt::Result {
    let Quantiles { min, p5, p50, p95, .. } = scored.score_quantiles;
    let (rows, offset) = (scored.used_rows, scored.offset);
    let (below, light) = (percent(scored.flagged_share), light.map_or("–".to_owned(), percent));
    write!(f, "  {name:14}{rows:>8}{min:>9.3}{p5:>8.3}{p50:>8.3}{p95:>8.3}{offset:>8.3}")?;
    writeln!(f, "{below:>8}{light:>10}")
}

fn labels(f: &mut fmt::Formatter<'_>, name: &str, part: &Judgement) -> fmt::Result {
    let Some(labels) = &part.labels else { return Ok(()) };
    writeln!(f)?;
    line(f, "labels", format_args!("{name}: {} of {} rows bad", labels.bad_rows, part.rows))?;
    let ranking = |f: &mut fmt::Formatter<'_>, name, ranking: &Ranking| {
        let (roc, ap) = (figure(ranking.roc_auc), figure(ranking.average_precision));
        writeln!(f, "  {name:14}ROC-AUC {roc}, average precision {ap}")
    };
    ranking(f, "anomaly score", &labels.anomaly_score)?;
    ranking(f, "forest alone", &labels.forest_score)?;
    let Alarms {
        episodes,
        found,
        median_delay_seconds,
        false_alarms_per_hour,
        lit_outside_share,
        ..
    } = labels.anomaly_light;
    write!(f, "  {:14}found {found} of {episodes} episodes", "anomaly light")?;
    if let Some(delay) = median_delay_seconds {
        write!(f, " after {delay:.1} s (median)")?;
    }
    if let Some(per_hour) = false_alarms_per_hour {
        write!(f, ", {per_hour:.1} false alarms per hour")?;
    }
    match lit_outside_share {
        Some(share) => writeln!(f, ", on in {} of the rows outside", percent(share)),
        None => writeln!(f),
    }
}

/// A figure that may lack.
fn figure(figure: Option<f64>) -> String {
    figure.map_or("–".to_owned(), |figure| format!("{figure:.3}"))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
