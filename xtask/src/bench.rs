//! `cargo xtask bench NAME`: a table of measurements, ours beside our peers from the same run, then one line per bar.
//!
//! A bench only measures; printing and judging are done here, the same for all. Invariant: standard output holds the report
//! and nothing else, so that `--json` can be read by a program, and a peer that could not be measured is named in it.

mod attribution;
mod bus;
mod client;
mod dashboard;
mod fleet;
mod gateway;
mod health;
mod hints;
mod iforest;
mod lab;
mod pacer;
mod prediction;
mod probe;
mod reaction;
mod scale;
mod server;
mod up;

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use serde_json::json;

/// The benches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Name {
    /// The probe's cost per event and the agent's at 10,000 flows
    Probe,
    /// Changes of a path found in labelled RTT traces, beside a median/MAD detector and the forest alone
    Health,
    /// The forest's training and scoring beside other libraries', or with --quality what it finds
    Iforest,
    /// The dashboard's weight, first paint and cost, with nobody, ten and a thousand stuck viewers
    Dashboard,
    /// The gateway's cost per event, the wait that it adds and its memory, beside nginx and a bare hyper proxy
    Gateway,
    /// Emulated links beside what they are asked to be, what they cost, and whether anything of them stays behind
    Lab,
    /// Whom streams wait for while engines pause, links fail and readers stop: the confusion matrix of `netdiag up`
    Attribution,
    /// How soon a silent link holds its stream and lets it go on, and a reader that stops is known
    Reaction,
    /// Hints per second over one local NATS server, and how old one is when it arrives
    Bus,
    /// The hint server under 64 connections, beside nginx with a file of the same bytes, and Flask
    Hints,
    /// Two nodes that share an engine over emulated links, while the leader dies and the NATS server is gone for half a minute
    Fleet,
    /// What a thousand nodes of ten thousand streams cost on the bus and in the process that shares an engine among them
    Scale,
    /// What pacing costs at 10,000 flows, and how much faster than real time the simulator is
    Pacer,
    /// What the simulator says of an experiment beside what the experiment measures
    Prediction,
}

/// How a bench is asked to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Measure for longer than five minutes if that makes the figures steadier
    #[arg(long)]
    long: bool,
    /// For iforest: measure what is found in labelled data instead of how fast
    #[arg(long)]
    quality: bool,
    /// For health and for --quality: the folder of labelled CSV files; for lab and prediction: of traces in Mahimahi's format
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// For gateway: measure LiteLLM's proxy as well, which takes minutes to install
    #[arg(long)]
    litellm: bool,
}

/// What a bench measured.
#[derive(Debug, Default)]
struct Report {
    columns: Vec<&'static str>,
    /// A cell for each column.
    rows: Vec<Vec<String>>,
    bars: Vec<Bar>,
    /// Peers that could not be measured, and why.
    absent: Vec<String>,
}

/// A promise about a figure.
#[derive(Debug)]
struct Bar {
    /// One word, to be found in the output by programs.
    name: String,
    value: f64,
    bound: Bound,
    /// For JSON: a line of text has its four words, and the table the units.
    unit: &'static str,
}

/// Where a figure must be.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    fn limit(&self) -> f64 {
        match self.bound {
            Bound::AtMost(limit) | Bound::AtLeast(limit) => limit,
        }
    }

    /// A figure that is not a number meets no bar.
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(limit) => self.value <= limit,
            Bound::AtLeast(limit) => self.value >= limit,
        }
    }
}

/// Runs a bench, prints its report, and fails if a bar is missed.
pub(crate) fn run(name: Name, options: &Options) -> anyhow::Result<()> {
    if options.quality && !matches!(name, Name::Iforest) {
        bail!("--quality is for the bench iforest only");
    }
    if options.litellm && !matches!(name, Name::Gateway) {
        bail!("--litellm is for the bench gateway only");
    }
    let takes_data = matches!(name, Name::Health | Name::Lab | Name::Prediction);
    if options.data.is_some() && !options.quality && !takes_data {
        bail!(
            "--data is for the benches health, lab and prediction, and for iforest with --quality"
        );
    }
    let report = match name {
        Name::Iforest => iforest::run(options)?,
        Name::Lab => lab::run(options)?,
        Name::Bus => bus::run(options.long)?,
        Name::Hints => hints::run(options)?,
        Name::Fleet => fleet::run(options)?,
        Name::Scale => scale::run(options)?,
        Name::Pacer => pacer::run(options.long)?,
        Name::Prediction => prediction::run(options)?,
        Name::Probe => probe::run(options.long)?,
        Name::Gateway => gateway::run(options)?,
        Name::Dashboard => dashboard::run(options.long)?,
        Name::Attribution => attribution::run(options)?,
        Name::Reaction => reaction::run(options)?,
        Name::Health => health::run(options.data.as_deref())?,
    };
    print!("{}", if options.json { report.json() } else { report.text() });
    let missed: Vec<&str> =
        report.bars.iter().filter(|bar| !bar.is_met()).map(|bar| &*bar.name).collect();
    if !missed.is_empty() {
        bail!("missed: {}", missed.join(", "));
    }
    Ok(())
}

impl Report {
    /// A row of a bench whose columns are what is measured, its figure and its unit.
    fn figure(&mut self, what: &str, value: f64, unit: &str) {
        self.rows.push(vec![what.to_owned(), figure(value), unit.to_owned()]);
    }

    fn bar(&mut self, name: &str, value: f64, bound: Bound, unit: &'static str) {
        self.bars.push(Bar { name: name.to_owned(), value, bound, unit });
    }

    fn text(&self) -> String {
        let lines: Vec<Vec<String>> =
            std::iter::once(self.columns.iter().map(ToString::to_string).collect())
                .chain(self.rows.iter().cloned())
                .collect();
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().enumerate();
            // Names to the left, figures to the right.
            let cells: Vec<_> = cells
                .map(|(column, cell)| match column {
                    0 => format!("{cell:<w$}", w = width(column)),
                    _ => format!("{cell:>w$}", w = width(column)),
                })
                .collect();
            text += &format!("{}\n", cells.join("  ").trim_end());
        }
        for absent in &self.absent {
            text += &format!("absent {absent}\n");
        }
        for bar in &self.bars {
            let verdict = if bar.is_met() { "ok" } else { "MISSED" };
            text +=
                &format!("{verdict} {} {} {}\n", bar.name, figure(bar.value), figure(bar.limit()));
        }
        text
    }

    fn json(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let cells = self
                    .columns
                    .iter()
                    .zip(row)
                    .map(|(name, cell)| ((*name).to_owned(), json!(cell)));
                serde_json::Value::Object(cells.collect())
            })
            .collect();
        let bars = self.bars.iter().map(|bar| {
            let bound = match bar.bound {
                Bound::AtMost(_) => "at_most",
                Bound::AtLeast(_) => "at_least",
            };
            json!({
                "name": bar.name, "value": bar.value, bound: bar.limit(), "unit": bar.unit,
                "ok": bar.is_met(),
            })
        });
        let bars: Vec<_> = bars.collect();
        format!("{:#}\n", json!({"rows": rows, "bars": bars, "absent": self.absent}))
    }
}

/// Two decimals, or the third where it says something.
fn figure(value: f64) -> String {
    let text = format!("{value:.3}");
    text.strip_suffix('0').map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_table_with_verdicts() {
        let report = Report {
            columns: vec!["what", "ns"],
            rows: vec![vec!["ours".into(), "7".into()], vec!["a peer".into(), "100".into()]],
            bars: vec![
                Bar { name: "ratio".into(), value: 0.07, bound: Bound::AtMost(0.5), unit: "" },
                Bar { name: "memory".into(), value: 3.0, bound: Bound::AtMost(2.0), unit: "MiB" },
                Bar { name: "rate".into(), value: 9.0, bound: Bound::AtLeast(8.0), unit: "/s" },
            ],
            absent: vec!["another peer (not installed)".into()],
        };
        let expected = "what     ns\nours      7\na peer  100\nabsent another peer (not installed)\n\
                        ok ratio 0.07 0.50\nMISSED memory 3.00 2.00\nok rate 9.00 8.00\n";
        assert_eq!(report.text(), expected);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["rows"][1]["ns"], "100");
        assert_eq!(json["absent"][0], "another peer (not installed)");
        let expected = json!({
            "name": "memory", "value": 3.0, "at_most": 2.0, "unit": "MiB", "ok": false,
        });
        assert_eq!(json["bars"][1], expected);
        assert_eq!(json["bars"][2]["at_least"], 8.0);
    }

    #[test]
    fn a_bar_is_met_on_its_edge_and_by_numbers_only() {
        let check = |value, bound, expected| {
            assert_eq!(
                Bar { name: "x".into(), value, bound, unit: "" }.is_met(),
                expected,
                "{value}"
            );
        };
        check(2.0, Bound::AtMost(2.0), true);
        check(2.1, Bound::AtMost(2.0), false);
        check(2.0, Bound::AtLeast(2.0), true);
        check(1.9, Bound::AtLeast(2.0), false);
        check(f64::NAN, Bound::AtMost(2.0), false);
        check(f64::NAN, Bound::AtLeast(2.0), false);
    }
}
