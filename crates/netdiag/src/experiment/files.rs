//! What an experiment leaves behind.
//!
//! | file | is |
//! | --- | --- |
//! | `report.html` | everything in one page |
//! | `summary.json` | the figures (`netdiag-experiment/1`) |
//! | `timeline.png` | the course of all arms |
//! | `net_data.csv` | the last arm's link, as `netdiag agent` writes it; other arms' have their name in front |
//! | `hints.csv` | what was recommended, per arm and interval |
//! | `tokens.csv` | when each token came, per arm and answer |

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use netdiag_lab::metrics::Ending;
use netdiag_telemetry::csv;

use super::arm::ArmData;
use super::record::{Record, Tick};
use super::report;
use crate::plot::{self, ArmLines, ArmsChart, PhaseMark};
use crate::replace::replace;

/// Writes all of it. Each file is replaced whole; `arms` are in the record's order.
pub(crate) fn write(folder: &Path, record: &Record, arms: &[ArmData]) -> anyhow::Result<()> {
    let save = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        replace(&path, |file| file.write_all(content))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    for (index, (arm, data)) in record.arms.iter().zip(arms).enumerate() {
        let text: String =
            std::iter::once(csv::header()).chain(data.rows.iter().map(csv::format_row)).collect();
        let is_last = index + 1 == arms.len();
        let name =
            if is_last { "net_data.csv".to_owned() } else { format!("{}.net_data.csv", arm.name) };
        save(&name, text.as_bytes())?;
    }
    save("timeline.png", &plot::draw_arms(&timeline(record))?)?;
    save("hints.csv", hints(record).as_bytes())?;
    save("tokens.csv", tokens(record, arms).as_bytes())?;
    let summary = serde_json::to_string_pretty(record).context("the summary as JSON")? + "\n";
    save("summary.json", summary.as_bytes())?;
    save("report.html", report::render(record).as_bytes())
}

fn timeline(record: &Record) -> ArmsChart<'_> {
    let phases = record.phases.iter().map(|phase| PhaseMark {
        name: &phase.name,
        from_seconds: phase.from_seconds,
        to_seconds: phase.to_seconds,
        fault: phase.fault,
    });
    let arms = record.arms.iter().map(|arm| {
        let values = |of: fn(&Tick) -> f64| arm.ticks.iter().map(of).collect();
        ArmLines {
            name: &arm.name,
            seconds: values(|tick| tick.seconds),
            p95_rtt_ms: arm.ticks.iter().map(|tick| tick.p95_rtt_ms).collect(),
            retrans_segs: values(|tick| tick.retrans_segs as f64),
            health: values(|tick| tick.health),
            anomaly: arm.ticks.iter().map(|tick| tick.anomaly).collect(),
            current_tps: values(|tick| tick.current_tps),
            delivered_tps: values(|tick| tick.delivered_tps),
        }
    });
    ArmsChart {
        title: format!(
            "{}: {} streams per arm, by {}",
            record.scenario, record.streams, record.source
        ),
        seconds: record.seconds,
        phases: phases.collect(),
        arms: arms.collect(),
    }
}

fn hints(record: &Record) -> String {
    let mut text = "arm,seconds,phase,p95_rtt_ms,retrans_segs,health,anomaly,anomaly_score,state,hold,current_tps,target_tps,generated_tps,delivered_tps\n".to_owned();
    for arm in &record.arms {
        for tick in &arm.ticks {
            let rtt = tick.p95_rtt_ms.map_or(String::new(), |ms| format!("{ms:.3}"));
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(
                text,
                "{},{:.3},{},{rtt},{},{:.4},{},{:.4},{},{},{:.3},{:.3},{:.1},{:.1}",
                arm.name,
                tick.seconds,
                quoted(record.phase_at(tick.seconds)),
                tick.retrans_segs,
                tick.health,
                u8::from(tick.anomaly),
                tick.anomaly_score,
                tick.state,
                u8::from(tick.hold),
                tick.current_tps,
                tick.target_tps,
                tick.generated_tps,
                tick.delivered_tps,
            );
        }
    }
    text
}

fn tokens(record: &Record, arms: &[ArmData]) -> String {
    let mut text = "arm,answer,asked_seconds,end,token,received_seconds\n".to_owned();
    for (arm, data) in record.arms.iter().zip(arms) {
        for (number, stream) in data.streams.iter().enumerate() {
            let end = match stream.ending {
                Ending::Complete => "finished",
                Ending::Left(_) => "left",
                Ending::Cut(_) => "time_up",
                Ending::Failed => "failed",
            };
            let asked = stream.submitted.as_secs_f64();
            for (token, at) in stream.deliveries.iter().enumerate() {
                let at = at.as_secs_f64();
                let _ = writeln!(text, "{},{number},{asked:.4},{end},{token},{at:.4}", arm.name);
            }
        }
    }
    text
}

/// A phase's name may have commas in it (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
