//! The figures that sum an experiment up: each with its name, its meaning, and how it is read off an arm.
//!
//! The page, the terminal and the sentences at the top of both take them from here, so that they cannot disagree.

use netdiag_lab::metrics::Summary;

use super::record::{ArmRecord, Record};

/// A row of the table.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// What the number means, for whoever has never seen it.
    pub(crate) meaning: &'static str,
    pub(crate) of: fn(&ArmRecord) -> String,
}

/// All of them, in the order of the table.
pub(crate) const FIGURES: [Figure; 16] = [
    Figure {
        name: "Tokens generated",
        meaning: "by the engine, over all streams",
        of: |arm| arm.summary.tokens.generated.to_string(),
    },
    Figure {
        name: "… acknowledged",
        meaning: "the client's kernel has them",
        of: |arm| arm.summary.tokens.acked.to_string(),
    },
    Figure {
        name: "… in flight at the end",
        meaning: "neither acknowledged nor lost when time was up",
        of: |arm| arm.summary.tokens.in_flight.to_string(),
    },
    Figure {
        name: "… wasted",
        meaning: "never acknowledged: the stream ended first. Generated = acknowledged + in flight + wasted",
        of: |arm| {
            let wasted = arm.summary.tokens.wasted;
            format!("{wasted} ({})", percent(arm.summary.waste_ratio, 2))
        },
    },
    Figure {
        name: "Unread",
        meaning: "tokens that the client's kernel has and its reader left before reading",
        of: |arm| arm.summary.unread_tokens.to_string(),
    },
    Figure {
        name: "Answers",
        meaning: "asked for / whole / given up by the reader after a silence / failed; the others were under way at the end",
        of: |arm| {
            let Summary { requests, finished, left, failed, .. } = arm.summary;
            format!("{requests} / {finished} / {left} / {failed}")
        },
    },
    Figure {
        name: "QoE",
        meaning: "1 if no reader ever had to wait longer than an ideal server makes him (Andes); mean over answers",
        of: |arm| number(arm.summary.qoe_mean, 3, ""),
    },
    Figure {
        name: "Stall ratio",
        meaning: "share of the time from the first token on that was spent in gaps of more than 200 ms (Eloquent); a pace below 5 tokens/s is nothing else",
        of: |arm| percent(arm.summary.stall_ratio, 1),
    },
    Figure {
        name: "Delivered",
        meaning: "tokens/s, all streams",
        of: |arm| number(arm.summary.delivered_tps, 1, ""),
    },
    Figure {
        name: "Effective throughput",
        meaning: "the same, counting less what arrives long before it is read (TokenFlow); tells only where the engine is full",
        of: |arm| number(arm.summary.effective_tps, 1, ""),
    },
    Figure {
        name: "Time to first token",
        meaning: "median / 95th percentile, connecting included",
        of: |arm| pair(arm.summary.ttft.map(|ttft| (ttft.p50_seconds, ttft.p95_seconds))),
    },
    Figure {
        name: "Time per token",
        meaning: "mean of an answer after its first token: median / 99th percentile over answers",
        of: |arm| pair(arm.summary.tpot.map(|tpot| (tpot.p50_seconds, tpot.p99_seconds))),
    },
    Figure {
        name: "Recommended rate",
        meaning: "tokens/s per stream, mean over clients: in calm phases / in faults / lowest",
        of: |arm| {
            let rate = &arm.rate;
            let all = [rate.mean_in_calm_tps, rate.mean_in_faults_tps, rate.lowest_tps];
            all.map(|rate| number(rate, 1, "")).join(" / ")
        },
    },
    Figure {
        name: "Rate falls",
        meaning: "from the start of a fault until half of the highest rate: in how many faults, and the median time",
        of: |arm| reaction(arm.rate.slowed, arm.rate.faults, arm.rate.slowed_after_seconds),
    },
    Figure {
        name: "Rate is back",
        meaning: "from the end of a fault until 90 % of the highest rate: after how many faults, and the median time",
        of: |arm| reaction(arm.rate.recovered, arm.rate.calms, arm.rate.recovered_after_seconds),
    },
    Figure {
        name: "Follows hints",
        meaning: "whether this arm's engine heeds the recommendation; where it does not, the rates above are what it was told",
        of: |arm| if arm.paced { "yes" } else { "no" }.to_owned(),
    },
];

fn percent(share: Option<f64>, digits: usize) -> String {
    number(share.map(|share| share * 100.0), digits, " %")
}

fn reaction(count: usize, of: usize, seconds: Option<f64>) -> String {
    format!("{count} of {of}, {}", number(seconds, 1, " s"))
}

fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

fn pair(seconds: Option<(f64, f64)>) -> String {
    seconds.map_or("–".to_owned(), |(low, high)| format!("{low:.3} / {high:.3} s"))
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
        findings.extend(pace_of(arm));
        let Some(other) = record.arms.iter().find(|arm| !arm.paced) else { continue };
        let (name, than) = (&arm.name, &other.name);
        let (ours, theirs) = (&arm.summary, &other.summary);
        let both = |of: fn(&Summary) -> Option<f64>| of(ours).zip(of(theirs));
        if let Some((ours, theirs)) = both(|summary| summary.waste_ratio) {
            findings.push(format!(
                "Wasted: {:.2} % of what {name} generated, {:.2} % of what {than} did ({}).",
                ours * 100.0,
                theirs * 100.0,
                verdict(ours, theirs, 0.0005),
            ));
        }
        if let Some((ours, theirs)) = both(|summary| summary.stall_ratio) {
            findings.push(format!(
                "Gaps of more than 200 ms: {:.1} % of the time with {name}, {:.1} % with {than} ({}).",
                ours * 100.0,
                theirs * 100.0,
                verdict(ours, theirs, 0.005),
            ));
        }
        if let Some((ours, theirs)) = both(|summary| summary.qoe_mean) {
            findings.push(format!(
                "Quality of experience: {ours:.3} with {name}, {theirs:.3} with {than} ({}).",
                verdict(1.0 - ours, 1.0 - theirs, 0.005),
            ));
        }
    }
    findings
}

/// How the rate followed the link.
fn pace_of(arm: &ArmRecord) -> Option<String> {
    let rate = &arm.rate;
    let (calm, faults) = rate.mean_in_calm_tps.zip(rate.mean_in_faults_tps)?;
    let within = |seconds: Option<f64>| {
        seconds.map_or(String::new(), |seconds| format!(" within {seconds:.1} s"))
    };
    Some(format!(
        "{}: {calm:.0} tokens/s were recommended in calm phases, {faults:.0} in faults. The rate fell below half of the highest in \
         {} of {} faults{}, and was back at 90 % of it after {} of {}{} (medians).",
        arm.name,
        rate.slowed,
        rate.faults,
        within(rate.slowed_after_seconds),
        rate.recovered,
        rate.calms,
        within(rate.recovered_after_seconds),
    ))
}

/// For a figure of which less is better. Within a twentieth of each other, or within `least`, is chance.
fn verdict(ours: f64, theirs: f64, least: f64) -> &'static str {
    if (ours - theirs).abs() <= least.max(0.05 * ours.abs().max(theirs.abs())) {
        "no difference to speak of"
    } else if ours < theirs {
        "better"
    } else {
        "worse"
    }
}
