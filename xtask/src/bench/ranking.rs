//! How well a score ranks labelled rows, as scikit-learn's `average_precision_score` and `roc_auc_score` say it.

/// Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores from the highest down. NaN without a positive label.
pub(super) fn average_precision(scores: &[f64], labels: &[bool]) -> f64 {
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let (mut found, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for (hits, misses) in groups(scores, labels).iter().rev() {
        found += hits;
        seen += hits + misses;
        sum += hits / positives * (found / seen);
    }
    sum
}

/// Area under the ROC curve: how often a positive row scores above a negative one, ties counting half (Mann–Whitney). NaN
/// unless there are both.
pub(super) fn roc_auc(scores: &[f64], labels: &[bool]) -> f64 {
    let (mut below, mut hits_above) = (0.0, 0.0);
    let mut positives = 0.0;
    for (hits, misses) in groups(scores, labels) {
        hits_above += hits * (below + misses / 2.0);
        below += misses;
        positives += hits;
    }
    hits_above / (positives * below)
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

    #[test]
    fn figures_are_scikit_learns() {
        let check = |scores: &[f64], labels: &[u8], ap: f64, roc: f64| {
            let labels: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
            assert!((average_precision(scores, &labels) - ap).abs() < 1e-6, "{scores:?}");
            assert!((roc_auc(scores, &labels) - roc).abs() < 1e-6, "{scores:?}");
        };
        check(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1], 0.833_333_3, 0.75);
        check(&[0.1, 0.2, 0.3, 0.4], &[0, 0, 1, 1], 1.0, 1.0);
        check(&[1.0, 1.0, 1.0, 1.0], &[0, 1, 0, 0], 0.25, 0.5);
        check(&[3.0, 2.0, 2.0, 1.0, 0.0], &[0, 1, 0, 0, 1], 0.366_666_7, 0.25);
        assert!(roc_auc(&[1.0, 2.0], &[false, false]).is_nan());
        assert!(average_precision(&[1.0], &[false]).is_nan());
    }
}
