//! `netdiag doctor` on whatever machine the tests run on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{netdiag, output, root};

#[test]
fn table_and_json_say_the_same() {
    let table = output(netdiag(["doctor"]));
    let json = output(netdiag(["doctor", "--json"]));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let works = report["works"].as_bool().expect("a verdict");
    let code = Some(if works { 0 } else { 1 });
    assert_eq!((table.status.code(), json.status.code()), (code, code));
    let table = String::from_utf8_lossy(&table.stdout);
    let checks = report["checks"].as_array().expect("checks");
    for name in [
        "kernel",
        "btf",
        "capabilities",
        "sandbox",
        "sock_diag",
        "network namespaces",
        "qdisc netem",
    ] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name}: {report:#}");
    }
    for check in checks {
        let name = check["name"].as_str().expect("a name");
        assert!(table.contains(name), "{name} is not in {table}");
        let lacks = check["status"] != "ok";
        assert_eq!(check["remedy"].is_string(), lacks, "{check:#}");
    }
}

#[test]
fn hooks_are_tried_for_real() {
    if !root("doctor::hooks_are_tried_for_real") {
        return;
    }
    let json = output(netdiag(["doctor", "--json"]));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let hooks: Vec<_> = report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["name"].as_str().is_some_and(|name| name.starts_with("hook ")))
        .collect();
    assert_eq!(hooks.len(), 3, "{report:#}");
    let all_load = hooks.iter().all(|hook| hook["status"] == "ok");
    assert_eq!(report["source"] == "ebpf", all_load, "{report:#}");
}

/// What the checks of queueing disciplines say when `unshare` does this.
fn qdiscs_where_unshare(does: &str) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().expect("folder");
    let unshare = folder.path().join("unshare");
    std::fs::write(&unshare, format!("#!/bin/sh\n{does}\n")).expect("file");
    std::fs::set_permissions(&unshare, Permissions::from_mode(0o755)).expect("file");
    let mut command = netdiag(["doctor", "--json"]);
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    let report: serde_json::Value = serde_json::from_slice(&output(command).stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks").iter();
    let of_qdiscs = checks
        .filter(|check| check["name"].as_str().is_some_and(|name| name.starts_with("qdisc ")));
    of_qdiscs.cloned().collect()
}

#[test]
fn what_was_not_tried_is_not_called_missing() {
    let check = |does: &str, detail: &str, remedy: &str| {
        let checks = qdiscs_where_unshare(does);
        assert_eq!(checks.len(), 2);
        for check in checks {
            assert_eq!(check["status"], "warn", "{check}");
            let text = |key: &str| check[key].as_str().expect("text").to_owned();
            assert!(text("detail").contains(detail), "{check}");
            assert!(text("remedy").contains(remedy), "{check}");
        }
    };
    let refused = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1";
    check(refused, "untried (unshare: unshare failed: Operation not permitted)", "run as root");
    let absent = "echo 'unshare: failed to execute tc: No such file or directory' >&2; exit 127";
    check(absent, "untried (unshare: failed to execute tc", "install iproute2");
    let unknown = "echo 'Error: Specified qdisc kind is unknown.' >&2; exit 2";
    check(unknown, "not available (Error: Specified qdisc kind is unknown.)", "modprobe sch_");
}
