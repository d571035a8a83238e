//! Dependencies: each has its reason in ARCHITECTURE.md, and is used.
//!
//! The list of the workspace is the one place where versions are, so it is the list that is checked; that nothing is
//! depended on past it is visible in `cargo metadata`. The fuzz targets are outside the workspace and have a list of their
//! own, which must explain itself too.

use serde_json::Value;

use super::{Finding, TextFile};
use crate::fuzz;

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
    let listed = section(manifest, "[workspace.dependencies]");
    let mut findings = Vec::new();
    for &(line, name) in &listed {
        if !used.iter().any(|dependency| dependency["name"] == name) {
            let message = format!("dependency `{name}` is used by no crate: remove it");
            findings.push(Finding::new(MANIFEST, line, message));
        }
    }
    let fuzz = text(fuzz::MANIFEST).map_or_else(Vec::new, |text| section(text, "[dependencies]"));
    for (manifest, listed) in [(MANIFEST, &listed), (fuzz::MANIFEST, &fuzz)] {
        let is_explained = |name| architecture.contains(&format!("`{name}`"));
        let unexplained =
            listed.iter().filter(|(_, name)| !name.starts_with("netdiag") && !is_explained(name));
        findings.extend(unexplained.map(|&(line, name)| {
            let message = format!("dependency `{name}` has no reason in {ARCHITECTURE}");
            Finding::new(manifest, line, message)
        }));
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

/// The names in a section of a manifest, with their lines.
fn section<'a>(manifest: &'a str, header: &str) -> Vec<(usize, &'a str)> {
    let section = (1..)
        .zip(manifest.lines())
        .skip_while(|&(_, line)| line != header)
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
            let fuzz_manifest = "[dependencies]\nnetdiag-x = 1\nserde = \"1\"\n";
            let files =
                [(MANIFEST, manifest), (fuzz::MANIFEST, fuzz_manifest), (ARCHITECTURE, explained)]
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
            &[
                "Cargo.toml:4: dependency `serde` has no reason in ARCHITECTURE.md",
                "fuzz/Cargo.toml:3: dependency `serde` has no reason in ARCHITECTURE.md",
            ],
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
