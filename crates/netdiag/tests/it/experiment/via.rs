//! `netdiag experiment --via gateway`: the same arms with a gateway before each engine.

use super::{short_run, short_scenario, summary};
use crate::support::{complaint, netdiag, output, root};

#[test]
fn arms_run_through_the_gateway_and_every_token_is_accounted_for() {
    if !root("experiment::via::arms_run_through_the_gateway_and_every_token_is_accounted_for") {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let scenario = short_scenario(folder.path(), "");
    let mut command = netdiag(short_run(&scenario, folder.path()));
    command.args(["--via", "gateway"]);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let complaint = complaint(&output);
    assert!(complaint.contains("2 arms, 2 streams each, through the gateway"), "{complaint}");
    let summary = summary(folder.path());
    assert_eq!(summary["via"], "gateway");
    let arms = summary["arms"].as_array().expect("arms");
    let names: Vec<&str> = arms.iter().filter_map(|arm| arm["name"].as_str()).collect();
    assert_eq!(names, ["none", "carry"]);
    let count = |arm: usize, name: &str| arms[arm]["tokens"][name].as_u64().expect("a count");
    for arm in [0, 1] {
        assert!(count(arm, "acked") > 50, "{summary}");
        let sum = count(arm, "acked") + count(arm, "in_flight") + count(arm, "wasted");
        assert_eq!(count(arm, "generated"), sum, "{summary}");
        assert_eq!(arms[arm]["failed"], 0, "{summary}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(page.contains("through the gateway"), "{page}");
}

#[test]
fn the_gateway_has_no_pace_by_health() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = netdiag(["experiment", "--via", "gateway", "--arms", "none,classic"]);
    command.arg("--out").arg(folder.path().join("out"));
    let output = output(command);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(
        complaint.contains("--arms none,classic: the gateway has no arm classic"),
        "{complaint}"
    );
}
