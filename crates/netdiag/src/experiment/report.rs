//! `report.html`: what an experiment showed, as one page that needs nothing else.
//!
//! Invariant: no script, no font, no picture and no style comes from elsewhere, which the page's own policy enforces; so it opens
//! in ten years as it does today.

use std::fmt::Write as _;

use super::bootstrap::RESAMPLES;
use super::chart::{Band, Chart, Scale, Series, escape};
use super::figures::{FIGURES, Figure, GROUP_FIGURES, GroupFigure};
use super::findings;
use super::phases::Role;
use super::record::{Record, Tick};

/// Arms beyond these share the last colour.
const COLOURS: [&str; 4] = ["arm0", "arm1", "arm2", "arm3"];

/// Phases up to which their table is open at first: as many as one screen has room for.
const OPEN_PHASES: usize = 12;

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
        prose(&record.setting()),
    );
    for note in &record.notes {
        let _ = writeln!(html, "<p class=\"note\">Note: {}.</p>", prose(note));
    }
    html.push_str(&in_short(record));
    html.push_str("<h2>What happened</h2>\n");
    html.push_str(
        "<p>All arms ran at the same time over links with the same faults. Time is in seconds since the start. Faults are shaded; \
         the number above a phase is that of the table of phases.</p>\n",
    );
    html.push_str(&phases(record));
    for chart in charts(record) {
        html.push_str(&chart);
    }
    html.push_str(&table(record));
    html.push_str(&groups(record));
    html.push_str(&method(record));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn in_short(record: &Record) -> String {
    let findings = findings::findings(record);
    if findings.is_empty() {
        return String::new();
    }
    let items: String = findings.iter().map(|line| format!("<li>{}</li>\n", prose(line))).collect();
    format!("<h2>In short</h2>\n<ul>\n{items}</ul>\n")
}

/// All phases with kind and times: the charts have no room for every name.
fn phases(record: &Record) -> String {
    let role = |role: Role| match role {
        Role::Calm => "",
        Role::Fault => "fault",
        Role::Measured => "measured link: neither calm nor a fault",
    };
    let row = |(index, phase): (usize, &super::phases::PhaseSpan)| {
        format!(
            "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}\u{a0}–\u{a0}{:.1}\u{a0}s</td></tr>\n",
            phase.role.class(),
            index + 1,
            escape(&phase.name),
            phase.kind,
            role(phase.role),
            phase.from_seconds,
            phase.to_seconds,
        )
    };
    let rows: String = record.phases.iter().enumerate().map(row).collect();
    let open = if record.phases.len() <= OPEN_PHASES { " open" } else { "" };
    format!(
        "<details{open}><summary>Phases ({})</summary>\n<table class=\"phases\">\n\
         <tr><th></th><th>name</th><th>kind</th><th></th><th>from – to</th></tr>\n{rows}</table></details>\n",
        record.phases.len()
    )
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

/// The phases, faults shaded.
fn bands<'a>(record: &'a Record) -> Vec<Band<'a>> {
    let band = |(index, phase): (usize, &'a super::phases::PhaseSpan)| Band {
        from: phase.from_seconds,
        to: phase.to_seconds,
        class: phase.role.class(),
        label: &phase.name,
        number: index + 1,
    };
    record.phases.iter().enumerate().map(band).collect()
}

fn colour(index: usize) -> &'static str {
    COLOURS[index.min(COLOURS.len() - 1)]
}

fn table(record: &Record) -> String {
    let heads: String =
        record.arms.iter().map(|arm| format!("<th>{}</th>", escape(&arm.name))).collect();
    let row = |figure: &Figure| {
        let cells: String = record
            .arms
            .iter()
            .map(|arm| format!("<td>{}</td>", value(&(figure.of)(arm))))
            .collect();
        format!("<tr><td>{}<small>{}</small></td>{cells}</tr>\n", figure.name, figure.meaning)
    };
    let rows: String = FIGURES.iter().map(row).collect();
    format!(
        "<h2>What it comes to</h2>\n<div class=\"scroll\"><table>\n<tr><th></th>{heads}</tr>\n{rows}</table></div>\n"
    )
}

/// What a scenario that tells clients apart did to each group.
fn groups(record: &Record) -> String {
    if record.groups.len() < 2 {
        return String::new();
    }
    let columns = || {
        let arms = record.arms.iter();
        arms.flat_map(|arm| arm.groups.iter().zip(&record.groups).map(move |of| (arm, of)))
    };
    let heads: String = columns()
        .map(|(arm, (_, group))| {
            format!(
                "<th>{}<small>{} ({} of the links)</small></th>",
                escape(&arm.name),
                escape(&group.name),
                group.clients
            )
        })
        .collect();
    let row = |figure: &GroupFigure| {
        let cells: String = columns()
            .map(|(_, (group, _))| format!("<td>{}</td>", value(&(figure.of)(group))))
            .collect();
        format!("<tr><td>{}</td>{cells}</tr>\n", figure.name)
    };
    let rows: String = GROUP_FIGURES.iter().map(row).collect();
    format!(
        "<h2>Who it happened to</h2>\n<p>Clients of different groups have different links, and each is paced by a hint of its own.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th></th>{heads}</tr>\n{rows}</table></div>\n"
    )
}

/// What was run, so that it can be judged and run again.
fn method(record: &Record) -> String {
    format!(
        "<h2>How it was done</h2>\n<p>{}</p>\n<p>Links, engine and clients are real programs on this kernel's TCP; links carry packets \
         in user space as the scenario says. Better and worse are said where the 95 % interval of a difference excludes zero, found \
         by drawing each arm's answers anew, with replacement, {RESAMPLES} times (percentile bootstrap, Efron and Tibshirani 1993, chapter 13). Answers of a \
         client share its link, so it is one run's evidence and no more.</p>\n<p class=\"source\">netdiag {}: <code>{}</code></p>\n",
        prose(&record.model),
        record.version,
        escape(&record.command),
    )
}

/// Sentences in which no number is parted from its unit.
fn prose(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let after_digit = joined.ends_with(|last: char| last.is_ascii_digit());
        let mut next = rest.clone();
        let is_unit = match next.next() {
            Some('%') => true,
            Some('s') => next.next().is_none_or(|c| !c.is_alphanumeric()),
            Some('m') => next.next() == Some('s'),
            _ => false,
        };
        joined.push(if c == ' ' && after_digit && is_unit { '\u{a0}' } else { c });
    }
    escape(&joined)
}

/// A figure whose parts stay whole where the line must break.
fn value(text: &str) -> String {
    let whole = |part: &str| format!("<span>{}</span>", escape(part));
    // An explanation in words may break anywhere.
    let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit() || c == '–');
    let part = |part: &str| match part.split_once(" (") {
        Some((number, share)) => format!("{} {}", whole(number), whole(&format!("({share}"))),
        None if is_number(part) => whole(part),
        None => escape(part),
    };
    text.split(" / ").map(part).collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_break_between_their_parts_only() {
        let check = |text: &str, expected: &str| assert_eq!(value(text), expected);
        check("164 (0.51 %)", "<span>164</span> <span>(0.51 %)</span>");
        check("0.046 / 0.090 s", "<span>0.046</span> / <span>0.090 s</span>");
        check("no calm phase", "no calm phase");
        check("–", "<span>–</span>");
    }

    #[test]
    fn numbers_are_not_parted_from_their_units() {
        let expected = "95\u{a0}% in 2.0\u{a0}s, 5 streams & 200\u{a0}ms".replace('&', "&amp;");
        assert_eq!(prose("95 % in 2.0 s, 5 streams & 200 ms"), expected);
    }
}
