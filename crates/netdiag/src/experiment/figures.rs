//! The figures that sum an experiment up: each with its name, its meaning, and how it is read off an arm.
//!
//! The page, the terminal and the sentences at the top of both take them from here, so that they cannot disagree.

use super::record::{ArmRecord, Record};

/// A row of the table.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// What the number means, for whoever has never seen it.
    pub(crate) meaning: &'static str,
    pub(crate) of: fn(&ArmRecord) -> String,
}

/// All of them, in the order of the table.
pub(crate) const FIGURES: [Figure; 13] = [
    Figure {
        name: "Tokens generated",
        meaning: "by the engine, over all streams",
        of: |arm| arm.tokens.generated.to_string(),
    },
    Figure {
        name: "… acknowledged",
        meaning: "the client's kernel has them",
        of: |arm| arm.tokens.acked.to_string(),
    },
    Figure {
        name: "… in flight at the end",
        meaning: "not acknowledged when time was up, for streams still open",
        of: |arm| arm.tokens.in_flight.to_string(),
    },
    Figure {
        name: "… wasted",
        meaning: "never acknowledged: the stream ended first. Generated = acknowledged + in flight + wasted",
        of: |arm| format!("{} ({:.2} %)", arm.tokens.wasted, 100.0 * arm.tokens.waste()),
    },
    Figure {
        name: "Requests",
        meaning: "begun / finished / given up by the client after a stall",
        of: |arm| {
            let delivery = &arm.delivery;
            format!("{} / {} / {}", delivery.requests, delivery.finished, delivery.left_early)
        },
    },
    Figure {
        name: "QoE",
        meaning: "1 if no reader ever had to wait longer than an ideal server makes him (Andes); mean over requests",
        of: |arm| number(arm.delivery.qoe, 3, ""),
    },
    Figure {
        name: "Stall ratio",
        meaning: "share of the reading time spent waiting in gaps of more than 200 ms (Eloquent); mean over requests",
        of: |arm| number(arm.delivery.stall_ratio.map(|share| share * 100.0), 1, " %"),
    },
    Figure {
        name: "Effective throughput",
        meaning: "tokens/s, counting less what arrives long before it is read (TokenFlow); tells only where the engine is full",
        of: |arm| number(arm.delivery.effective_tps, 1, ""),
    },
    Figure {
        name: "Time to first token",
        meaning: "median / 95th percentile",
        of: |arm| pair(arm.delivery.ttft_p50_seconds, arm.delivery.ttft_p95_seconds),
    },
    Figure {
        name: "Time per token",
        meaning: "median / 99th percentile of the gaps between tokens as received",
        of: |arm| pair(arm.delivery.tpot_p50_seconds, arm.delivery.tpot_p99_seconds),
    },
    Figure {
        name: "Recommended rate",
        meaning: "tokens/s per stream, mean in calm phases / mean in faults / lowest",
        of: |arm| {
            let rate = &arm.rate;
            let all = [rate.mean_in_calm_tps, rate.mean_in_faults_tps, rate.lowest_tps];
            all.map(|rate| number(rate, 1, "")).join(" / ")
        },
    },
    Figure {
        name: "Rate is back",
        meaning: "seconds from the end of a fault until 90 % of the highest rate; median over faults",
        of: |arm| number(arm.rate.recovery_seconds, 1, " s"),
    },
    Figure {
        name: "Follows hints",
        meaning: "whether this arm's engine heeds the recommendation; where it does not, the rate above is what it was told",
        of: |arm| if arm.paced { "yes" } else { "no" }.to_owned(),
    },
];

fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

fn pair(low: Option<f64>, high: Option<f64>) -> String {
    format!("{} / {}", number(low, 3, " s"), number(high, 3, " s"))
}

/// The table for a terminal.
pub(crate) fn table(record: &Record) -> String {
    let width = FIGURES.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    let columns: Vec<Vec<String>> = record
        .arms
        .iter()
        .map(|arm| {
            std::iter::once(arm.name.clone())
                .chain(FIGURES.iter().map(|figure| (figure.of)(arm)))
                .collect()
        })
        .collect();
    let names = std::iter::once("").chain(FIGURES.iter().map(|figure| figure.name));
    let mut text = String::new();
    for (row, name) in names.enumerate() {
        text += &format!("{name:<width$}");
        for column in &columns {
            let wide = column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            text += &format!("  {:>wide$}", column[row]);
        }
        text.push('\n');
    }
    text
}

/// Sentences that say what the paced arms changed against the first arm that is not paced, whichever way it went.
pub(crate) fn findings(record: &Record) -> Vec<String> {
    let mut findings = Vec::new();
    for arm in record.arms.iter().filter(|arm| arm.paced) {
        let rate = &arm.rate;
        if let (Some(calm), Some(faults)) = (rate.mean_in_calm_tps, rate.mean_in_faults_tps) {
            let back = rate.recovery_seconds.map_or("and it did not come back to 90 % of the highest rate before the next".to_owned(), |seconds| {
                format!("and it was back at 90 % of the highest rate {seconds:.1} s after the end of one")
            });
            findings.push(format!(
                "{}: {calm:.0} tokens/s were recommended in calm phases, {faults:.0} in faults, {back}.",
                arm.name
            ));
        }
        let Some(other) = record.arms.iter().find(|arm| !arm.paced) else { continue };
        let (ours, theirs) = (arm.tokens.waste() * 100.0, other.tokens.waste() * 100.0);
        findings.push(format!(
            "Wasted: {ours:.2} % of what {} generated, {theirs:.2} % of what {} did ({}).",
            arm.name,
            other.name,
            verdict(ours, theirs),
        ));
        if let (Some(ours), Some(theirs)) = (arm.delivery.stall_ratio, other.delivery.stall_ratio) {
            findings.push(format!(
                "Readers waited {:.1} % of their time with {}, {:.1} % with {} ({}).",
                ours * 100.0,
                arm.name,
                theirs * 100.0,
                other.name,
                verdict(ours, theirs),
            ));
        }
        if let (Some(ours), Some(theirs)) = (arm.delivery.qoe, other.delivery.qoe) {
            findings.push(format!(
                "Quality of experience: {ours:.3} with {}, {theirs:.3} with {} ({}).",
                arm.name,
                other.name,
                verdict(theirs, ours),
            ));
        }
    }
    findings
}

/// For a figure of which less is better. Within a twentieth of each other is chance.
fn verdict(ours: f64, theirs: f64) -> &'static str {
    if (ours - theirs).abs() <= 0.05 * ours.abs().max(theirs.abs()) {
        "no difference to speak of"
    } else if ours < theirs {
        "better"
    } else {
        "worse"
    }
}
