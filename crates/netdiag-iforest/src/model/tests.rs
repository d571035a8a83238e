//! A forest comes back as it was; nothing else comes in, whatever the bytes, and nothing panics or runs away.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Contamination, InvalidModel, Params};

fn forest() -> IsolationForest {
    let rows: Vec<f32> = (0..120).map(|i| ((i * 37) % 41) as f32 / 3.0).collect();
    let contamination = Contamination::Fraction(0.1);
    let params = Params { n_estimators: 5, contamination, ..Params::default() };
    IsolationForest::fit(&params, &rows, 3).expect("valid")
}

fn load(json: &str) -> Result<IsolationForest, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn with_tree(nodes: &[i32], thresholds: &[f64]) -> String {
    let tree = json!({"nodes": nodes, "thresholds": thresholds});
    json!({"features": 2, "max_samples": 4, "offset": -0.5, "trees": [tree]}).to_string()
}

#[test]
fn a_forest_comes_back_as_it_was() {
    let forest = forest();
    let json = serde_json::to_string(&forest).expect("serialises");
    assert_eq!(load(&json).as_ref(), Ok(&forest));
}

#[test]
fn a_tree_reads_as_documented() {
    // Feature 1 at 0.5: left two rows; right feature 0 at 3, one row on either side.
    let forest = load(&with_tree(&[1, -2, 0, -1, -1], &[0.5, 3.0])).expect("valid");
    let mean = |path: f64| -(-path / crate::nodes::average_path_length(4)).exp2();
    for (row, path) in [([0.0, 0.5], 2.0), ([3.0, 0.6], 2.0), ([3.1, 9.0], 2.0)] {
        assert_eq!(forest.score_row(&row), Ok(mean(path)));
    }
    let forest = load(&with_tree(&[1, 0, -1, -1, -2], &[0.5, 3.0])).expect("valid");
    assert_eq!(forest.score_row(&[0.0, 0.6]), Ok(mean(2.0)));
    let forest = load(&with_tree(&[1, -1, -3], &[0.5])).expect("valid");
    assert_eq!(forest.score_row(&[0.0, 0.5]), Ok(mean(1.0)));
    let three = crate::nodes::average_path_length(3);
    assert_eq!(forest.score_row(&[0.0, 0.6]), Ok(mean(1.0 + three)));
}

#[test]
fn what_is_wrong_with_a_tree_is_named() {
    let check = |nodes: &[i32], thresholds: &[f64], expected: &str| {
        let error = load(&with_tree(nodes, thresholds)).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    check(&[], &[], "tree 0, node 0: the tree ends before its last leaf");
    check(&[0, -4], &[1.0], "node 2: the tree ends before its last leaf");
    check(&[-4, -4], &[], "node 1: nodes are left over");
    check(&[2, -2, -2], &[1.0], "node 0: its feature");
    check(&[i32::MAX, -2, -2], &[1.0], "node 0: its feature");
    check(&[0, -2, -2], &[], "node 0: it has no threshold");
    check(&[0, -2, -2], &[1.0, 2.0], "thresholds are left over");
    check(&[0, -2, -3], &[1.0], "do not add up to max_samples");
    check(&[i32::MIN], &[], "do not add up to max_samples");
    check(&[0, -2, -2], &[1e39], "number out of range");
    // Two levels are what four rows get.
    check(
        &[0, 0, 0, -1, -1, -1, -1],
        &[1.0; 3],
        "node 2: it splits where max_samples allows leaves",
    );
}

#[test]
fn what_is_wrong_with_a_forest_is_named() {
    let check = |field: &str, value: Value, expected: &str| {
        let mut model = serde_json::to_value(forest()).expect("serialises");
        model[field] = value;
        let error = load(&model.to_string()).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    check("features", json!(0), "0 features");
    check("features", json!(4097), "4097 features");
    check("features", json!(1), "its feature is not among those of a row");
    check("max_samples", json!(1), "max_samples 1");
    check("max_samples", json!(u32::MAX), "max_samples 4294967295");
    check("max_samples", json!(39), "do not add up");
    check("offset", json!(0.5), "offset 0.5");
    check("offset", Value::Null, "invalid type: null");
    check("trees", json!([]), "no trees");
    check("more", json!(1), "unknown field `more`");
}

#[test]
fn every_truncation_is_refused() {
    let json = serde_json::to_string(&forest()).expect("serialises");
    for end in 0..json.len() {
        assert!(load(&json[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    // The deepest tree there may be, as a chain: a layout by position would need a million nodes for it.
    let depth = 19;
    let rows = MAX_ROWS_PER_TREE as i32;
    let mut nodes = Vec::new();
    (0..depth).for_each(|_| nodes.extend([0, -1]));
    nodes.push(-(rows - depth));
    let tree = json!({"nodes": nodes, "thresholds": vec![1.0; depth as usize]});
    let model = json!({"features": 1, "max_samples": rows, "offset": -0.5, "trees": [tree]});
    let forest = load(&model.to_string()).expect("valid");
    assert_eq!(forest.nodes.view(0), View::Split { feature: 0, threshold: 1.0, left: 1 });
    assert!(forest.nodes.len() < 50);
}

#[test]
fn non_finite_values_are_refused_from_any_format() {
    let tree = || StoredTree { nodes: vec![0, -2, -2], thresholds: vec![f32::NAN] };
    let model = |offset, trees| Stored { features: 1, max_samples: 4, offset, trees };
    let problem = "its threshold is not finite";
    let error = model(-0.5, vec![tree()]).into_forest();
    assert_eq!(error, Err(InvalidModel::Tree { tree: 0, node: 0, problem }));
    assert!(matches!(model(f64::NAN, vec![]).into_forest(), Err(InvalidModel::Offset(_))));
}

/// The path length of a row by the letter of the format, and the nodes after the tree.
fn walk<'a>(
    nodes: &'a [i32],
    thresholds: &mut std::slice::Iter<'_, f32>,
    row: &[f32],
) -> (f64, &'a [i32]) {
    let (&node, rest) = nodes.split_first().expect("a whole tree");
    let Ok(feature) = usize::try_from(node) else {
        return (crate::nodes::average_path_length(node.unsigned_abs()), rest);
    };
    let threshold = thresholds.next().expect("a threshold");
    let (left, rest) = walk(rest, thresholds, row);
    let (right, rest) = walk(rest, thresholds, row);
    (1.0 + if row[feature] <= *threshold { left } else { right }, rest)
}

/// A change to one number somewhere in a model.
fn mutate(value: &mut Value, place: usize, with: &Value) {
    let mut numbers = Vec::new();
    collect(value, &mut numbers);
    let count = numbers.len();
    *numbers.swap_remove(place % count) = with.clone();
}

fn collect<'a>(value: &'a mut Value, numbers: &mut Vec<&'a mut Value>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| collect(item, numbers)),
        Value::Object(fields) => fields.values_mut().for_each(|field| collect(field, numbers)),
        number => numbers.push(number),
    }
}

/// Whatever was let in works, and means the same when it is stored again.
fn check_usable(forest: &IsolationForest) -> Result<(), TestCaseError> {
    for value in [0.0, -1e30, f32::MAX, f32::MIN] {
        let row = vec![value; forest.features()];
        let score = forest.score_row(&row).expect("a valid row");
        prop_assert!((-1.0..=0.0).contains(&score), "{score}");
    }
    let again = load(&serde_json::to_string(forest).expect("serialises"));
    prop_assert_eq!(again.as_ref(), Ok(forest));
    Ok(())
}

proptest! {
    /// Rows of thresholds and their neighbours, so that every comparison is met on its edge.
    #[test]
    fn rows_on_thresholds_go_left(rows in prop::collection::vec(0..30_u8, 3 * 40), seed in any::<u64>()) {
        let rows: Vec<f32> = rows.into_iter().map(f32::from).collect();
        let params = Params { n_estimators: 9, seed, ..Params::default() };
        let forest = IsolationForest::fit(&params, &rows, 3).expect("valid");
        let stored = Stored::of(&forest);
        let edges = stored.trees.iter().flat_map(|tree| &tree.thresholds);
        let mut rows: Vec<f32> = edges.flat_map(|edge| [*edge, *edge, edge.next_up()]).collect();
        rows.rotate_left(seed as usize % 3);
        let scores = forest.score_samples(&rows, 3).expect("valid");
        for (row, score) in rows.chunks(3).zip(scores) {
            let path_length = stored.trees.iter().map(|tree| {
                let (length, rest) = walk(&tree.nodes, &mut tree.thresholds.iter(), row);
                assert!(rest.is_empty());
                length
            });
            let expected = crate::nodes::score(path_length.sum(), 9, 40);
            prop_assert!((score - expected).abs() < 1e-12, "{row:?}: {score}, not {expected}");
            prop_assert_eq!(forest.score_row(row), Ok(score));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_model(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(serde_json::from_slice::<IsolationForest>(&bytes).is_err());
    }

    #[test]
    fn damaged_bytes_are_refused_or_usable(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&forest()).expect("serialises");
        let index = place.index(bytes.len());
        bytes[index] = byte;
        if let Ok(forest) = serde_json::from_slice::<IsolationForest>(&bytes) {
            check_usable(&forest)?;
        }
    }

    #[test]
    fn mutated_models_are_refused_or_usable(
        places in prop::collection::vec(any::<usize>(), 1..4),
        number in prop_oneof![
            (-5_i64..5).prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<f64>().prop_map(|n| json!(n)),
            Just(Value::Null),
            Just(json!([])),
        ],
    ) {
        let mut model = serde_json::to_value(forest()).expect("serialises");
        for place in places {
            mutate(&mut model, place, &number);
        }
        if let Ok(forest) = load(&model.to_string()) {
            check_usable(&forest)?;
        }
    }

    #[test]
    fn arbitrary_trees_are_refused_or_usable(
        nodes in prop::collection::vec(-4_i32..3, 0..12),
        thresholds in prop::collection::vec(-2.0..2.0, 0..6),
    ) {
        if let Ok(forest) = load(&with_tree(&nodes, &thresholds)) {
            check_usable(&forest)?;
        }
    }
}
