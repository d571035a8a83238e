//! `netdiag simulate` compares policies, gives the same bytes for the same settings, and ends on a signal.

use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::support::{Running, complaint, netdiag, output, png_size};

/// A small comparison that writes into `folder`.
fn small(folder: &Path) -> Command {
    let mut command =
        netdiag(["simulate", "--policies", "none,carry", "--loads", "1.2", "--seeds", "2"]);
    command.arg("--out").arg(folder.join("simulation.json"));
    command.arg("--plot").arg(folder.join("simulation.png"));
    command
}

fn succeeded(command: Command) -> Output {
    let output = output(command);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    output
}

#[test]
fn policies_are_compared_and_twice_the_same_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = || std::fs::read(folder.path().join("simulation.json")).expect("figures");
    let printed = succeeded(small(folder.path())).stdout;
    let first = json();
    let report: serde_json::Value = serde_json::from_slice(&first).expect("JSON");
    let rows = report["cells"][0]["rows"].as_array().expect("rows");
    let waste = |row: &serde_json::Value| row["waste_ratio"]["mean"].as_f64().expect("a number");
    assert_eq!((&rows[0]["policy"], &rows[1]["policy"]), (&"none".into(), &"carry".into()));
    assert!(waste(&rows[1]) < 0.1 * waste(&rows[0]), "{rows:?}");
    let png = std::fs::read(folder.path().join("simulation.png")).expect("a picture");
    assert_eq!(png_size(&png), (1600, 1000));
    assert_eq!(succeeded(small(folder.path())).stdout, printed);
    assert_eq!(json(), first);
}

#[test]
fn recorded_links_are_taken_from_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let traces = folder.path().join("traces");
    std::fs::create_dir(&traces).expect("a folder");
    // 1.2 Mbit/s, silent for a second out of five.
    let lines: Vec<String> = (0..4000).step_by(10).chain([5000]).map(|ms| ms.to_string()).collect();
    std::fs::write(traces.join("a.down"), lines.join("\n")).expect("a trace");
    let mut command = small(folder.path());
    command.arg("--traces").arg(&traces);
    succeeded(command);
    for (text, told) in [(Some("5\n4\n"), "line 2: 4 ms comes after 5 ms"), (None, "has no files")]
    {
        match text {
            Some(text) => std::fs::write(traces.join("a.down"), text).expect("a file"),
            None => std::fs::remove_file(traces.join("a.down")).expect("removed"),
        }
        let mut command = small(folder.path());
        command.arg("--traces").arg(&traces);
        let output = output(command);
        assert_eq!(output.status.code(), Some(2));
        assert!(complaint(&output).contains(told), "{}", complaint(&output));
    }
}

#[test]
fn a_signal_ends_it_with_nothing_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = netdiag(["simulate", "--preset", "paper"]);
    command.current_dir(folder.path());
    let mut running = Running::start(command);
    running.line_with("simulating");
    let (status, _) = running.end_by(Signal::INT);
    assert_eq!(status.code(), Some(1));
    assert_eq!(folder.path().read_dir().expect("the folder").count(), 0);
}

#[test]
fn an_experiment_is_predicted_and_twice_the_same_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("prediction.json");
    let predict = || {
        let mut command = netdiag(["simulate", "--scenario", "flaky-wifi", "--seeds", "2"]);
        command.args(["--streams", "4", "--duration", "30"]).arg("--out").arg(&out);
        command.arg("--plot").arg(folder.path().join("none.png"));
        let printed = succeeded(command).stdout;
        (printed, std::fs::read(&out).expect("figures"))
    };
    let (printed, json) = predict();
    let figures: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let arms = figures["arms"].as_array().expect("arms");
    let names: Vec<_> = arms.iter().filter_map(|arm| arm["name"].as_str()).collect();
    assert_eq!((names, &figures["streams"]), (vec!["none", "classic", "carry"], &4.into()));
    // That of the machine, whichever it is.
    assert!(figures["congestion_control"].is_string(), "{figures}");
    let stalls = arms[0]["stall_ratio"]["mean"].as_f64().expect("a number");
    assert!((0.01..0.9).contains(&stalls), "{figures}");
    assert_eq!(predict(), (printed, json));
    assert!(!folder.path().join("none.png").exists());
    let command = netdiag(["simulate", "--scenario", "nowhere", "--loads", "1"]);
    assert_eq!(output(command).status.code(), Some(2));
}
