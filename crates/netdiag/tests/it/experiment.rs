//! `netdiag experiment` runs to its end, with or without root, and its figures add up.

mod endings;
mod privileges;
mod via;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::browser;
use crate::support::{complaint, netdiag, output, png_size, root, rows, skipped};

fn summary(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("summary.json")).expect("a summary");
    serde_json::from_str(&text).expect("JSON")
}

/// A scenario of three seconds: well, silent, and well again.
fn short_scenario(folder: &Path, more: &str) -> PathBuf {
    let phase = |kind| format!("[[phase]]\nkind = \"{kind}\"\nduration = \"1s\"\n");
    let phases = ["calm", "blackout", "calm"].map(phase).concat();
    let path = folder.join("short.toml");
    std::fs::write(&path, format!("[link]\ndelay = \"5ms\"\n{phases}{more}")).expect("written");
    path
}

/// The arguments for it, with results in `out`.
fn short_run(scenario: &Path, out: &Path) -> Vec<String> {
    run_of(scenario, out, "3s", "2")
}

/// The same with another duration and number of streams.
fn run_of(scenario: &Path, out: &Path, duration: &str, streams: &str) -> Vec<String> {
    let (scenario, out) = (scenario.to_str().expect("text"), out.to_str().expect("text"));
    let flags =
        [("duration", duration), ("streams", streams), ("scenario", scenario), ("out", out)];
    let flags = flags.map(|(flag, value)| format!("--{flag}={value}"));
    std::iter::once("experiment".to_owned()).chain(flags).collect()
}

#[test]
fn arms_are_compared_and_every_token_is_accounted_for() {
    if !root("experiment::arms_are_compared_and_every_token_is_accounted_for") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut command = netdiag(["experiment", "--duration", "15s", "--streams", "3", "--out"]);
    command.arg(folder.path()).args(["--arms", "none,classic"]);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let summary = summary(folder.path());
    assert_eq!(summary["format"], "netdiag-experiment/1");
    let arms = summary["arms"].as_array().expect("arms");
    let names: Vec<&str> = arms.iter().filter_map(|arm| arm["name"].as_str()).collect();
    assert_eq!(names, ["none", "classic"]);
    for arm in arms {
        let count = |name: &str| arm["tokens"][name].as_u64().expect("a count");
        assert!(count("acked") > 100, "{arm}");
        let sum = count("acked") + count("in_flight") + count("wasted");
        assert_eq!(count("generated"), sum, "{arm}");
        // The faults of this scenario are worse than what is usual.
        let rate = |name: &str| arm["rate"][name].as_f64().expect("a rate");
        assert!(rate("lowest_tps") < 0.5 * rate("mean_in_calm_tps"), "{arm}");
    }
    // Who follows the hints generates less than who does not.
    let generated = |arm: usize| arms[arm]["tokens"]["generated"].as_u64();
    assert!(generated(1) < generated(0), "{summary}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(page.contains("default-src 'none'") && !page.contains("<script"));
    for file in ["net_data.csv", "none.net_data.csv", "hints.csv", "tokens.csv"] {
        let text = std::fs::read_to_string(folder.path().join(file)).expect(file);
        assert!(text.lines().count() > 10, "{file}");
    }
    // All files end with the experiment.
    let hints = rows(&folder.path().join("hints.csv"));
    let of = |arm: &str| hints.iter().filter(|cells| cells[0] == arm).count();
    assert_eq!(rows(&folder.path().join("net_data.csv")).len(), of("classic"));
    assert_eq!(rows(&folder.path().join("none.net_data.csv")).len(), of("none"));
    // What differs is told with what it could be.
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("95 % interval of the difference"), "{told}");
    assert!(told.contains("asked for / whole / reader left / failed"), "{told}");
    assert!(summary["comparisons"].as_array().is_some_and(|all| all.len() == 3), "{summary}");
    // Phases of this length are too short for what is asked of them.
    assert!(complaint(&output).contains("shorter than the 4 s"), "{}", complaint(&output));
    assert!(page.contains("shorter than the 4\u{a0}s") && page.contains("--streams 3"));
    let timeline = std::fs::read(folder.path().join("timeline.png")).expect("a picture");
    assert_eq!(png_size(&timeline), (1600, 1000));
    if !browser::is_installed() {
        skipped("experiment: the report in a browser", "no chromium");
        return;
    }
    for width in [1280, 390] {
        let picture = folder.path().join(format!("{width}.png"));
        browser::check_page(&folder.path().join("report.html"), width, &picture);
    }
}

#[test]
fn what_cannot_be_run_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let check = |args: &[&str], told: &[&str]| {
        let mut command = netdiag(["experiment"]);
        command.args(args).arg("--out").arg(folder.path());
        let output = output(command);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        for told in told {
            assert!(complaint.contains(told), "{args:?}: no `{told}` in {complaint}");
        }
    };
    check(&["--scenario", "nowhere"], &["--scenario nowhere", "flaky-wifi"]);
    check(&["--scenario", "flaky-wfi"], &["--scenario flaky-wfi", "did you mean flaky-wifi?"]);
    check(&["--duration", "1"], &["--duration 1s: flaky-wifi cannot take", "phase"]);
    check(&["--duration", "24h"], &["--duration 86400s", "memory", "fewer --streams"]);
    check(&["--show", "flaky"], &["--show flaky: no such scenario"]);
    check(&["--duration", "soon"], &["--duration soon", "30s"]);
    check(&["--streams", "0"], &["--streams 0", "from 1 to 200"]);
    check(&["--arms", "none,none"], &["--arms none,none", "none is named twice"]);
    check(&["--arms", "fast"], &["--arms fast", "none, classic"]);
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "[[phase]]\nkind = \"sunny\"\nduration = \"5s\"\n").expect("file");
    check(&["--scenario", bad.to_str().expect("text")], &["bad.toml:2", "sunny", "known are calm"]);
    let count = |count| format!("[[group]]\nname = \"many\"\ncount = {count}\n");
    let many = short_scenario(folder.path(), &count(12));
    let many = ["--duration", "3s", "--scenario", many.to_str().expect("text")];
    check(&many, &["--streams 8 (the default)", "count 12 clients", "--streams 12 or more"]);
    short_scenario(folder.path(), &count(201));
    check(&many, &["--scenario", "count 201 clients", "200 are the most"]);
    // Nothing was made or left behind.
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);
}

#[test]
fn groups_have_the_clients_that_they_count() {
    if !root("experiment::groups_have_the_clients_that_they_count") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let groups = "[[group]]\nname = \"train\"\ncount = 9\n[[group]]\nname = \"home\"\ncount = 1\nphases = []\n";
    let scenario = short_scenario(folder.path(), groups);
    let mut command = netdiag(run_of(&scenario, folder.path(), "3s", "10"));
    command.args(["--arms", "classic"]);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let summary = summary(folder.path());
    assert_eq!(summary["groups"][0]["clients"], 9, "{summary}");
    let groups = summary["arms"][0]["groups"].as_array().expect("groups");
    let answers: Vec<_> = groups.iter().filter_map(|group| group["answers"].as_u64()).collect();
    assert!(answers[0] >= 9 && answers[1] >= 1, "{summary}");
    assert!(groups[1]["mean_tps"].as_f64() > Some(70.0), "{summary}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("home, classic") && complaint(&output).contains("1 arm, 10 streams each")
    );
}

#[test]
fn the_shipped_scenarios_are_listed() {
    let output = output(netdiag(["experiment", "--list"]));
    assert_eq!(output.status.code(), Some(0));
    let told = complaint(&output) + &String::from_utf8_lossy(&output.stdout);
    for name in ["flaky-wifi", "lte-drive", "train-tunnel", "clean-long-haul"] {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn a_shipped_scenario_is_printed_and_can_be_played() {
    let output = output(netdiag(["experiment", "--show", "flaky-wifi"]));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("[[phase]]") && text.contains("busy neighbour"), "{text}");
}
