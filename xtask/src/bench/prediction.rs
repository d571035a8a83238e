//! What `netdiag simulate --scenario` expects beside what `netdiag experiment` measures on the kernel's TCP, arm by arm.
//!
//! Who reads is an input of both: waste is made by the few who leave or vanish, and one draw of eight readers is no estimate of
//! another. So each run draws its own readers, by a seed of its own, the prediction is made for the very same seeds, and the two means
//! are compared. Single runs of a minute, and single predictions, differ from each other by two or three points of stall, because what
//! is lost when decides the rest; so it takes eight of each until means are within a point of what they come to.
//!
//! The prediction is right where they are within 15 % of each other or within two points; an error is told in units of whichever is
//! more. A machine that is busy makes the experiment late, not the simulator: the row says how idle it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Bar, Bound, Options, Report};
use crate::command;

/// The shipped scenarios that say most: losses and silence, and wandering rates.
const SCENARIOS: [&str; 2] = ["flaky-wifi", "lte-drive"];

/// The experiment's arms.
const ARMS: [&str; 3] = ["none", "classic", "carry"];

/// Where recorded traces lie beside a checkout, unless `--data` says otherwise.
const FOLDER: &str = "../shared/traces";

/// How many of them are played, unless `--long` is given: the run is to end within half an hour.
const RECORDED: usize = 1;

/// Runs of each scenario, each with readers of its own.
const RUNS: u64 = 8;

/// Whose readers come in the first run; the others follow.
const FIRST_SEED: u64 = 1;

/// How far a prediction may be off, relative, and as a share of all.
const RELATIVE: f64 = 0.15;
const ABSOLUTE: f64 = 0.02;

/// What is compared, by its name in `summary.json` and for people.
const FIGURES: [(&str, &str); 2] = [("waste_ratio", "waste"), ("stall_ratio", "stall")];

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the lab makes network namespaces: run it as root");
    command::run("cargo", &["build", "--quiet", "--package", "netdiag"])?;
    let netdiag = crate::target_directory().join("debug/netdiag");
    let scratch = crate::target_directory().join("bench-prediction");
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let columns =
        vec!["scenario", "arm", "figure", "measured %", "least", "most", "predicted %", "idle %"];
    let mut report = Report { columns, ..Report::default() };
    let mut scenarios: Vec<String> = SCENARIOS.map(str::to_owned).to_vec();
    scenarios.extend(recorded(options, &scratch, &mut report)?);
    for scenario in scenarios {
        let measured = (FIRST_SEED..).take(RUNS as usize).map(|seed| {
            asked(
                Command::new(&netdiag)
                    .args(["experiment", "--scenario", &scenario, "--arms", &ARMS.join(",")])
                    .args(["--seed", &seed.to_string(), "--out"])
                    .arg(scratch.join("experiment")),
                &scratch.join("experiment/summary.json"),
            )
        });
        let measured = measured.collect::<Result<Vec<_>, _>>()?;
        let predicted = asked(
            Command::new(&netdiag)
                .args(["simulate", "--scenario", &scenario])
                .args(["--seed", &FIRST_SEED.to_string(), "--seeds", &RUNS.to_string(), "--out"])
                .arg(scratch.join("prediction.json")),
            &scratch.join("prediction.json"),
        )?;
        compare(&measured, &predicted, &mut report)?;
    }
    Ok(report)
}

/// The JSON that a command has written to `file`.
fn asked(command: &mut Command, file: &Path) -> anyhow::Result<Value> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

/// `measured`: the summary of each run.
fn compare(measured: &[Value], predicted: &Value, report: &mut Report) -> anyhow::Result<()> {
    let first = measured.first().context("no run")?;
    let scenario = first["scenario"].as_str().context("no scenario")?;
    let readers: Vec<&Value> = measured.iter().map(|run| &run["reader_seed"]).collect();
    let expected: Vec<&Value> = predicted["seeds"].as_array().into_iter().flatten().collect();
    ensure!(readers == expected, "{scenario}: readers {readers:?} were predicted as {expected:?}");
    let idle = mean(measured.iter().filter_map(|run| run["cpu"]["idle"].as_f64()));
    for name in ARMS {
        let of = |of: &Value| -> anyhow::Result<Value> {
            let mut arms = of["arms"].as_array().into_iter().flatten();
            let arm = arms.find(|arm| arm["name"] == name).cloned();
            arm.with_context(|| format!("no arm {name}"))
        };
        let runs = measured.iter().map(of).collect::<Result<Vec<_>, _>>().context("measured")?;
        let expected = of(predicted).context("predicted")?;
        for (key, figure) in FIGURES {
            let found = || runs.iter().filter_map(|run| run[key].as_f64());
            // What one of them had not or nobody predicted is no number, and meets no bar: the others' readers are not all that were
            // predicted for.
            let measured = mean(found()).filter(|_| found().count() == runs.len());
            let measured = measured.unwrap_or(f64::NAN);
            let predicted = expected[key]["mean"].as_f64().unwrap_or(f64::NAN);
            let percent = |share: f64| format!("{:.2}", 100.0 * share);
            let mut row = [scenario, name, figure].map(str::to_owned).to_vec();
            let (least, most) =
                (found().fold(measured, f64::min), found().fold(measured, f64::max));
            row.extend([measured, least, most, predicted].map(percent));
            row.push(idle.map_or_else(|| "–".to_owned(), |idle| format!("{:.0}", 100.0 * idle)));
            report.rows.push(row);
            report.bars.push(Bar {
                name: format!("{scenario}_{name}_{figure}"),
                value: error(measured, predicted),
                bound: Bound::AtMost(1.0),
                unit: "of 15 % or 2 points",
            });
        }
    }
    Ok(())
}

/// `None` without any.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// How far a prediction is off, as a part of how far it may be.
fn error(measured: f64, predicted: f64) -> f64 {
    (predicted - measured).abs() / (RELATIVE * measured).max(ABSOLUTE)
}

/// A scenario for each recorded trace: eight clients on that link.
fn recorded(options: &Options, scratch: &Path, report: &mut Report) -> anyhow::Result<Vec<String>> {
    let folder = options.data.clone().unwrap_or_else(|| crate::root().join(FOLDER));
    if options.data.is_none() && !folder.is_dir() {
        let absent = format!("traces ({} is no folder: name one with --data)", folder.display());
        report.absent.push(absent);
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "down"));
    // The longest recordings first: they have the longest silences.
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |of| of.len())));
    let count = if options.long { paths.len() } else { RECORDED };
    let mut scenarios = Vec::new();
    for path in paths.iter().take(count) {
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        let file = scratch.join(format!("{name}.toml"));
        let trace = fs::canonicalize(path)?;
        let text = format!(
            "[link]\ndelay = \"30ms\"\nqueue = \"2s\"\n\n[[phase]]\nkind = \"trace\"\nduration = \"60s\"\ntrace = {:?}\n",
            trace.to_str().context("a path that is not UTF-8")?
        );
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        scenarios.push(file.to_str().context("a path that is not UTF-8")?.to_owned());
    }
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_part_of_what_is_allowed() {
        assert!((error(0.4, 0.46) - 1.0).abs() < 1e-9, "15 % of much");
        assert!((error(0.01, 0.03) - 1.0).abs() < 1e-9, "two points of little");
        assert_eq!(error(0.0, 0.0), 0.0);
    }

    #[test]
    fn arms_are_compared_by_their_names_and_means() {
        let run = |seed: u64, stall: f64, none: Option<f64>| {
            serde_json::json!({"scenario": "s", "reader_seed": seed, "cpu": {"idle": 0.5}, "arms": [
                {"name": "classic", "waste_ratio": 0.0, "stall_ratio": stall},
                {"name": "none", "waste_ratio": 0.01, "stall_ratio": none},
                {"name": "carry", "waste_ratio": 0.01, "stall_ratio": null},
            ]})
        };
        let figures = |name, waste, stall| serde_json::json!({"name": name, "waste_ratio": {"mean": waste}, "stall_ratio": {"mean": stall}});
        let predicted = serde_json::json!({"seeds": [1, 2], "arms": [figures("none", 0.01, 0.1), figures("classic", 0.0, 0.4), figures("carry", 0.01, 0.1)]});
        let mut report = Report::default();
        let runs = [run(1, 0.2, None), run(2, 0.4, Some(0.11))];
        compare(&runs, &predicted, &mut report).expect("comparable");
        let met: Vec<bool> = report.bars.iter().map(Bar::is_met).collect();
        // One run of none had no stall ratio, and none of carry had one.
        assert_eq!(met, [true, false, true, false, true, false]);
        assert_eq!(report.bars[3].name, "s_classic_stall");
        assert_eq!(
            report.rows[3],
            ["s", "classic", "stall", "30.00", "20.00", "40.00", "40.00", "50"]
        );
        let others = [run(1, 0.2, None), run(3, 0.4, None)];
        let error = compare(&others, &predicted, &mut report).expect_err("other readers");
        assert!(error.to_string().contains("readers"), "{error}");
        let mut predicted = predicted;
        predicted["arms"][1]["stall_ratio"] = Value::Null;
        let mut report = Report::default();
        compare(&runs, &predicted, &mut report).expect("comparable");
        let missed: Vec<&str> =
            report.bars.iter().filter(|bar| !bar.is_met()).map(|bar| &*bar.name).collect();
        assert_eq!(missed, ["s_none_stall", "s_classic_stall", "s_carry_stall"]);
    }
}
