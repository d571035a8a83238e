//! `report.html`: what an experiment showed, as one page that needs nothing else.
//!
//! Invariant: no script, no font, no picture and no style comes from elsewhere, which the page's own policy enforces; so it opens
//! in ten years as it does today.

use std::fmt::Write as _;

use super::chart::{Band, Chart, Scale, Series, escape};
use super::figures::{self, FIGURES, Figure};
use super::record::{Record, Tick};

/// Arms beyond these share the last colour.
const COLOURS: [&str; 4] = ["arm0", "arm1", "arm2", "arm3"];

const STYLE: &str = include_str!("report.css");

/// The page.
pub(crate) fn render(record: &Record) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>NetDiag-LLM experiment: {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        name = escape(&record.scenario),
    );
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        html,
        "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<p>{}</p>\n",
        escape(&record.scenario),
        escape(&record.description),
        escape(&record.setting()),
    );
    html.push_str(&findings(record));
    html.push_str("<h2>What happened</h2>\n");
    html.push_str(
        "<p>All arms ran at the same time over links with the same faults. Time is in seconds since the start; the scenario's \
         phases are named above each chart where there is room, and faults are shaded.</p>\n",
    );
    for chart in charts(record) {
        html.push_str(&chart);
    }
    html.push_str(&table(record));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn findings(record: &Record) -> String {
    let items: String = figures::findings(record)
        .iter()
        .map(|line| format!("<li>{}</li>\n", escape(line)))
        .collect();
    format!("<h2>In short</h2>\n<ul>\n{items}</ul>\n")
}

fn charts(record: &Record) -> Vec<String> {
    let chart = |title, note, scale, of: fn(&Tick) -> Option<f64>| {
        let series = record.arms.iter().enumerate().map(|(index, arm)| Series {
            name: &arm.name,
            class: colour(index),
            points: arm.ticks.iter().map(|tick| (tick.seconds, of(tick))).collect(),
        });
        let bands = bands(record);
        Chart { title, note, seconds: record.seconds, scale, series: series.collect(), bands }
            .render()
    };
    vec![
        chart("Round trip", "95th percentile per interval, ms", Scale::Log, |tick| tick.p95_rtt_ms),
        chart("Retransmissions", "segments per interval", Scale::FromZero(4.0), |tick| {
            Some(tick.retrans_segs as f64)
        }),
        chart("Health", "1 is as good as this link gets", Scale::FromZero(1.0), |tick| {
            Some(tick.health)
        }),
        chart("Anomaly light", "1 while it is on", Scale::FromZero(1.0), |tick| {
            Some(f64::from(u8::from(tick.anomaly)))
        }),
        chart(
            "Recommended rate",
            "tokens/s for each stream, mean over clients",
            Scale::FromZero(1.0),
            |tick| Some(tick.current_tps),
        ),
        chart("Generated", "tokens/s, all streams of an arm", Scale::FromZero(1.0), |tick| {
            Some(tick.generated_tps)
        }),
        chart(
            "Delivered",
            "tokens/s that clients received, all streams of an arm",
            Scale::FromZero(1.0),
            |tick| Some(tick.delivered_tps),
        ),
    ]
}

/// The phases: faults shaded, all named.
fn bands(record: &Record) -> Vec<Band<'_>> {
    record
        .phases
        .iter()
        .map(|phase| Band {
            from: phase.from_seconds,
            to: phase.to_seconds,
            class: if phase.fault { "fault" } else { "calm" },
            label: &phase.name,
        })
        .collect()
}

fn colour(index: usize) -> &'static str {
    COLOURS[index.min(COLOURS.len() - 1)]
}

fn table(record: &Record) -> String {
    let heads: String =
        record.arms.iter().map(|arm| format!("<th>{}</th>", escape(&arm.name))).collect();
    let row = |figure: &Figure| {
        let cells: String =
            record.arms.iter().map(|arm| format!("<td>{}</td>", (figure.of)(arm))).collect();
        format!("<tr><td>{}<small>{}</small></td>{cells}</tr>\n", figure.name, figure.meaning)
    };
    let rows: String = FIGURES.iter().map(row).collect();
    format!(
        "<h2>What it comes to</h2>\n<div class=\"scroll\"><table>\n<tr><th></th>{heads}</tr>\n{rows}</table></div>\n"
    )
}
