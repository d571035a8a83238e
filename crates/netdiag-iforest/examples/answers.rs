//! The forest behind a line protocol, for `cargo xtask bench iforest` to time beside other libraries: built for release, and
//! in a process of its own as they are. The protocol is that of `xtask/src/bench/iforest/peers.py`:
//!
//! `answers ROWS_FILE FEATURES TREES SAMPLES`, then requests on standard input.

// It measures time and talks to another program, which the crate itself never does.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use netdiag_iforest::{IsolationForest, MaxSamples, Params, StandardScaler};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, features, trees, samples] = &arguments[..] else {
        return Err("usage: answers ROWS_FILE FEATURES TREES SAMPLES".into());
    };
    let bytes = std::fs::read(file)?;
    let (rows, _) = bytes.as_chunks();
    let rows: Vec<f32> = rows.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect();
    let features: usize = features.parse()?;
    let params = Params {
        n_estimators: trees.parse()?,
        max_samples: MaxSamples::Count(samples.parse()?),
        ..Params::default()
    };
    let mut forest = IsolationForest::fit(&params, &rows, features)?;
    answer("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let request: Vec<&str> = line.split_ascii_whitespace().collect();
        let start = Instant::now();
        match request[..] {
            ["fit"] => {
                forest = black_box(IsolationForest::fit(&params, black_box(&rows), features)?);
                answer(start.elapsed().as_secs_f64())?;
            }
            ["score"] => {
                black_box(forest.score_samples(black_box(&rows), features)?);
                answer(start.elapsed().as_secs_f64())?;
            }
            ["row", rounds] => {
                let rounds: usize = rounds.parse()?;
                // Other rows each time: a processor learns the way of one.
                for row in rows.chunks_exact(features).cycle().take(rounds) {
                    black_box(forest.score_row(black_box(row))?);
                }
                answer(start.elapsed().as_secs_f64())?;
            }
            ["size"] => {
                let scaler = StandardScaler::fit(&rows, features)?;
                let model = serde_json::to_string(&(scaler, &forest))?;
                answer(model.len())?;
            }
            ["auc", labels, seed] => {
                let params = Params { seed: seed.parse()?, ..params };
                let scores = IsolationForest::fit(&params, &rows, features)?
                    .score_samples(&rows, features)?;
                answer(area(&scores, &std::fs::read(labels)?))?;
            }
            _ => return Err(format!("unknown request {line:?}").into()),
        }
    }
    Ok(())
}

fn answer(what: impl std::fmt::Display) -> std::io::Result<()> {
    println!("{what}");
    std::io::stdout().flush()
}

/// The area under the ROC curve, where a lower score stands for an outlier (label 1): how often an outlier scores below an
/// inlier, ties counting half (Mann and Whitney's statistic).
fn area(scores: &[f64], labels: &[u8]) -> f64 {
    let mut ranked: Vec<(f64, u8)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut found, mut pairs) = (0.0, 0.0);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let outliers = tied.iter().filter(|(_, label)| *label == 1).count() as f64;
        let inliers = tied.len() as f64 - outliers;
        pairs += inliers * (found + outliers / 2.0);
        found += outliers;
    }
    pairs / (found * (scores.len() as f64 - found))
}
