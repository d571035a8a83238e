//! Dependencies: each has its reason in ARCHITECTURE.md, and is used.
//!
//! The list of the workspace is the one place where versions are, so it is the list that is checked; that nothing is
//! depended on past it is visible in `cargo metadata`.

use serde_json::Value;

use super::{Finding, TextFile};

const MANIFEST: &str = "Cargo.toml";
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Checks the list of dependencies against the text that explains them and the crates that use them.
pub(super) fn check(metadata: &Value, files: &[TextFile]) -> Vec<Finding> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| &*file.text);
    let (Some(manifest), Some(architecture)) = (text(MANIFEST), text(ARCHITECTURE)) else {
        return Vec::new(); // What is missing is another check's finding.
    };
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |package: &Value| package["dependencies"].as_array().cloned().unwrap_or_default();
    let used: Vec<Value> = packages.iter().flat_map(of).collect();
    let listed = listed(manifest);
    let mut findings = Vec::new();
    for &(line, name) in &listed {
        let mut find = |message| findings.push(Finding::new(MANIFEST, line, message));
        if !used.iter().any(|dependency| dependency["name"] == name) {
            find(format!("dependency `{name}` is used by no crate: remove it"));
        }
        if !name.starts_with("netdiag") && !architecture.contains(&format!("`{name}`")) {
            find(format!("dependency `{name}` has no reason in {ARCHITECTURE}"));
        }
    }
    for name in used.iter().filter_map(|dependency| dependency["name"].as_str()) {
        let message = format!("dependency `{name}` is missing from [workspace.dependencies]");
        let finding = Finding::new(MANIFEST, 1, message);
        if !listed.iter().any(|&(_, listed)| listed == name) && !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// The names in `[workspace.dependencies]`, with their lines.
fn listed(manifest: &str) -> Vec<(usize, &str)> {
    let section = (1..)
        .zip(manifest.lines())
        .skip_while(|&(_, line)| line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['));
    section
        .filter(|(_, line)| !line.starts_with('#'))
        .filter_map(|(number, line)| Some((number, line.split_once(" = ")?.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dependencies_are_listed_explained_and_used() {
        let check = |explained: &str, used: &[&str], expected: &[&str]| {
            let manifest = "[workspace.dependencies]\n# rand = \"1\"\nnetdiag-x = 1\nserde = \"1\"\n\n[profile]\na = 1\n";
            let files = [(MANIFEST, manifest), (ARCHITECTURE, explained)]
                .map(|(path, text)| TextFile { path: path.to_owned(), text: text.to_owned() });
            let used: Vec<_> = used.iter().map(|name| json!({"name": name})).collect();
            let metadata = json!({"packages": [{"dependencies": used}]});
            let found: Vec<_> =
                super::check(&metadata, &files).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check("- `serde`: records", &["netdiag-x", "serde"], &[]);
        check(
            "- serde",
            &["netdiag-x", "serde"],
            &["Cargo.toml:4: dependency `serde` has no reason in ARCHITECTURE.md"],
        );
        check(
            "- `serde`",
            &["serde"],
            &["Cargo.toml:3: dependency `netdiag-x` is used by no crate: remove it"],
        );
        check(
            "- `serde`",
            &["netdiag-x", "serde", "rand", "rand"],
            &["Cargo.toml:1: dependency `rand` is missing from [workspace.dependencies]"],
        );
    }
}
