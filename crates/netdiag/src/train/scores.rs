//! How a forest's scores are distributed.

use netdiag_health::quantile_of_sorted;
use serde::Serialize;

use crate::figures::counts;

/// Bars of the stored histogram: a fiftieth of the range of scores each, about the width of what a seed changes.
const BARS: usize = 50;

/// Rows with their forest's scores. A score is −1 (isolated at once) to 0, around −0.5 where a row is average.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scored {
    /// Rows that showed something to judge by.
    pub(crate) used_rows: usize,
    /// The score below which the forest calls a row an outlier.
    pub(crate) offset: f64,
    /// Used rows with a score below the offset.
    pub(crate) flagged_rows: usize,
    /// The same as a share of the used rows, 0..=1.
    pub(crate) flagged_share: f64,
    /// Quantiles of the used rows' scores.
    pub(crate) score_quantiles: Quantiles,
    /// The same scores, counted.
    pub(crate) score_histogram: Histogram,
}

/// The least score, percentiles (`p5`: one row in twenty scores lower), and the greatest; interpolated linearly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) min: f64,
    pub(crate) p1: f64,
    pub(crate) p5: f64,
    pub(crate) p25: f64,
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// How many scores lie in each of the equal parts from `from` to `to`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Histogram {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) counts: Vec<u32>,
}

impl Scored {
    /// Of the used rows' scores.
    pub(super) fn of(scores: &[f64], offset: f64) -> Self {
        let flagged = scores.iter().filter(|&&score| score < offset).count();
        Self {
            used_rows: scores.len(),
            offset,
            flagged_rows: flagged,
            flagged_share: flagged as f64 / scores.len().max(1) as f64,
            score_quantiles: Quantiles::of(scores),
            score_histogram: Histogram::of(scores),
        }
    }
}

impl Quantiles {
    fn of(scores: &[f64]) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |q| quantile_of_sorted(&sorted, q).unwrap_or_default();
        Self {
            min: at(0.0),
            p1: at(0.01),
            p5: at(0.05),
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

impl Histogram {
    fn of(scores: &[f64]) -> Self {
        let (from, to) = (-1.0, 0.0);
        let edge = |bar: usize| from + (to - from) * bar as f64 / BARS as f64;
        let edges: Vec<f64> = (0..=BARS).map(edge).collect();
        Self { from, to, counts: counts(scores, &edges) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let scored = Scored::of(&[-0.7, -0.5, -0.4, -0.5, -0.41], -0.5);
        // The offset itself is no outlier.
        assert_eq!((scored.used_rows, scored.flagged_rows, scored.flagged_share), (5, 1, 0.2));
        let Quantiles { min, p25, p50, p99, max, .. } = scored.score_quantiles;
        assert_eq!((min, p25, p50, max), (-0.7, -0.5, -0.5, -0.4));
        assert!((p99 - -0.4004).abs() < 1e-9, "{p99}");
        let Histogram { from, to, counts } = scored.score_histogram;
        assert_eq!((from, to, counts.len()), (-1.0, 0.0, BARS));
        assert_eq!((counts[15], counts[25], counts[29], counts[30]), (1, 2, 1, 1));
    }

    #[test]
    fn no_rows_give_figures_that_are_numbers() {
        let scored = Scored::of(&[], -0.5);
        assert_eq!((scored.flagged_share, scored.score_quantiles), (0.0, Quantiles::default()));
    }
}
