//! Whether outliers are found: the area under the ROC curve on labelled data sets, beside scikit-learn's.
//!
//! The data are not in the repository: CSV files of numbers with a header, whose last column is 1 for outliers, as made from
//! ADBench (Han et al., NeurIPS 2022). Forests differ by their seeds, so what is compared is the mean of several, and the
//! bar is two standard deviations of scikit-learn's; it holds in either direction, since a forest that is far better is not
//! the same algorithm.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::Scratch;
use super::peers::{OURS, Peer};
use crate::bench::{Bar, Bound, Report};

/// Where the data lie beside a checkout unless a flag or [`VARIABLE`] says otherwise.
const FOLDER: &str = "../shared/data/adbench";
const VARIABLE: &str = "NETDIAG_ADBENCH";

/// Seeds 0..5.
const SEEDS: u64 = 5;

/// Mean and standard deviation of scikit-learn 1.9.1 with 200 trees of 256 rows over five seeds.
const KNOWN: [(&str, f64, f64); 7] = [
    ("annthyroid", 0.827, 0.007),
    ("breastw", 0.987, 0.001),
    ("cardio", 0.934, 0.007),
    ("pendigits", 0.948, 0.006),
    ("pima", 0.672, 0.003),
    ("thyroid", 0.978, 0.001),
    ("wilt", 0.470, 0.019),
];

/// Whose outliers lie among the inliers: a forest that finds them does something else than it says.
const NEGATIVE_CONTROL: &str = "wilt";

pub(super) fn run(folder: Option<&Path>) -> anyhow::Result<Report> {
    let columns = vec!["data set", "rows", "netdiag-iforest", "scikit-learn, table", "same run"];
    let mut report = Report { columns, ..Report::default() };
    let folder = match (folder, std::env::var_os(VARIABLE)) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(folder)) => PathBuf::from(folder),
        (None, None) => crate::root().join(FOLDER),
    };
    let Ok(files) = folder.read_dir() else {
        let remedy = format!("name a folder with --data or {VARIABLE}");
        report.absent.push(format!("data sets ({} is no folder: {remedy})", folder.display()));
        return Ok(report);
    };
    let mut files: Vec<PathBuf> =
        files.map(|file| Ok(file?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let set = Set::read(path).with_context(|| path.display().to_string())?;
        measure(&mut report, &name, &set)?;
    }
    for (name, ..) in KNOWN {
        if !files.iter().any(|path| path.file_stem().is_some_and(|stem| stem == name)) {
            report.absent.push(format!("{name} (not in {})", folder.display()));
        }
    }
    Ok(report)
}

fn measure(report: &mut Report, name: &str, set: &Set) -> anyhow::Result<()> {
    let (mean, deviation) = areas(OURS, set)?;
    let same_run = areas("scikit-learn", set);
    let table = KNOWN.iter().find(|known| known.0 == name).map(|&(_, mean, sd)| (mean, sd));
    let cell = |figures: Option<(f64, f64)>| match figures {
        Some((mean, deviation)) => format!("{mean:.3} ± {deviation:.3}"),
        None => "-".to_owned(),
    };
    report.rows.push(vec![
        name.to_owned(),
        set.labels.len().to_string(),
        cell(Some((mean, deviation))),
        cell(table),
        cell(same_run.as_ref().ok().copied()),
    ]);
    if let Err(error) = &same_run {
        report.absent.push(format!("scikit-learn on {name} ({error:#})"));
    }
    if let Some((theirs, deviation)) = table.or(same_run.ok()) {
        report.bars.push(Bar {
            name: format!("{name}_sds_off"),
            value: (mean - theirs).abs() / deviation,
            bound: Bound::AtMost(2.0),
            unit: "standard deviations",
        });
    }
    if name == NEGATIVE_CONTROL {
        let bound = Bound::AtMost(0.5);
        report.bars.push(Bar { name: format!("{name}_auc"), value: mean, bound, unit: "" });
    }
    Ok(())
}

/// Mean and standard deviation of what a library's forests of several seeds reach.
fn areas(library: &str, set: &Set) -> anyhow::Result<(f64, f64)> {
    let bytes: Vec<u8> = set.rows.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let (rows, labels) = (Scratch::write("rows", &bytes)?, Scratch::write("labels", &set.labels)?);
    let mut peer = Peer::start(library, rows.path(), set.features)?;
    let request = |seed| format!("auc {} {seed}", labels.path().display());
    let areas: Vec<f64> =
        (0..SEEDS).map(|seed| peer.ask(&request(seed))).collect::<anyhow::Result<_>>()?;
    Ok(mean_and_deviation(&areas))
}

/// A labelled data set.
struct Set {
    rows: Vec<f32>,
    features: usize,
    /// For each row: 1 is an outlier, 0 is not.
    labels: Vec<u8>,
}

impl Set {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_path(path)?;
        let features = reader.headers()?.len().saturating_sub(1);
        ensure!(features > 0, "it has no columns beside the label");
        let mut set = Set { rows: Vec::new(), features, labels: Vec::new() };
        for record in reader.records() {
            let record = record?;
            for (column, cell) in record.iter().enumerate() {
                let value: f32 = cell.trim().parse().with_context(|| {
                    let line = record.position().map_or(0, csv::Position::line);
                    format!("line {line}, column {}: {cell:?} is no number", column + 1)
                })?;
                match (column == features, value) {
                    (false, value) => set.rows.push(value),
                    (true, 0.0) => set.labels.push(0),
                    (true, 1.0) => set.labels.push(1),
                    (true, label) => bail!("label {label} is neither 0 nor 1"),
                }
            }
        }
        Ok(set)
    }
}

/// Of several numbers, the deviation being that of all of them (not an estimate from a sample), as NumPy has it.
fn mean_and_deviation(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>();
    (mean, (squares / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_all_numbers() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 1.0));
    }
}
