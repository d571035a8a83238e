//! What holds for any forest: properties over rows and parameters, and the mistakes a caller can make.

use proptest::prelude::*;

use super::*;
use crate::{Contamination, InvalidRows, MaxFeatures, MaxSamples};

/// A cloud around 0, from a plain recurrence so that the rows are the same everywhere.
fn cloud(rows: usize, features: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    // The sum of twelve uniform numbers less six is close enough to a normal one.
    (0..rows * features).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

fn fit(params: &Params, rows: &[f32], features: usize) -> IsolationForest {
    IsolationForest::fit(params, rows, features).expect("valid")
}

#[test]
fn the_far_row_is_the_outlier() {
    let mut rows = cloud(500, 3);
    rows.extend([8.0, -8.0, 8.0]);
    let forest = fit(&Params::default(), &rows, 3);
    let scores = forest.score_samples(&rows, 3).expect("valid");
    let least = scores.iter().copied().fold(0.0, f64::min);
    assert_eq!(scores[500], least);
    assert!(least < -0.7, "{least}");
    assert_eq!(forest.predict_row(&[8.0, -8.0, 8.0]), Ok(Label::Outlier));
    assert_eq!(forest.predict_row(&[0.0; 3]), Ok(Label::Inlier));
}

#[test]
fn contamination_flags_its_share_of_the_training_rows() {
    let rows = cloud(8000, 6);
    for (share, expected) in [(0.15, 1200), (0.1, 800), (0.001, 8), (0.5, 4000)] {
        let contamination = Contamination::Fraction(share);
        let forest = fit(&Params { contamination, ..Params::default() }, &rows, 6);
        let labels = forest.predict(&rows, 6).expect("valid");
        let flagged = labels.iter().filter(|&&label| label == Label::Outlier).count();
        assert_eq!(flagged, expected, "at {share}");
    }
}

#[test]
fn percentiles_are_numpys() {
    let check = |numbers: &[f64], share, expected: f64| {
        assert_eq!(percentile(numbers.to_vec(), share), expected);
    };
    check(&[-0.4], 0.5, -0.4);
    check(&[-0.4, -0.6], 0.5, -0.5);
    check(&[-0.3, -0.7, -0.5, -0.4, -0.6], 0.25, -0.6);
    // numpy.percentile([1, 2, 4, 8], 40) and (..., 30), which interpolate from different ends.
    check(&[8.0, 1.0, 4.0, 2.0], 0.4, 2.400_000_000_000_000_4);
    check(&[8.0, 1.0, 4.0, 2.0], 0.3, 1.9);
}

#[test]
fn constant_columns_are_trained_around() {
    let cloud = cloud(300, 1);
    let rows: Vec<f32> = cloud.iter().flat_map(|&value| [5.0, value, 5.0]).collect();
    let forest = fit(&Params::default(), &rows, 3);
    let score = |row| forest.score_row(row).expect("valid");
    // The constant columns are never asked.
    assert_eq!(score(&[5.0, 0.0, 5.0]), score(&[-900.0, 0.0, 900.0]));
    assert!(score(&[5.0, 9.0, 5.0]) < score(&[5.0, 0.0, 5.0]));
}

#[test]
fn the_one_column_that_differs_is_found() {
    // Two rows differ in two of twelve columns, and any two rows in others.
    let rows: Vec<f32> = (0..144).map(|i| if i % 13 == 0 { 1.0 } else { 0.0 }).collect();
    let params = Params { max_samples: MaxSamples::Count(2), ..Params::default() };
    let stored = serde_json::to_value(fit(&params, &rows, 12)).expect("serialises");
    for tree in stored["trees"].as_array().expect("trees") {
        let nodes = tree["nodes"].as_array().expect("nodes");
        assert_eq!(nodes.len(), 3, "two rows were not told apart");
    }
}

#[test]
fn rows_all_alike_are_average() {
    let forest = fit(&Params::default(), &[3.0; 60], 3);
    for row in [[3.0; 3], [1e30; 3]] {
        assert!((forest.score_row(&row).expect("valid") - AUTO_OFFSET).abs() < 1e-12);
    }
}

#[test]
fn mistakes_are_named() {
    let check = |params: Params, rows: &[f32], features, expected: &str| {
        let error = IsolationForest::fit(&params, rows, features).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    let rows = cloud(10, 2);
    let fine = Params::default();
    check(fine, &rows, 0, "no features");
    check(fine, &rows, 3, "20 values are no whole number of rows of 3");
    check(fine, &[], 2, "0 rows are too few: give at least 2");
    check(fine, &[1.0, 2.0], 2, "1 rows are too few");
    check(fine, &[1.0, 2.0, 3.0, f32::NAN], 2, "row 1, column 1 is NaN");
    check(fine, &[0.0; 2 * 4097], 4097, "4097 features are too many");
    check(Params { n_estimators: 0, ..fine }, &rows, 2, "n_estimators is 0");
    let contamination = Contamination::Fraction(0.6);
    check(Params { contamination, ..fine }, &rows, 2, "contamination 0.6 is outside (0, 0.5]");
    let max_samples = MaxSamples::Count(1);
    check(Params { max_samples, ..fine }, &rows, 2, "max_samples 1 is outside 2..=");
    let max_features = MaxFeatures::Count(3);
    check(Params { max_features, ..fine }, &rows, 2, "max_features 3 is outside 1..=2");
}

#[test]
fn rows_must_be_like_those_of_the_training() {
    let forest = fit(&Params::default(), &cloud(10, 2), 2);
    let wrong = ScoreError::Features { given: 3, expected: 2 };
    assert_eq!(forest.score_row(&[0.0; 3]), Err(wrong));
    assert_eq!(forest.score_samples(&[0.0; 6], 3), Err(wrong));
    let nan = InvalidRows::NotFinite { row: 2, column: 1, value: f32::INFINITY };
    let rows = [0.0, 0.0, 0.0, 0.0, 0.0, f32::INFINITY];
    assert_eq!(forest.predict(&rows, 2), Err(ScoreError::Rows(nan)));
    assert_eq!(forest.score_samples(&[], 2), Ok(vec![]));
    assert_eq!(forest.predict(&[], 2), Ok(vec![]));
}

/// Rows with many equal values, and now and then extreme ones.
fn values() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-3_i8..4).prop_map(f32::from),
        4 => -1e3_f32..1e3,
        1 => prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
        1 => prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(f32::MIN_POSITIVE)],
        // Neighbours, with no other number between them to be a threshold.
        2 => (0_u32..3).prop_map(|steps| f32::from_bits(1e8_f32.to_bits() + steps)),
    ]
}

fn rows() -> impl Strategy<Value = (Vec<f32>, usize)> {
    (1..12_usize, 2..90_usize).prop_flat_map(|(features, rows)| {
        (prop::collection::vec(values(), rows * features), Just(features))
    })
}

fn params() -> impl Strategy<Value = Params> {
    let max_samples = prop_oneof![
        Just(MaxSamples::Auto),
        (2..100_usize).prop_map(MaxSamples::Count),
        (0.01..=1.0).prop_map(MaxSamples::Fraction),
    ];
    let contamination =
        prop_oneof![Just(Contamination::Auto), (0.001..=0.5).prop_map(Contamination::Fraction),];
    let max_features = prop_oneof![
        Just(MaxFeatures::All),
        Just(MaxFeatures::Count(1)),
        (0.01..=1.0).prop_map(MaxFeatures::Fraction),
    ];
    (1..20_usize, max_samples, contamination, max_features, any::<u64>()).prop_map(
        |(n_estimators, max_samples, contamination, max_features, seed)| Params {
            n_estimators,
            max_samples,
            contamination,
            max_features,
            seed,
        },
    )
}

proptest! {
    #[test]
    fn a_row_and_a_batch_come_to_the_same_bits(
        (rows, features) in rows(), params in params(), others in prop::collection::vec(values(), 0..60),
    ) {
        let forest = fit(&params, &rows, features);
        let mut all = rows;
        all.extend(others);
        all.truncate(all.len() / features * features);
        let batch = forest.score_samples(&all, features).expect("valid");
        let decisions = forest.decision_function(&all, features).expect("valid");
        let labels = forest.predict(&all, features).expect("valid");
        prop_assert_eq!(batch.len(), all.len() / features);
        for (index, row) in all.chunks(features).enumerate() {
            prop_assert_eq!(forest.score_row(row), Ok(batch[index]));
            prop_assert_eq!(forest.decision_row(row), Ok(decisions[index]));
            prop_assert_eq!(forest.predict_row(row), Ok(labels[index]));
            prop_assert!((-1.0..0.0).contains(&batch[index]), "{}", batch[index]);
        }
    }

    #[test]
    fn the_same_seed_grows_the_same_forest((rows, features) in rows(), params in params()) {
        let forest = fit(&params, &rows, features);
        prop_assert_eq!(&forest, &fit(&params, &rows, features));
    }

    /// Loading checks what growing promises: depths, that no row is lost, that every threshold is a number.
    #[test]
    fn what_is_grown_can_be_stored((rows, features) in rows(), params in params()) {
        let forest = fit(&params, &rows, features);
        let json = serde_json::to_string(&forest).expect("serialises");
        let loaded = serde_json::from_str::<IsolationForest>(&json).map_err(|error| error.to_string());
        prop_assert_eq!(loaded, Ok(forest));
    }

    #[test]
    fn never_more_than_its_share_is_flagged(
        (rows, features) in rows(), params in params(), share in 0.001..=0.5,
    ) {
        let params = Params { contamination: Contamination::Fraction(share), ..params };
        let forest = fit(&params, &rows, features);
        let labels = forest.predict(&rows, features).expect("valid");
        let flagged = labels.iter().filter(|&&label| label == Label::Outlier).count();
        prop_assert!(flagged as f64 <= (share * labels.len() as f64).ceil());
    }
}
