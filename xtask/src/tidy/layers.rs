//! The layers of ARCHITECTURE.md: a crate depends on lower layers only, never sideways.

use serde_json::Value;

use super::Finding;

/// Each layer's crates, the lowest first.
const LAYERS: [&[&str]; 4] = [
    &["netdiag-telemetry", "netdiag-iforest"],
    &["netdiag-health", "netdiag-pacer", "netdiag-tcpinfo"],
    &["netdiag-probe", "netdiag-hints", "netdiag-gateway", "netdiag-lab", "netdiag-dashboard"],
    &["netdiag"],
];

/// Crates outside the layers, on which nothing depends.
const OUTSIDE: [&str; 1] = ["xtask"];

/// What any crate may use in its tests: links whose truth is known.
const FOR_TESTS: [&str; 1] = ["netdiag-lab"];

/// Checks the dependencies in the output of `cargo metadata`.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let place = package["manifest_path"].as_str().unwrap_or_default();
        let place = place
            .rsplit_once("/crates/")
            .map_or("Cargo.toml".to_owned(), |(_, rest)| format!("crates/{rest}"));
        if OUTSIDE.contains(&name) {
            continue;
        }
        let Some(layer) = layer_of(name) else {
            let message =
                format!("crate {name} has no layer: add it to LAYERS in xtask/src/tidy/layers.rs");
            findings.push(Finding::new(&place, 1, message));
            continue;
        };
        let dependencies =
            package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        for dependency in dependencies {
            let used = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"].as_str() == Some("dev");
            let Some(below) = layer_of(used) else { continue };
            if below >= layer && !(in_tests && FOR_TESTS.contains(&used)) {
                let message = format!(
                    "{name} (layer {layer}) must not depend on {used} (layer {below}): \
                     move what they share below both, or join them in the binary"
                );
                findings.push(Finding::new(&place, 1, message));
            }
        }
    }
    findings
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_dependency(name: &str, used: &str, kind: Option<&str>, expected: usize) {
        let metadata = json!({"packages": [{
            "name": name,
            "manifest_path": format!("/somewhere/crates/{name}/Cargo.toml"),
            "dependencies": [{"name": used, "kind": kind}, {"name": "serde", "kind": null}],
        }]});
        assert_eq!(check(&metadata).len(), expected, "{name} → {used}");
    }

    #[test]
    fn dependencies_go_down() {
        check_dependency("netdiag-pacer", "netdiag-telemetry", None, 0);
        check_dependency("netdiag", "netdiag-probe", None, 0);
        check_dependency("netdiag-telemetry", "netdiag-pacer", None, 1);
        check_dependency("netdiag-hints", "netdiag-probe", None, 1);
        check_dependency("netdiag-probe", "netdiag-lab", None, 1);
        check_dependency("netdiag-probe", "netdiag-lab", Some("dev"), 0);
        check_dependency("netdiag-new", "netdiag-telemetry", None, 1);
        check_dependency("xtask", "netdiag", None, 0);
    }
}
