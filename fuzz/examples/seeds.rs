//! Writes the seeds of `model_load` and `model_judge`: models as small as they come, files that are none, and bytes.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --no-default-features --example seeds`, after a change to the format. The same
//! code writes the same files. The seeds of `csv_rows` are written by hand.

use std::fs;
use std::path::Path;

use netdiag_health::{Model, TrainingSet};
use netdiag_iforest::{Contamination, MaxSamples, Params};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let one = train(1, 2, 0.004)?.render();
    let three = train(3, 8, 0.004)?.render();
    // Without any loss, so that a feature is constant.
    let five = train(5, 16, 0.0)?.render();
    let judged = [three.as_bytes(), b"\0", &bytes(96, 37)].concat();
    // Files that are models begin with `model`; a test looks at that.
    write("model_load/model-1-tree.json", &one)?;
    write("model_load/model-3-trees.json", &three)?;
    write("model_load/model-5-trees.json", &five)?;
    write("model_load/model-and-intervals.bin", judged)?;

    let replaced = |from: &str, to: &str| {
        assert!(one.contains(from), "{from} is not in {one}");
        one.replacen(from, to, 1)
    };
    write("model_load/cut-off.json", &three[..three.len() / 2])?;
    write("model_load/future.json", replaced("netdiag-model/1", "netdiag-model/2"))?;
    write("model_load/foreign.json", replaced("netdiag-model/1", "\\u001b[2Jsklearn\\n"))?;
    write("model_load/other-features.json", replaced("rtt_spread", "rtt_jitter"))?;
    write(
        "model_load/unknown-field.json",
        replaced("\"calibration\":{", "\"calibration\":{\"more\":1,"),
    )?;
    write("model_load/rows-that-do-not-add-up.json", replaced("\"nodes\":[", "\"nodes\":[0,-1,"))?;
    write("model_load/number-out-of-range.json", replaced("\"offset\":-0.5", "\"offset\":-1e999"))?;
    write("model_load/nested.json", "{\"format\":".to_owned() + &"[".repeat(200))?;

    for (length, step) in [(64, 37), (256, 91), (900, 203)] {
        write(&format!("model_judge/{length}-bytes.bin"), bytes(length, step))?;
    }
    Ok(())
}

/// Of a link that wanders by a tenth, and loses this share of its segments now and then.
fn train(
    n_estimators: usize,
    max_samples: usize,
    loss: f32,
) -> Result<Model, Box<dyn std::error::Error>> {
    let rows = (0..100_u16).map(|i| {
        let noise = |by: u16| f32::from(i * by % 101) / 101.0;
        let lost = f32::from(u8::from(i.is_multiple_of(20))) * loss;
        [0.1 * noise(37), 0.1 + 0.05 * noise(53), lost, 0.02 * noise(71) - 0.01]
    });
    let params = Params {
        n_estimators,
        max_samples: MaxSamples::Count(max_samples),
        contamination: if n_estimators == 1 {
            Contamination::Auto
        } else {
            Contamination::Fraction(0.15)
        },
        ..Params::default()
    };
    Ok(TrainingSet::new(rows).train(&params)?)
}

/// So many bytes of all values but 0, which would end a file.
fn bytes(length: u32, step: u32) -> Vec<u8> {
    (0..length).map(|i| (1 + i * step % 255) as u8).collect()
}

fn write(name: &str, content: impl AsRef<[u8]>) -> std::io::Result<()> {
    fs::write(Path::new(FOLDER).join(name), content)
}
