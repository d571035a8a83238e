//! Checks on source files: headers, length, where `unsafe` may live, what must not be committed.

use super::{Finding, TextFile};

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 400;

/// Files that may be longer, and why.
const LONGER: [(&str, &str); 0] = [];

/// Crates that may contain `unsafe`: they talk to the kernel.
const UNSAFE: [&str; 2] = ["crates/netdiag-probe/", "crates/netdiag-tcpinfo/"];

/// Crates that read no clock and do no I/O; their clippy.toml bans it.
const PURE: [&str; 4] = ["netdiag-telemetry", "netdiag-pacer", "netdiag-iforest", "netdiag-health"];

/// What the clippy.toml of a pure crate bans at least. Clippy reads the nearest such file only, so each has all of it.
const BANNED: [&str; 4] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::fs::File",
];

/// Checks all source files.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
    let mut findings: Vec<_> = rust.flat_map(|file| check_rust(&file.path, &file.text)).collect();
    findings.extend(files.iter().flat_map(|file| leftovers(&file.path, &file.text)));
    findings.extend(PURE.iter().flat_map(|name| check_pure(name, files)));
    findings
}

fn check_pure(name: &str, files: &[TextFile]) -> Vec<Finding> {
    let (root, lints) = (format!("crates/{name}/src/lib.rs"), format!("crates/{name}/clippy.toml"));
    let file = |path: &str| files.iter().find(|file| file.path == path);
    if file(&root).is_none() {
        return Vec::new();
    }
    let Some(lints) = file(&lints) else {
        let message = "a pure crate needs a clippy.toml that bans clocks and I/O: copy another's";
        return vec![Finding::new(&lints, 1, message)];
    };
    let banned = |what: &str| lints.text.contains(&format!("path = \"{what}\""));
    let missing = BANNED.iter().filter(|what| !banned(what));
    missing.map(|what| Finding::new(&lints.path, 1, format!("must ban {what}"))).collect()
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
    // The runner counts ignored tests without a word, so what cannot run somewhere must run there and say so instead.
    let mut ignored =
        text.lines().enumerate().filter(|(_, line)| line.contains(concat!("#[ign", "ore")));
    if let Some((index, _)) = ignored.find(|(_, line)| !line.contains(" = \"a helper of ")) {
        let message = "only helpers that another test runs may be ignored (`= \"a helper of TEST\"`); \
                       a test that cannot run prints `skipped: what (why)`";
        findings.push(Finding::new(path, index + 1, message));
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
        // What the attribute does not reach: tests, examples and build scripts are crates of their own.
        let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
        findings.extend(lines.map(|(index, _)| {
            let message = "unsafe code lives in netdiag-probe and netdiag-tcpinfo only";
            Finding::new(path, index + 1, message)
        }));
    }
    findings
}

/// Whether a line has the keyword, outside a comment.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    // In parts, so that this file passes its own check.
    let keyword = concat!("uns", "afe");
    code.match_indices(keyword).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + keyword.len()..]);
        !before.ends_with(|c: char| c.is_alphanumeric() || "_\"`".contains(c))
            && [" {", "{", " fn", " impl", " extern", " trait", "("]
                .iter()
                .any(|next| after.starts_with(next))
    })
}

/// What is not finished, and what only this machine knows.
fn leftovers(path: &str, text: &str) -> Vec<Finding> {
    // What others have written stays as it is.
    if path.contains("/vendor/") {
        return Vec::new();
    }
    // Spelled in parts so that this file passes its own check.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let places = ["wo", "ro", "ho", "fa"].iter().zip(["rk", "ot", "me", "rm"]);
    let places: Vec<String> = places.map(|(start, end)| format!("/{start}{end}/")).collect();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut find = |message: String| findings.push(Finding::new(path, index + 1, message));
        if let Some(mark) = marks.iter().find(|mark| has_word(line, mark)) {
            find(format!("`{mark}`: do it, or file an issue"));
        }
        if let Some(place) = places.iter().find(|place| has_root(line, place)) {
            find(format!("`{place}` is a path of one machine"));
        }
    }
    findings
}

/// Whether the word stands in the line as a word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

/// Whether an absolute path in the line starts with this one.
fn has_root(line: &str, place: &str) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || "._-~}*".contains(c);
    line.match_indices(place).any(|(start, _)| !line[..start].ends_with(is_inside))
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
        let uses = concat!("//! Uses.\nuns", "afe { x() }\n");
        check_file("crates/netdiag-x/examples/a.rs", uses, &["netdiag-tcpinfo only"]);
        check_file("crates/netdiag-probe/src/a.rs", uses, &[]);
        check_file("crates/netdiag-x/src/a.rs", "//! No.\n// unsafe { x() }\n", &[]);
        let long = format!("//! Long.\n{}", "x\n".repeat(400));
        check_file("crates/netdiag-x/src/a.rs", &long, &["401 lines"]);
        check_file("crates/netdiag-x/src/a/tests.rs", &long, &[]);
        let tested = format!("//! Tested.\nmod tests {{\n{}", "x\n".repeat(400));
        check_file("crates/netdiag-x/src/a.rs", &tested, &[]);
        let ignored = concat!("//! Tests.\n#[ign", "ore = \"a helper of x\"]\n");
        check_file("crates/netdiag-x/tests/a.rs", ignored, &[]);
        let slow = ignored.replace("a helper of x", "slow");
        check_file("crates/netdiag-x/tests/a.rs", &slow, &["only helpers"]);
        check_file("a.py", concat!("# FIX", "ME\n"), &["do it"]);
        check_file("a.sh", "mktemp /tmp/aXXXXXX # METHODTODO\n", &[]);
        check_file("a.md", concat!("see /wo", "rk/x\n"), &["path of one machine"]);
        let elsewhere = concat!("see https://example.org/wo", "rk/x and ../wo", "rk/x\n");
        check_file("a.md", elsewhere, &[]);
    }

    #[test]
    fn pure_crates_ban_what_is_impure() {
        let check = |lints: &str, expected: &[&str]| {
            let files = [
                ("crates/netdiag-pacer/src/lib.rs", "//! Root.\n#![forbid(unsafe_code)]\n"),
                ("crates/netdiag-pacer/clippy.toml", lints),
            ]
            .map(|(path, text)| TextFile { path: path.to_owned(), text: text.to_owned() });
            let found: Vec<_> = super::check(&files).into_iter().map(|f| f.message).collect();
            assert_eq!(found, expected);
        };
        let all: String = BANNED.iter().map(|what| format!("{{ path = \"{what}\" }},\n")).collect();
        check(&all, &[]);
        check(&all.replace("sleep", "yield_now"), &["must ban std::thread::sleep"]);
    }
}
