//! Checks on source files: headers, length, where `unsafe` may live, what must not be committed.

use super::{Finding, TextFile};

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 400;

/// Files that may be longer, and why. Empty so far.
const LONGER: [(&str, &str); 0] = [];

/// Crates that may contain `unsafe`: they talk to the kernel.
const UNSAFE: [&str; 2] = ["crates/netdiag-probe/", "crates/netdiag-tcpinfo/"];

/// Crates that read no clock and do no I/O; their clippy.toml bans it.
const PURE: [&str; 4] = ["netdiag-telemetry", "netdiag-pacer", "netdiag-iforest", "netdiag-health"];

/// Checks all source files.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
    let mut findings: Vec<_> = rust.flat_map(|file| check_rust(&file.path, &file.text)).collect();
    findings.extend(files.iter().flat_map(|file| leftovers(&file.path, &file.text)));
    for name in PURE {
        let root = format!("crates/{name}/src/lib.rs");
        let lints = format!("crates/{name}/clippy.toml");
        let has = |path: &str| files.iter().any(|file| file.path == path);
        if has(&root) && !has(&lints) {
            findings.push(Finding::new(
                &lints,
                1,
                "a pure crate needs a clippy.toml that bans clocks and I/O",
            ));
        }
    }
    findings
}

fn check_rust(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            path,
            1,
            "open with `//!`: what this file is, why so, and what it keeps true",
        ));
    }
    if path.ends_with("/mod.rs") {
        findings.push(Finding::new(path, 1, "name the file after its module instead of mod.rs"));
    }
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let length = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
    if length > LONGEST_FILE && !is_test && !LONGER.iter().any(|(longer, _)| *longer == path) {
        let message = format!(
            "{length} lines without tests, more than {LONGEST_FILE}: split it by what it does"
        );
        findings.push(Finding::new(path, length, message));
    }
    if !UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if is_root && !text.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding::new(path, 1, "add `#![forbid(unsafe_code)]`"));
        }
    }
    findings
}

/// What is not finished, and what only this machine knows.
fn leftovers(path: &str, text: &str) -> Vec<Finding> {
    // Spelled in parts so that this file passes its own check.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut find = |message: String| findings.push(Finding::new(path, index + 1, message));
        if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            find(format!("`{mark}`: do it, or file an issue"));
        }
        if let Some(place) = places.iter().find(|place| line.contains(**place)) {
            find(format!("`{place}` is a path of one machine"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(path: &str, text: &str, expected: &[&str]) {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        let found: Vec<_> = check(&[file]).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn what_is_found() {
        let forbid = "//! Root.\n#![forbid(unsafe_code)]\n";
        check_file("crates/netdiag-x/src/a.rs", "//! What it is.\n", &[]);
        check_file("crates/netdiag-x/src/a.rs", "use std::io;\n", &["open with `//!`"]);
        check_file("crates/netdiag-x/src/mod.rs", "//! Module.\n", &["instead of mod.rs"]);
        check_file("crates/netdiag-x/src/lib.rs", forbid, &[]);
        check_file("crates/netdiag-x/src/lib.rs", "//! Root.\n", &["forbid(unsafe_code)"]);
        check_file("crates/netdiag-probe/src/lib.rs", "//! Root.\n", &[]);
        check_file("crates/netdiag-pacer/src/lib.rs", forbid, &["needs a clippy.toml"]);
        let long = format!("//! Long.\n{}", "x\n".repeat(400));
        check_file("crates/netdiag-x/src/a.rs", &long, &["401 lines"]);
        check_file("crates/netdiag-x/src/a/tests.rs", &long, &[]);
        let tested = format!("//! Tested.\nmod tests {{\n{}", "x\n".repeat(400));
        check_file("crates/netdiag-x/src/a.rs", &tested, &[]);
        check_file("a.py", concat!("# FIX", "ME\n"), &["do it"]);
        check_file("a.md", concat!("see /wo", "rk/x\n"), &["path of one machine"]);
    }
}
