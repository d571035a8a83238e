//! `netdiag doctor` on whatever machine the tests run on.

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
    for name in ["kernel", "btf", "capabilities", "sock_diag", "network namespaces", "qdisc netem"]
    {
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
