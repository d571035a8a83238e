//! The figures that sum an experiment up: each with its name, its meaning, and how it is read off an arm.
//!
//! The page and the terminal take them from here, so that they cannot disagree.

use netdiag_lab::metrics::Summary;

use super::rate::Reactions;
use super::record::{ArmRecord, GroupFigures, Record};

/// A row of the table.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// What the number means, for whoever has never seen it.
    pub(crate) meaning: &'static str,
    /// What stands where in it, for a terminal; empty where the name says it.
    legend: &'static str,
    pub(crate) of: fn(&ArmRecord) -> String,
}

/// All of them, in the order of the table.
pub(crate) const FIGURES: [Figure; 16] = [
    Figure {
        name: "Tokens generated",
        meaning: "by the engine, over all streams",
        legend: "",
        of: |arm| arm.summary.tokens.generated.to_string(),
    },
    Figure {
        name: "… acknowledged",
        meaning: "the client's kernel has them",
        legend: "",
        of: |arm| arm.summary.tokens.acked.to_string(),
    },
    Figure {
        name: "… in flight at the end",
        meaning: "neither acknowledged nor lost when time was up",
        legend: "",
        of: |arm| arm.summary.tokens.in_flight.to_string(),
    },
    Figure {
        name: "… wasted",
        meaning: "never acknowledged: the stream ended first. Generated = acknowledged + in flight + wasted",
        legend: "never acknowledged (share of generated)",
        of: |arm| {
            let wasted = arm.summary.tokens.wasted;
            format!("{wasted} ({})", percent(arm.summary.waste_ratio, 2))
        },
    },
    Figure {
        name: "Unread",
        meaning: "tokens that the client's kernel has and its reader left before reading",
        legend: "acknowledged, and the reader left before reading them",
        of: |arm| told(arm, arm.summary.unread_tokens.to_string()),
    },
    Figure {
        name: "Answers",
        meaning: "asked for / whole / given up by the reader after a silence / failed; the others were under way at the end",
        legend: "asked for / whole / reader left / failed",
        of: |arm| {
            let Summary { requests, finished, left, failed, .. } = arm.summary;
            told(arm, format!("{requests} / {finished} / {left} / {failed}"))
        },
    },
    Figure {
        name: "QoE",
        meaning: "1 if no reader ever had to wait longer than an ideal server makes him (Andes); mean over answers",
        legend: "1: no reader ever waited longer than for an ideal server",
        of: |arm| number(arm.summary.qoe_mean, 3, ""),
    },
    Figure {
        name: "Stall ratio",
        meaning: "share of the time from the first token on that was spent in gaps of more than 200 ms (Eloquent); a pace below 5 tokens/s is nothing else",
        legend: "share of the time in gaps of more than 200 ms",
        of: |arm| percent(arm.summary.stall_ratio, 1),
    },
    Figure {
        name: "Delivered",
        meaning: "tokens/s, all streams",
        legend: "tokens/s, all streams",
        of: |arm| number(arm.summary.delivered_tps, 1, ""),
    },
    Figure {
        name: "Effective throughput",
        meaning: "the same, counting less what arrives long before it is read (TokenFlow); tells only where the engine is full",
        legend: "less what arrives long before it is read",
        of: |arm| number(arm.summary.effective_tps, 1, ""),
    },
    Figure {
        name: "Time to first token",
        meaning: "median / 95th percentile, connecting included",
        legend: "median / 95th percentile",
        of: |arm| pair(arm.summary.ttft.map(|ttft| (ttft.p50_seconds, ttft.p95_seconds))),
    },
    Figure {
        name: "Time per token",
        meaning: "mean of an answer after its first token: median / 99th percentile over answers",
        legend: "median / 99th percentile",
        of: |arm| pair(arm.summary.tpot.map(|tpot| (tpot.p50_seconds, tpot.p99_seconds))),
    },
    Figure {
        name: "Recommended rate",
        meaning: "tokens/s per stream, mean over clients: over the run / in calm phases / in faults / lowest",
        legend: "tokens/s per stream: mean / in calm / in faults / lowest",
        of: |arm| {
            let rate = &arm.rate;
            let all =
                [rate.mean_tps, rate.mean_in_calm_tps, rate.mean_in_faults_tps, rate.lowest_tps];
            all.map(|rate| number(rate, 1, "")).join(" / ")
        },
    },
    Figure {
        name: "Rate falls",
        meaning: "from the start of a fault until it is below half of the highest rate: in how many of the faults before which it was \
                  not, the median time and the longest. Faults in a row count as one",
        legend: "faults in which it fell below half; median, longest time",
        of: |arm| reactions(arm.rate.falls, arm.rate.why_no_falls, "slow already"),
    },
    Figure {
        name: "Rate is back",
        meaning: "from the end of a fault until 90 % of the highest rate: in how many of the calm phases before which it was below \
                  that, the median time and the longest",
        legend: "calm phases in which it came back to 90 %; the same",
        of: |arm| reactions(arm.rate.recoveries, arm.rate.why_no_recoveries, "never slow"),
    },
    Figure {
        name: "Follows hints",
        meaning: "whether this arm's engine heeds the recommendation; where it does not, the rates above are what it was told",
        legend: "",
        of: |arm| if arm.paced { "yes" } else { "no" }.to_owned(),
    },
];

/// What clients have told. Where a run was cut short they have told nothing, which is not that there was nothing.
fn told(arm: &ArmRecord, text: String) -> String {
    if arm.summary.requests > 0 { text } else { "–".to_owned() }
}

fn percent(share: Option<f64>, digits: usize) -> String {
    number(share.map(|share| share * 100.0), digits, " %")
}

fn reactions(reactions: Option<Reactions>, why_none: &str, already: &str) -> String {
    let Some(of) = reactions else { return why_none.to_owned() };
    let mut parts = Vec::new();
    if of.possible > 0 || of.already == 0 {
        parts.push(format!("{} of {}", of.seen, of.possible));
    }
    if let Some((median, longest)) = of.median_seconds.zip(of.longest_seconds) {
        parts.push(format!("{median:.1}"));
        parts.push(format!("{longest:.1} s"));
    }
    if of.already > 0 {
        parts.push(format!("{} {already}", of.already));
    }
    parts.join(" / ")
}

fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

fn pair(seconds: Option<(f64, f64)>) -> String {
    seconds.map_or("–".to_owned(), |(low, high)| format!("{low:.3} / {high:.3} s"))
}

/// A row of the table of an arm's groups of clients.
pub(crate) struct GroupFigure {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&GroupFigures) -> String,
}

/// All of those.
pub(crate) const GROUP_FIGURES: [GroupFigure; 5] = [
    GroupFigure {
        name: "Answers",
        of: |group| number((group.answers > 0).then_some(group.answers as f64), 0, ""),
    },
    GroupFigure { name: "QoE", of: |group| number(group.qoe_mean, 3, "") },
    GroupFigure { name: "Stall ratio", of: |group| percent(group.stall_ratio, 1) },
    GroupFigure { name: "Mean rate, tokens/s", of: |group| number(group.mean_tps, 1, "") },
    GroupFigure { name: "Lowest rate, tokens/s", of: |group| number(group.lowest_tps, 1, "") },
];

/// The tables for a terminal.
pub(crate) fn table(record: &Record) -> String {
    let mut rows = vec![Row::new("", record.arms.iter().map(|arm| arm.name.clone()), "")];
    for figure in &FIGURES {
        rows.push(Row::new(figure.name, record.arms.iter().map(figure.of), figure.legend));
    }
    let mut text = aligned(&rows);
    if record.groups.len() > 1 {
        text.push('\n');
        text += &aligned(&group_rows(record));
    }
    text
}

fn group_rows(record: &Record) -> Vec<Row> {
    let columns = || {
        let arms = record.arms.iter();
        arms.flat_map(|arm| arm.groups.iter().zip(&record.groups).map(move |of| (arm, of)))
    };
    let names = columns().map(|(arm, (_, group))| format!("{}, {}", group.name, arm.name));
    let mut rows = vec![Row::new("Groups of clients", names, "")];
    for figure in &GROUP_FIGURES {
        rows.push(Row::new(figure.name, columns().map(|(_, (group, _))| (figure.of)(group)), ""));
    }
    rows
}

struct Row {
    name: &'static str,
    cells: Vec<String>,
    legend: &'static str,
}

impl Row {
    fn new(
        name: &'static str,
        cells: impl IntoIterator<Item = String>,
        legend: &'static str,
    ) -> Self {
        Self { name, cells: cells.into_iter().collect(), legend }
    }
}

/// Columns with their values to the right, and below a row what stands where in it.
fn aligned(rows: &[Row]) -> String {
    let length = |text: &str| text.chars().count();
    let width = rows.iter().map(|row| length(row.name)).max().unwrap_or(0);
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.cells.get(column));
            cells.map(|cell| length(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        text += &format!("{:<width$}", row.name);
        for (cell, wide) in row.cells.iter().zip(&widths) {
            text += &format!("  {cell:>wide$}");
        }
        text.push('\n');
        if !row.legend.is_empty() {
            text += &format!("    {}\n", row.legend);
        }
    }
    text
}
