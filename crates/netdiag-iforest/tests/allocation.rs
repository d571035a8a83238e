//! Scoring or scaling a row allocates nothing, so it has its place in a loop that must not wait.

use netdiag_iforest::{IsolationForest, Params, StandardScaler};

#[test]
fn a_row_is_judged_without_allocating() {
    let rows: Vec<f32> = (0..6000).map(|i| ((i * 7919) % 1009) as f32).collect();
    let forest = IsolationForest::fit(&Params::default(), &rows, 6).expect("valid rows");
    let scaler = StandardScaler::fit(&rows, 6).expect("valid rows");
    let mut row = [1.0, 2.0, 3.0, 4.0, 5.0, 1e9];
    let judged = allocation_counter::measure(|| {
        scaler.transform_row(&mut row).expect("a valid row");
        forest.score_row(&row).expect("a valid row");
        forest.decision_row(&row).expect("a valid row");
        forest.predict_row(&row).expect("a valid row");
    });
    assert_eq!(judged.count_total, 0);
    // That the counter counts.
    assert!(allocation_counter::measure(|| drop(forest.score_samples(&rows, 6))).count_total > 0);
}
