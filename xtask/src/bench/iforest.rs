//! What `netdiag-iforest` costs, beside the libraries that Python has for the same, all on one thread and on the same rows.
//!
//! Everyone is a process that measures itself on request, and requests go round, so that whatever else the machine does
//! meets all of them; the least time of each is what is compared, because other work can only add to it. The
//! libraries' times include a call from Python, which is how they are used. With `--quality` it is not time that is measured
//! but whether outliers are found; see [`quality`].

mod peers;
mod quality;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use self::peers::{LIBRARIES, OURS, Peer};
use super::{Bar, Bound, Options, Report};

/// Rows: as many as the agent keeps.
const ROWS: usize = 8000;
const FEATURES: usize = 6;
/// Trees, and rows for each: as the original project trains.
const TREES: usize = 200;
const SAMPLES: usize = 256;

/// Turns, in each of which everyone fits and scores all rows once.
const TURNS: usize = 30;
/// How many times as many with `--long`.
const LONG: usize = 10;
/// Single rows in a turn, fewer for a library that takes milliseconds for each.
const ROUNDS: usize = 1000;
const SLOW_ROUNDS: usize = 3;

/// Microseconds for a single row.
const ROW_US: f64 = 8.0;
/// Kilobytes of forest and scaler: coniferest's.
const MODEL_KB: f64 = 435.0;

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    if options.quality {
        return quality::run(options.data.as_deref());
    }
    let bytes: Vec<u8> = rows().iter().flat_map(|value| value.to_ne_bytes()).collect();
    let file = Scratch::write("rows", &bytes)?;
    let mut report = Report {
        columns: vec!["library", "fit ms", "8000 rows ms", "one row us", "model kB"],
        ..Report::default()
    };
    let ours = Peer::start(OURS, file.path(), FEATURES).context(OURS)?;
    let mut everyone = vec![(OURS, ours, Times::NONE)];
    for (library, _) in LIBRARIES {
        match Peer::start(library, file.path(), FEATURES) {
            Ok(peer) => everyone.push((library, peer, Times::NONE)),
            Err(error) => report.absent.push(format!("{library} ({error:#})")),
        }
    }
    for _ in 0..if options.long { TURNS * LONG } else { TURNS } {
        everyone.retain_mut(|(name, peer, times)| {
            let rounds = if *name == "scikit-learn" { SLOW_ROUNDS } else { ROUNDS };
            let measured = times.measure(peer, rounds);
            report
                .absent
                .extend(measured.as_ref().err().map(|error| format!("{name} ({error:#})")));
            measured.is_ok()
        });
    }
    report.rows.extend(everyone.iter().map(|(name, _, times)| times.cells(name)));
    let of = |name| everyone.iter().find(|(other, ..)| *other == name).map(|(.., times)| times);
    let Some(ours) = of(OURS) else { bail!("not measured: {}", report.absent.join(", ")) };
    let mut bar = |name: &str, value, limit, unit| {
        report.bars.push(Bar { name: name.to_owned(), value, bound: Bound::AtMost(limit), unit });
    };
    if let Some(isotree) = of("isotree") {
        bar("fit_to_isotree", ours.fit / isotree.fit, 1.0, "");
    }
    if let Some(coniferest) = of("coniferest") {
        bar("score_to_coniferest", ours.score / coniferest.score, 1.0, "");
        bar("row_to_coniferest", ours.row / coniferest.row, 1.0, "");
    }
    bar("row_us", ours.row * 1e6, ROW_US, "us");
    bar("model_kb", ours.bytes / 1e3, MODEL_KB, "kB");
    Ok(report)
}

/// The least seconds of each kind so far, and the size of the model.
struct Times {
    fit: f64,
    score: f64,
    row: f64,
    bytes: f64,
}

impl Times {
    const NONE: Self =
        Self { fit: f64::INFINITY, score: f64::INFINITY, row: f64::INFINITY, bytes: f64::NAN };

    fn measure(&mut self, peer: &mut Peer, rounds: usize) -> anyhow::Result<()> {
        self.fit = self.fit.min(peer.ask("fit")?);
        self.score = self.score.min(peer.ask("score")?);
        self.row = self.row.min(peer.ask(&format!("row {rounds}"))? / rounds as f64);
        if self.bytes.is_nan() {
            self.bytes = peer.ask("size")?;
        }
        Ok(())
    }

    fn cells(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            format!("{:.2}", self.fit * 1e3),
            format!("{:.2}", self.score * 1e3),
            format!("{:.2}", self.row * 1e6),
            format!("{:.0}", self.bytes / 1e3),
        ]
    }
}

/// Normal rows, by Box and Muller's method from a fixed stream, so that every run measures the same.
fn rows() -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        // Knuth's multiplier; the upper bits are random enough for this.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let mut normal = || {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), uniform() * std::f64::consts::TAU);
        (radius * angle.cos()) as f32
    };
    (0..ROWS * FEATURES).map(|_| normal()).collect()
}

/// A file for a peer to read, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn write(name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let name = format!("netdiag-bench-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
