//! Models of scikit-learn's, as `fixture/export.py` wrote them, judge rows here as they did there.

use netdiag_iforest::{IsolationForest, Label, StandardScaler};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Fixture {
    scikit_learn: String,
    forests: Vec<Forest>,
    scalers: Vec<Scaler>,
}

#[derive(Deserialize)]
struct Forest {
    name: String,
    features: usize,
    forest: IsolationForest,
    rows: Vec<f32>,
    score_samples: Vec<f64>,
    decision_function: Vec<f64>,
    predict: Vec<i8>,
}

#[derive(Deserialize)]
struct Scaler {
    name: String,
    features: usize,
    scaler: StandardScaler,
    train: Vec<f32>,
    rows: Vec<f32>,
    transform: Vec<f32>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixture/scikit_learn.json")).expect("a valid fixture")
}

/// The greatest distance between two lists of the same length.
fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max)
}

#[test]
fn forests_score_as_there() {
    let fixture = fixture();
    assert!(fixture.forests.len() >= 8, "cases are missing");
    for Forest { name, features, forest, rows, score_samples, decision_function, predict } in
        fixture.forests
    {
        let scores = forest.score_samples(&rows, features).expect("valid rows");
        let decisions = forest.decision_function(&rows, features).expect("valid rows");
        let worst = distance(&scores, &score_samples).max(distance(&decisions, &decision_function));
        assert!(worst <= TOLERANCE, "{name}: {worst:e} from scikit-learn {}", fixture.scikit_learn);
        let labels = forest.predict(&rows, features).expect("valid rows");
        for (row, (label, theirs)) in labels.iter().zip(predict).enumerate() {
            let expected = if theirs < 0 { Label::Outlier } else { Label::Inlier };
            assert_eq!(*label, expected, "{name}, row {row}: {} there", decision_function[row]);
        }
    }
}

#[test]
fn scalers_scale_as_there() {
    for Scaler { name, features, scaler, train, rows, transform } in fixture().scalers {
        let ours = StandardScaler::fit(&train, features).expect("valid rows");
        for column in 0..features {
            let (mean, scale) = (scaler.mean()[column], scaler.scale()[column]);
            let mean_error = (ours.mean()[column] - mean).abs() / mean.abs().max(scale);
            let scale_error = (ours.scale()[column] - scale).abs() / scale;
            let worst = mean_error.max(scale_error);
            assert!(worst <= 1e-12, "{name}, column {column}: {worst:e}");
        }
        let scaled = scaler.transform(&rows, features).expect("valid rows");
        assert_eq!(scaled.len(), transform.len());
        for (index, (ours, theirs)) in scaled.iter().zip(transform).enumerate() {
            let column = index % features;
            // There the mean is rounded to an f32, and each step after it.
            let mean = scaler.mean()[column].abs() / scaler.scale()[column];
            let tolerance = f64::from(f32::EPSILON) * (mean + f64::from(theirs.abs()));
            let error = f64::from((ours - theirs).abs());
            assert!(error <= tolerance, "{name}, column {column}: {ours}, {theirs} there");
        }
    }
}
