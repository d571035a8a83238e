//! The layers of ARCHITECTURE.md: a crate depends on lower layers only, never sideways.
//!
//! Declared once, here, and compared with what `cargo metadata` says rather than with the text of manifests, so that
//! renamed, optional and target-specific dependencies count too.

use serde_json::Value;

use super::Finding;

/// Each layer's crates, the lowest first.
const LAYERS: [&[&str]; 5] = [
    &["netdiag-telemetry", "netdiag-iforest"],
    &["netdiag-health", "netdiag-http", "netdiag-metrics", "netdiag-pacer", "netdiag-tcpinfo"],
    &["netdiag-embed", "netdiag-otlp"],
    &["netdiag-probe", "netdiag-hints", "netdiag-gateway", "netdiag-lab", "netdiag-dashboard"],
    &["netdiag"],
];

/// Crates outside the layers: they may use anything, and nothing may use them.
const OUTSIDE: [&str; 1] = ["xtask"];

/// What tests may use from beside their crate: links whose truth is known.
const FOR_TESTS: &str = "netdiag-lab";

/// From which layer on. Below it crates are pure or see one socket, and their tests need no link.
const TESTS_WITH_LINKS: usize = 3;

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
            if OUTSIDE.contains(&used) {
                let message = format!("{name} must not depend on {used}, which is for developers");
                findings.push(Finding::new(&place, 1, message));
            }
            let Some(below) = layer_of(used) else { continue };
            let tests_a_link = in_tests && used == FOR_TESTS && layer >= TESTS_WITH_LINKS;
            if below >= layer && !tests_a_link {
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
        check_dependency("netdiag-lab", "netdiag-embed", None, 0);
        check_dependency("netdiag-embed", "netdiag-tcpinfo", None, 0);
        check_dependency("netdiag-embed", "netdiag-lab", Some("dev"), 1);
        check_dependency("netdiag-telemetry", "netdiag-pacer", None, 1);
        check_dependency("netdiag-hints", "netdiag-probe", None, 1);
        check_dependency("netdiag-probe", "netdiag-lab", None, 1);
        check_dependency("netdiag-probe", "netdiag-lab", Some("dev"), 0);
        check_dependency("netdiag-pacer", "netdiag-lab", Some("dev"), 1);
        check_dependency("netdiag-pacer", "netdiag-tcpinfo", None, 1);
        check_dependency("netdiag-pacer", "netdiag-telemetry", Some("build"), 0);
        check_dependency("netdiag-pacer", "netdiag-hints", Some("build"), 1);
        check_dependency("netdiag", "xtask", None, 1);
        check_dependency("netdiag-new", "netdiag-telemetry", None, 1);
        check_dependency("xtask", "netdiag", None, 0);
    }
}
