//! Fits a forest on round trips of a link and judges a few more: `cargo run --release -p netdiag-iforest --example outliers`.

#![allow(clippy::print_stdout)] // printing is what it is for

use netdiag_iforest::{Contamination, IsolationForest, Params, StandardScaler};

/// p95 RTT in milliseconds, retransmitted segments in percent.
const FEATURES: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A link of 40 ms that breathes over the day and loses up to half a percent.
    let rows: Vec<f32> = (0..2000)
        .flat_map(|i| {
            let daily = (i as f32 / 300.0).sin() * 6.0;
            let jitter = ((i * 7919) % 101) as f32 / 20.0;
            let lost = ((i * 31) % 23) as f32 / 44.0;
            [40.0 + daily + jitter, lost]
        })
        .collect();
    // A forest does the same on any scale; scaling is for what else a model is used for.
    let scaler = StandardScaler::fit(&rows, FEATURES)?;
    let params = Params {
        n_estimators: 200,
        contamination: Contamination::Fraction(0.02),
        seed: 1,
        ..Params::default()
    };
    let forest = IsolationForest::fit(&params, &scaler.transform(&rows, FEATURES)?, FEATURES)?;
    println!("{forest:?}");

    for row in [[42.0, 0.1], [38.0, 0.4], [44.0, 3.0], [160.0, 0.2], [160.0, 6.0]] {
        let mut scaled = row;
        scaler.transform_row(&mut scaled)?;
        let (score, label) = (forest.score_row(&scaled)?, forest.predict_row(&scaled)?);
        println!("p95 {:>3} ms, {:.1} % lost: score {score:.3}, {label:?}", row[0], row[1]);
    }
    Ok(())
}
