//! How well a score ranks rows: against labels, as scikit-learn's `average_precision_score` and `roc_auc_score` say it, and
//! against another score, as SciPy's `spearmanr` does.
//!
//! A score is the higher, the likelier the label. Scores are numbers, not NaN. Invariant: rows with equal scores count alike,
//! in whatever order they come.

/// Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores from the highest down. `None` without a positive label.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let (mut found, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for (hits, misses) in groups(scores, labels).iter().rev() {
        found += hits;
        seen += hits + misses;
        sum += hits / positives * (found / seen);
    }
    (positives > 0.0).then_some(sum)
}

/// Area under the ROC curve: how often a positive row scores above a negative one, ties counting half (Mann–Whitney). `None`
/// unless there are both.
pub fn roc_auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let (mut below, mut hits_above) = (0.0, 0.0);
    let mut positives = 0.0;
    for (hits, misses) in groups(scores, labels) {
        hits_above += hits * (below + misses / 2.0);
        below += misses;
        positives += hits;
    }
    (positives > 0.0 && below > 0.0).then(|| hits_above / (positives * below))
}

/// Spearman's rank correlation of two scores of the same rows, −1..=1: Pearson's correlation of their ranks, equal scores having
/// the mean of theirs. `None` where all rows of one score are equal.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (centred_ranks(a), centred_ranks(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = (product(&a, &a) * product(&b, &b)).sqrt();
    // Rounding must not carry a perfect correlation past 1.
    (spread > 0.0).then(|| (product(&a, &b) / spread).clamp(-1.0, 1.0))
}

/// Each value's rank less the mean rank.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // Twice the rank would be a whole number, so ranks are exact.
        let rank = first as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|&row| ranks[row] = rank - (values.len() - 1) as f64 / 2.0);
        first += equal.len();
    }
    ranks
}

/// For each distinct score, from the lowest up: how many rows with the label have it, and how many without.
fn groups(scores: &[f64], labels: &[bool]) -> Vec<(f64, f64)> {
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = |rows: &[(f64, bool)]| {
        let hits = rows.iter().filter(|row| row.1).count();
        (hits as f64, (rows.len() - hits) as f64)
    };
    rows.chunk_by(|a, b| a.0 == b.0).map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_near(found: Option<f64>, expected: f64) {
        assert!(
            found.is_some_and(|found| (found - expected).abs() < 1e-6),
            "{found:?}, {expected}"
        );
    }

    #[test]
    fn figures_are_scikit_learns() {
        let check = |scores: &[f64], labels: &[u8], ap: f64, roc: f64| {
            let labels: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
            assert_near(average_precision(scores, &labels), ap);
            assert_near(roc_auc(scores, &labels), roc);
        };
        check(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1], 0.833_333_3, 0.75);
        check(&[0.1, 0.2, 0.3, 0.4], &[0, 0, 1, 1], 1.0, 1.0);
        check(&[1.0, 1.0, 1.0, 1.0], &[0, 1, 0, 0], 0.25, 0.5);
        check(&[3.0, 2.0, 2.0, 1.0, 0.0], &[0, 1, 0, 0, 1], 0.366_666_7, 0.25);
        assert_eq!(roc_auc(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(average_precision(&[1.0], &[false]), None);
        assert_eq!(average_precision(&[], &[]), None);
    }

    #[test]
    fn rank_correlation_is_scipys() {
        let up = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_near(spearman(&up, &[10.0, 20.0, 25.0, 1e9, 1e10]), 1.0);
        assert_near(spearman(&up, &[5.0, 4.0, 3.0, 2.0, 1.0]), -1.0);
        assert_near(spearman(&up, &[5.0, 6.0, 7.0, 8.0, 7.0]), 0.820_782_7);
        assert_near(spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 3.0, 2.0, 4.0]), 0.948_683_3);
        assert_eq!(spearman(&up, &[2.0; 5]), None);
        assert_eq!(spearman(&[], &[]), None);
    }
}
