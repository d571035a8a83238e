//! `cargo xtask bench NAME`: a table of measurements, ours beside our peers from the same run, then one line per bar.

mod probe;

use anyhow::bail;
use clap::ValueEnum;
use serde_json::json;

/// The benches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Name {
    /// The probe's cost per event and the agent's at 10,000 flows
    Probe,
}

/// What a bench measured.
#[derive(Debug, Default)]
struct Report {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    bars: Vec<Bar>,
    /// Peers that could not be measured, and why.
    absent: Vec<String>,
}

/// A figure that must not exceed a bound.
#[derive(Debug)]
struct Bar {
    name: &'static str,
    value: f64,
    at_most: f64,
}

impl Bar {
    fn is_met(&self) -> bool {
        self.value <= self.at_most
    }
}

/// Runs a bench, prints its report, and fails if a bar is missed.
pub(crate) fn run(name: Name, as_json: bool) -> anyhow::Result<()> {
    let report = match name {
        Name::Probe => probe::run()?,
    };
    print!("{}", if as_json { report.json() } else { report.text() });
    if !report.bars.iter().all(Bar::is_met) {
        bail!("a bar was missed");
    }
    Ok(())
}

impl Report {
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
            text += &format!("{verdict} {} {:.2} {:.2}\n", bar.name, bar.value, bar.at_most);
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
        let bars: Vec<_> = self
            .bars
            .iter()
            .map(|bar| json!({"name": bar.name, "value": bar.value, "at_most": bar.at_most, "ok": bar.is_met()}))
            .collect();
        format!("{:#}\n", json!({"rows": rows, "bars": bars, "absent": self.absent}))
    }
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
                Bar { name: "ratio", value: 0.07, at_most: 0.5 },
                Bar { name: "memory", value: 3.0, at_most: 2.0 },
            ],
            absent: vec!["another peer (not installed)".into()],
        };
        let expected = "what     ns\nours      7\na peer  100\nabsent another peer (not installed)\n\
                        ok ratio 0.07 0.50\nMISSED memory 3.00 2.00\n";
        assert_eq!(report.text(), expected);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["rows"][1]["ns"], "100");
        assert_eq!(json["bars"][1]["ok"], false);
    }
}
