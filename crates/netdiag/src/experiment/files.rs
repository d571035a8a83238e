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

use std::io::{self, Write};

use anyhow::Context as _;
use netdiag_lab::metrics::Ending;
use netdiag_telemetry::csv;

use super::arm::ArmData;
use super::folder::{self, Content, Folder};
use super::phases::Role;
use super::record::{Record, Tick};
use super::report;
use crate::plot::{self, ArmLines, ArmsChart, PhaseMark};

/// Writes all of it, or nothing; `arms` are in the record's order. A picture that cannot be drawn is left out and told.
pub(crate) fn write(folder: &Folder, record: &Record, arms: &[ArmData]) -> anyhow::Result<()> {
    let summary = serde_json::to_string_pretty(record).context("the summary as JSON")? + "\n";
    let picture = plot::draw_arms(&timeline(record));
    let report = report::render(record);
    let mut files: Vec<(String, Content<'_>)> =
        vec![(folder::SUMMARY.to_owned(), Box::new(|to| to.write_all(summary.as_bytes())))];
    for (index, (arm, data)) in record.arms.iter().zip(arms).enumerate() {
        let is_last = index + 1 == arms.len();
        let name = if is_last { folder::LINK.to_owned() } else { folder::link_of(&arm.name) };
        files.push((
            name,
            Box::new(|to| {
                to.write_all(csv::header().as_bytes())?;
                data.rows.iter().try_for_each(|row| to.write_all(csv::format_row(row).as_bytes()))
            }),
        ));
    }
    files.push((folder::HINTS.to_owned(), Box::new(|to| hints(record, to))));
    files.push((folder::TOKENS.to_owned(), Box::new(|to| tokens(record, arms, to))));
    if let Ok(picture) = &picture {
        files.push((folder::PICTURE.to_owned(), Box::new(|to| to.write_all(picture))));
    }
    files.push((folder::REPORT.to_owned(), Box::new(|to| to.write_all(report.as_bytes()))));
    folder.write(&files)?;
    drop(files);
    picture.map(|_| ())
}

fn timeline(record: &Record) -> ArmsChart<'_> {
    let phases = record.phases.iter().map(|phase| PhaseMark {
        name: &phase.name,
        from_seconds: phase.from_seconds,
        to_seconds: phase.to_seconds,
        fault: phase.role == Role::Fault,
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

fn hints(record: &Record, to: &mut dyn Write) -> io::Result<()> {
    writeln!(
        to,
        "arm,seconds,phase,p95_rtt_ms,retrans_segs,health,anomaly,anomaly_score,state,hold,current_tps,target_tps,generated_tps,delivered_tps"
    )?;
    for arm in &record.arms {
        for tick in &arm.ticks {
            let rtt = tick.p95_rtt_ms.map_or(String::new(), |ms| format!("{ms:.3}"));
            writeln!(
                to,
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
            )?;
        }
    }
    Ok(())
}

fn tokens(record: &Record, arms: &[ArmData], to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "arm,answer,asked_seconds,end,token,received_seconds")?;
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
                writeln!(to, "{},{number},{asked:.4},{end},{token},{at:.4}", arm.name)?;
            }
        }
    }
    Ok(())
}

/// A phase's name may have commas in it (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
