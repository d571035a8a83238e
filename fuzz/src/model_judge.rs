//! Models of any shape that the format allows: each is accepted, and judges links as any other does.
//!
//! A forest accounts for every row that its trees were grown from, so that hardly any change to the bytes of a file leaves a
//! model: of what `model_load` is given one input in a hundred is judged by, and those are small. Here the input is a recipe for
//! a model, followed by intervals, and every one of them is.

use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};

use netdiag_health::{FEATURE_NAMES, FEATURES, Model};

use crate::judge::{check_model, observations};

/// The largest figure that the format allows.
const LARGEST_FIGURE: f64 = 1e6;

/// Most trees: single rows go through eight at a time, and then one by one.
const MOST_TREES: usize = 10;

/// Panics if a model that the format allows is refused, or does not judge as [`check_model`] wants it.
pub fn model_judge(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(file) = model(&mut input) else { return };
    let file = file.to_string();
    match Model::parse(file.as_bytes()) {
        Ok(model) => check_model(&model, &observations(&mut input)),
        Err(error) => panic!("{error}: {file}"),
    }
}

fn model(input: &mut Unstructured<'_>) -> Result<Value> {
    let max_samples = match input.arbitrary()? {
        true => input.int_in_range(2..=16)?,
        false => input.int_in_range(2..=524_288)?,
    };
    let deepest = (max_samples as f64).log2().ceil() as u32;
    let mut trees = Vec::new();
    for _ in 0..input.int_in_range(1..=MOST_TREES)? {
        let (mut nodes, mut thresholds) = (Vec::new(), Vec::new());
        grow(input, max_samples, deepest, &mut nodes, &mut thresholds)?;
        trees.push(json!({"nodes": nodes, "thresholds": thresholds}));
    }
    let score_median = -share(input)?;
    let constant = FEATURE_NAMES.into_iter().filter(|_| input.arbitrary().unwrap_or_default());
    Ok(json!({
        "format": "netdiag-model/1",
        "features": FEATURE_NAMES,
        "training": {
            // As many as a training needs, at least.
            "rows": max_samples.max(100),
            "constant_features": constant.collect::<Vec<_>>(),
            "params": {"n_estimators": trees.len(), "seed": input.arbitrary::<u64>()?},
        },
        "forest": {
            "features": FEATURES,
            "max_samples": max_samples,
            "offset": -share(input)?,
            "trees": trees,
        },
        "scaler": {
            "mean": [finite(input)?, finite(input)?, finite(input)?, finite(input)?],
            "scale": [positive(input)?, positive(input)?, positive(input)?, positive(input)?],
        },
        "calibration": {
            "score_median": score_median,
            "score_p5": (score_median - (1.0 + score_median) * share(input)?).max(-1.0),
            "usual_badness": finite(input)?.abs(),
            "medians": [finite(input)?, finite(input)?, finite(input)?, finite(input)?],
        },
    }))
}

/// Adds a tree of so many rows that may split so many times on one way.
fn grow(
    input: &mut Unstructured<'_>,
    rows: i32,
    deepest: u32,
    nodes: &mut Vec<i32>,
    thresholds: &mut Vec<f32>,
) -> Result<()> {
    if rows == 1 || deepest == 0 || !input.arbitrary::<bool>()? {
        nodes.push(-rows);
        return Ok(());
    }
    let left = input.int_in_range(1..=rows - 1)?;
    nodes.push(input.int_in_range(0..=FEATURES as i32 - 1)?);
    thresholds.push(small(input)?);
    grow(input, left, deepest - 1, nodes, thresholds)?;
    grow(input, rows - left, deepest - 1, nodes, thresholds)
}

/// 0 to 1, both included.
fn share(input: &mut Unstructured<'_>) -> Result<f64> {
    Ok(f64::from(input.arbitrary::<u16>()?) / f64::from(u16::MAX))
}

/// Any number that a figure of a model may be, from the least on.
fn finite(input: &mut Unstructured<'_>) -> Result<f64> {
    let number: f64 = input.arbitrary()?;
    Ok(if number.is_finite() { number.clamp(-LARGEST_FIGURE, LARGEST_FIGURE) } else { 0.0 })
}

fn positive(input: &mut Unstructured<'_>) -> Result<f64> {
    Ok(finite(input)?.abs().max(f64::from_bits(1)))
}

/// Any finite number that `f32` holds, or one of a size that features have.
fn small(input: &mut Unstructured<'_>) -> Result<f32> {
    let number: f32 = input.arbitrary()?;
    let is_plain = input.arbitrary()?;
    Ok(if is_plain || !number.is_finite() { share(input)? as f32 * 4.0 - 1.0 } else { number })
}
