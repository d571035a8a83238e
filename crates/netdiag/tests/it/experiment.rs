//! `netdiag experiment` runs to its end, with or without root, and its figures add up.

use std::path::Path;

use serde_json::Value;

use crate::browser;
use crate::support::{complaint, netdiag, output, png_size, root, skipped};

fn summary(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("summary.json")).expect("a summary");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn arms_are_compared_and_every_token_is_accounted_for() {
    if !root("experiment::arms_are_compared_and_every_token_is_accounted_for") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut command = netdiag(["experiment", "--duration", "15s", "--streams", "3", "--out"]);
    command.arg(folder.path());
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
    check(&["--duration", "1s"], &["cannot take", "phase"]);
    check(&["--duration", "soon"], &["--duration soon", "30s"]);
    check(&["--streams", "0"], &["--streams 0", "from 1 to 200"]);
    check(&["--arms", "none,none"], &["--arms none,none", "none is named twice"]);
    check(&["--arms", "fast"], &["--arms fast", "none, classic"]);
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "[[phase]]\nkind = \"sunny\"\nduration = \"5s\"\n").expect("file");
    check(&["--scenario", bad.to_str().expect("text")], &["bad.toml:2", "sunny", "known are calm"]);
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
