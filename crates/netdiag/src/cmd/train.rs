//! `netdiag train`: a recording becomes a model, a picture of it, and figures that say what it is worth.
//!
//! Invariant: model, picture and figures belong together. They are written after everything has been computed, and none is
//! replaced unless all could be written.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use netdiag_iforest::{Contamination, Params};

use crate::args::values;
use crate::failure::UsageError;
use crate::output;
use crate::place::Places;
use crate::plot;
use crate::replace::{Staged, check_distinct};
use crate::stop::Stop;
use crate::terminal::{Progress, say};
use crate::train::{self, Outcome, Recording};

/// Train an anomaly model from a recording, and say what it is worth
///
/// Reads what `netdiag agent` writes and files with at least timestamp, avg_rtt_us, p95_rtt_us and retrans_count, trains an
/// Isolation Forest of what the link usually shows, and writes three files: the model for --model of `up`, `serve` and
/// `pace`, a picture of 1600 × 1000 pixels, and figures as JSON. These say how scores are distributed, how a model of the first
/// three quarters judges the rest, and how much of it is chance. With a column `label` (1 where a row is bad, otherwise 0) they
/// also say how much of that is found, how soon, and what is flagged for nothing, on rows that the judging model has not seen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Train from this CSV file.
    ///
    /// Round trips in microseconds and timestamps in seconds, as `netdiag agent` writes them; at least 100 rows with traffic.
    /// A faulty stretch does no harm, as long as most of the recording is what is usual.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_DATA",
        default_value = "net_data.csv",
        help_heading = "Input"
    )]
    data: PathBuf,

    /// Judge the model on this CSV file, too.
    ///
    /// Another recording of the same kind, of which nothing is learned. Default: none; the figures are those of the last
    /// quarter of --data, judged by a model of the first three.
    #[arg(long, value_name = "FILE", env = "NETDIAG_VALIDATE", help_heading = "Input")]
    validate: Option<PathBuf>,

    /// Flag this share of the training rows: a number, or auto.
    ///
    /// Above 0, at most 0.5. That many rows are flagged however healthy they are; health and the anomaly light do not use it.
    /// `auto` draws the line where a row is as easily told apart as an average one.
    #[arg(
        long,
        value_name = "SHARE|auto",
        env = "NETDIAG_CONTAMINATION",
        default_value = "0.15",
        value_parser = values::contamination,
        help_heading = "Training"
    )]
    contamination: Contamination,

    /// Grow this many trees.
    ///
    /// From 1 to 10000. Scores settle before 100; size of the file and time of a judgement grow with it, about a kilobyte and
    /// some 12 ns per tree.
    #[arg(
        long,
        value_name = "N",
        env = "NETDIAG_ESTIMATORS",
        default_value = "200",
        value_parser = values::estimators,
        help_heading = "Training"
    )]
    estimators: usize,

    /// Start the random numbers here.
    ///
    /// From 0 to 18446744073709551615. The same recording and seed give the same files.
    #[arg(
        long,
        value_name = "N",
        env = "NETDIAG_SEED",
        default_value = "0",
        value_parser = values::seed,
        help_heading = "Training"
    )]
    seed: u64,

    /// Write the model to this file.
    ///
    /// Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_TRAINED_MODEL",
        default_value = "isolation_forest.json",
        help_heading = "Output"
    )]
    model: PathBuf,

    /// Write the picture to this file.
    ///
    /// PNG. Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_PLOT",
        default_value = "model_result.png",
        help_heading = "Output"
    )]
    plot: PathBuf,

    /// Write the figures to this file.
    ///
    /// JSON, format netdiag-training-metrics/1. Replaced as a whole if it exists.
    #[arg(
        long,
        value_name = "FILE",
        env = "NETDIAG_METRICS",
        default_value = "training_metrics.json",
        help_heading = "Output"
    )]
    metrics: PathBuf,
}

/// Trains once. A signal ends it with nothing written.
pub(crate) fn run(args: &Args, places: &Places) -> anyhow::Result<()> {
    let mut files = vec![("data", args.data.as_path())];
    files.extend(args.validate.as_deref().map(|path| ("validate", path)));
    files.extend([("model", &*args.model), ("plot", &*args.plot), ("metrics", &*args.metrics)]);
    check_distinct(&files, places)?;
    let progress = Progress::start();
    let recording = Recording::read("--data", &args.data, &progress)?;
    let validation = args.validate.as_deref();
    let validation = validation.map(|path| read_validation(path, &progress)).transpose()?;
    // Nobody should wait for a training whose result has no place.
    for path in [&args.model, &args.plot, &args.metrics] {
        Staged::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let params = Params {
        n_estimators: args.estimators,
        contamination: args.contamination,
        seed: args.seed,
        ..Params::default()
    };
    let outcome =
        train::train(&recording, validation.as_ref(), &params, &progress).map_err(|error| {
            UsageError::new(format!("{}: {error}", places.named("data", args.data.display())))
        })?;
    let png = plot::draw_model(&outcome.chart)?;
    drop(progress);
    write(args, &outcome, &png)?;
    output::print(&outcome.metrics.to_string())?;
    let (model, plot, metrics) =
        (args.model.display(), args.plot.display(), args.metrics.display());
    say(&format!("netdiag: model written to {model}, picture to {plot}, figures to {metrics}"));
    Ok(())
}

fn read_validation(path: &Path, progress: &Progress) -> Result<Recording, UsageError> {
    let recording = Recording::read("--validate", path, progress)?;
    if recording.is_idle() {
        let message = "shows nothing to judge: no round trip, retransmission or stalled flow";
        let remedy = "give a recording of traffic";
        return Err(UsageError::new(format!("--validate {} {message}; {remedy}", path.display())));
    }
    Ok(recording)
}

fn write(args: &Args, outcome: &Outcome, png: &[u8]) -> anyhow::Result<()> {
    let metrics = serde_json::to_string_pretty(&outcome.metrics).context("figures as JSON")? + "\n";
    let model = outcome.model.render();
    let contents =
        [(&args.model, model.as_bytes()), (&args.plot, png), (&args.metrics, metrics.as_bytes())];
    // From here on a signal waits, so that it comes before all three files or after them.
    let stop = Stop::on_signals()?;
    let stage = |(path, content): (&PathBuf, &[u8])| {
        Staged::create(path)
            .and_then(|staged| staged.write(|file| file.write_all(content)))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    let staged: Vec<Staged> = contents.into_iter().map(stage).collect::<Result<_, _>>()?;
    anyhow::ensure!(!stop.wait(Duration::ZERO), "interrupted; nothing was written");
    let mut replaced = Vec::new();
    for (staged, (path, _)) in staged.into_iter().zip(contents) {
        staged.replace().with_context(|| match replaced.is_empty() {
            true => format!("cannot write {}", path.display()),
            false => {
                format!("cannot write {}; {} is new already", path.display(), replaced.join(", "))
            }
        })?;
        replaced.push(path.display().to_string());
    }
    Ok(())
}
