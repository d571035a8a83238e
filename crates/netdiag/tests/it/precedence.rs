//! Flag over environment over file over default, for every combination of the four.
//!
//! Seen from the outside through an error that names a setting's value: a window too short for the interval.

use crate::support::{complaint, netdiag, output};

/// Which value of `--interval` is in force, and where the complaint says it came from.
fn interval(flag: bool, environment: bool, file: Option<&str>) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("netdiag.toml");
    let mut command = netdiag(["agent", "--window", "0.02"]);
    if let Some(text) = file {
        std::fs::write(&path, text).expect("file");
        command.arg("--config").arg(&path);
    }
    if environment {
        command.env("NETDIAG_INTERVAL", "200");
    }
    if flag {
        command.args(["--interval", "100"]);
    }
    let output = output(command);
    assert_eq!(output.status.code(), Some(2));
    let complaint = complaint(&output);
    let (_, rest) = complaint.split_once("shorter than --interval ").expect("the complaint");
    let (named, _) = rest.split_once(';').expect("a remedy");
    named.replace(folder.path().to_str().expect("text"), "")
}

#[test]
fn the_first_that_is_present_wins() {
    let table = Some("interval = 400\n[agent]\ninterval = 300\n");
    let top = Some("[up]\ninterval = 500\n[doctor]\n");
    let both = Some("interval = 400\n");
    assert_eq!(interval(true, true, table), "100");
    assert_eq!(interval(true, false, table), "100");
    assert_eq!(interval(true, true, None), "100");
    assert_eq!(interval(true, false, None), "100");
    assert_eq!(interval(false, true, table), "200 (NETDIAG_INTERVAL)");
    assert_eq!(interval(false, true, None), "200 (NETDIAG_INTERVAL)");
    assert_eq!(interval(false, false, table), "300 (/netdiag.toml:3)");
    assert_eq!(interval(false, false, both), "400 (/netdiag.toml:1)");
    // Another command's table is not ours.
    assert_eq!(interval(false, false, top), "0.5 (the default)");
    assert_eq!(interval(false, false, None), "0.5 (the default)");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("netdiag.toml");
    std::fs::write(&path, "[agent]\nwindow = 0.1\n").expect("file");
    let mut command = netdiag(["agent"]);
    command.env("NETDIAG_CONFIG", &path);
    let told = complaint(&output(command));
    assert!(
        told.contains("netdiag.toml:2) is shorter than --interval 0.5 (the default)"),
        "{told}"
    );
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    let mut command = netdiag(["agent", "--window", "0.02"]);
    command.envs([("NETDIAG_INTERVAL", ""), ("NETDIAG_LOOPBACK", ""), ("NETDIAG_CONFIG", "")]);
    let told = complaint(&output(command));
    assert!(told.contains("--interval 0.5 (the default)"), "{told}");
}

#[test]
fn help_is_given_even_with_a_broken_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("netdiag.toml");
    std::fs::write(&path, "nonsense").expect("file");
    let mut command = netdiag(["agent", "--help"]);
    command.env("NETDIAG_CONFIG", &path);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--interval"));
}
