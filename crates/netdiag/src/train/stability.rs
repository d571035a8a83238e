//! How much of a model is chance: the same training with other seeds.

use std::sync::Arc;

use netdiag_health::ranking::spearman;
use netdiag_health::{Features, Model, TrainError};
use netdiag_iforest::Params;
use serde::Serialize;

/// Seeds that are compared.
pub(super) const SEEDS: usize = 5;

/// Most rows that they are compared on. A tree looks at 256 rows however many there are, so more rows would tell the same later.
const MOST_ROWS: usize = 100_000;

/// How alike models of different seeds are, over all pairs of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Stability {
    /// The seeds.
    pub(crate) seeds: Vec<u64>,
    /// Rows that were trained from and scored: all, or every so many-th of more than 100,000.
    pub(crate) rows: usize,
    /// Spearman's rank correlation of the scores, −1..=1, mean of the pairs; `None` if a model scores all rows alike.
    pub(crate) rank_correlation_mean: Option<f64>,
    /// The least of the pairs.
    pub(crate) rank_correlation_min: Option<f64>,
    /// Rows that both of a pair flag, of those that either flags (Jaccard index, 0..=1), mean of the pairs.
    pub(crate) flagged_jaccard_mean: f64,
}

/// Trains with [`SEEDS`] seeds from that of `params` on, and compares.
pub(super) fn measure(
    features: &[Features],
    params: &Params,
    fit: impl Fn(&[Features], &Params) -> Result<Arc<Model>, TrainError>,
) -> Result<Stability, TrainError> {
    let every = features.len().div_ceil(MOST_ROWS).max(1);
    let thinned: Vec<Features> = features.iter().copied().step_by(every).collect();
    let seeds: Vec<u64> = (0..SEEDS as u64).map(|more| params.seed.wrapping_add(more)).collect();
    let mut scores = Vec::new();
    let mut flagged = Vec::new();
    for &seed in &seeds {
        let model = fit(&thinned, &Params { seed, ..*params })?;
        let of_seed: Vec<f64> = thinned.iter().map(|features| model.score(features)).collect();
        flagged.push(of_seed.iter().map(|&score| score < model.offset()).collect::<Vec<bool>>());
        scores.push(of_seed);
    }
    let pairs = || (0..SEEDS).flat_map(|b| (0..b).map(move |a| (a, b)));
    let correlations: Option<Vec<f64>> =
        pairs().map(|(a, b)| spearman(&scores[a], &scores[b])).collect();
    let jaccards: Vec<f64> = pairs().map(|(a, b)| jaccard(&flagged[a], &flagged[b])).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Ok(Stability {
        seeds,
        rows: thinned.len(),
        rank_correlation_mean: correlations.as_deref().map(mean),
        rank_correlation_min: correlations
            .map(|correlations| correlations.into_iter().fold(1.0, f64::min)),
        flagged_jaccard_mean: mean(&jaccards),
    })
}

/// Size of the intersection over that of the union (Jaccard 1901); two empty sets are alike.
fn jaccard(a: &[bool], b: &[bool]) -> f64 {
    let count = |of: fn(bool, bool) -> bool| a.iter().zip(b).filter(|&(&a, &b)| of(a, b)).count();
    match count(|a, b| a || b) {
        0 => 1.0,
        union => count(|a, b| a && b) as f64 / union as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_compared_by_what_they_share() {
        assert_eq!(jaccard(&[true, true, false, false], &[true, false, true, false]), 1.0 / 3.0);
        assert_eq!(jaccard(&[false; 3], &[false; 3]), 1.0);
        assert_eq!(jaccard(&[true, false], &[false, true]), 0.0);
    }
}
