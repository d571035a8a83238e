//! However an experiment ends, what there is of it is there: after a signal, without room on a disk, with nobody to read.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::{run_of, short_run, short_scenario, summary};
use crate::support::{Running, complaint, netdiag, output, root, until};

#[test]
fn results_are_there_whoever_reads_what_is_told() {
    if !root("experiment::endings::results_are_there_whoever_reads_what_is_told") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let scenario = short_scenario(folder.path(), "");
    // Of an earlier run, whose last arm was another.
    std::fs::create_dir(&out).expect("made");
    std::fs::write(out.join("carry.net_data.csv"), "old").expect("written");
    let mut command = netdiag(short_run(&scenario, &out));
    let full = File::options().write(true).open("/dev/full").expect("there");
    command.stdout(full);
    let output = command.stderr(std::process::Stdio::piped()).output().expect("runs");
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cannot write to stdout"), "{complaint}");
    for file in ["summary.json", "net_data.csv", "none.net_data.csv", "report.html"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert!(!out.join("carry.net_data.csv").exists());
    // A scenario without a description has no colon before nothing, and each phase its own figures.
    assert!(complaint.contains("netdiag: short (3 arms, 2 streams each"), "{complaint}");
    assert!(complaint.contains("1 s end of calm │ none"), "{complaint}");
    assert!(complaint.contains("2 s end of blackout │ none"), "{complaint}");
}

#[test]
fn figures_are_told_where_the_disk_is_full_and_old_files_stay() {
    if !root("experiment::endings::figures_are_told_where_the_disk_is_full_and_old_files_stay") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("made");
    let run = short_run(&short_scenario(folder.path(), ""), &out);
    // In a mount namespace of its own, so that nothing is left to unmount.
    let script = "mount -t tmpfs -o size=32k none \"$1\" && echo old > \"$1/report.html\" && shift && \"$@\"; code=$?; \
                  ls -A \"$OUT\"; cat \"$OUT/report.html\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&out);
    command.arg(env!("CARGO_BIN_EXE_netdiag")).args(run).env("OUT", &out);
    let output = output(command);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cannot write") && complaint.contains("No space"), "{complaint}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("Tokens generated"), "{told}");
    assert!(told.ends_with("report.html\nold\n"), "{told}");
    assert!(!told.contains("summary.json"), "{told}");
}

#[test]
fn folders_that_cannot_be_written_are_refused_before_the_run() {
    if !root("experiment::endings::folders_that_cannot_be_written_are_refused_before_the_run") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    for bad in [file.as_path(), Path::new("/dev/null/x"), Path::new("/proc")] {
        let mut command = netdiag(["experiment", "--out"]);
        let output = output({
            command.arg(bad);
            command
        });
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(&format!("--out {}", bad.display())), "{complaint}");
        assert!(!complaint.contains(".netdiag-"), "{complaint}");
    }
}

#[test]
fn a_signal_ends_it_with_a_report_of_the_time_there_was() {
    if !root("experiment::endings::a_signal_ends_it_with_a_report_of_the_time_there_was") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let scenario = short_scenario(folder.path(), "");
    let command = netdiag(run_of(&scenario, &out, "60s", "2"));
    let mut running = Running::start(command);
    running.line_with("end of calm");
    let (status, told) = running.end_by(Signal::INT);
    assert_eq!(status.code(), Some(0), "{told:#?}");
    let summary = summary(&out);
    assert_eq!((&summary["cut_short"], &summary["planned_seconds"]), (&true.into(), &60.0.into()));
    assert!(summary["seconds"].as_f64() < Some(30.0), "{summary}");
    let count = |name: &str| summary["arms"][0]["tokens"][name].as_u64().expect("a count");
    assert!(count("generated") > 10, "{summary}");
    assert_eq!(count("generated"), count("acked") + count("in_flight") + count("wasted"));
    let page = std::fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(page.contains("cut short by a signal"), "{page}");
    // That clients told nothing is not that they asked for nothing.
    assert!(!page.contains("0 / 0 / 0 / 0"), "{page}");
}

#[test]
fn a_signal_is_heard_while_links_are_set_up() {
    if !root("experiment::endings::a_signal_is_heard_while_links_are_set_up") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let scenario = short_scenario(folder.path(), "");
    let mut command = netdiag(run_of(&scenario, &out, "3s", "200"));
    command.args(["--serve-dashboard", "--dashboard-listen", "127.0.0.1:0"]);
    let mut running = Running::start(command);
    running.line_with("dashboard on");
    let (status, told) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(1), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("nothing was written")), "{told:#?}");
    until("the folder is gone", || (!out.exists()).then_some(()));
}

#[test]
fn more_streams_than_files_may_be_open_are_refused() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=256:256", env!("CARGO_BIN_EXE_netdiag"), "experiment"]);
    let output = output({
        command.args(["--streams", "200"]);
        command
    });
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("--streams 200") && complaint.contains("ulimit -n"), "{complaint}");
}
