//! What documents point at: links to files and headings, and paths named in passing.
//!
//! A checklist is worth as much as the paths in it, so `crates/x/src/y.rs` between backticks is checked like a link. The
//! change log tells of what once was, and only its links are checked.

use super::{Finding, TextFile};

/// Checks all documents.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    documents.flat_map(|file| check_document(file, files)).collect()
}

fn check_document(document: &TextFile, files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in prose(&document.text) {
        let mut find = |message| findings.push(Finding::new(&document.path, index + 1, message));
        for part in line.split("](").skip(1) {
            // What follows a space is a title.
            let target = part.split([')', ' ']).next().unwrap_or_default();
            if !target.contains(':') && !leads_somewhere(target, document, files) {
                find(format!("link to {target}, which does not exist"));
            }
        }
        // Between backticks is every second part.
        for path in line.split('`').skip(1).step_by(2) {
            if document.path != "CHANGELOG.md" && is_path(path, files) && !exists(path, files) {
                find(format!("names {path}, which does not exist"));
            }
        }
    }
    findings
}

fn leads_somewhere(target: &str, document: &TextFile, files: &[TextFile]) -> bool {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
    let path = match file {
        "" => document.path.clone(),
        file => resolve(&document.path, file),
    };
    exists(&path, files)
        && anchor.is_none_or(|anchor| {
            let target = files.iter().find(|file| file.path == path);
            target.is_some_and(|target| anchors(&target.text).iter().any(|found| found == anchor))
        })
}

/// Where a relative link leads, from the root.
fn resolve(document: &str, target: &str) -> String {
    let mut path: Vec<&str> = document.split('/').collect();
    path.pop();
    for step in target.split('/') {
        match step {
            "." | "" => {}
            ".." => drop(path.pop()),
            step => path.push(step),
        }
    }
    path.join("/")
}

/// Whether this is a file, or a folder with files.
fn exists(path: &str, files: &[TextFile]) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
}

/// Whether this reads as a path from the root: it starts in a folder of ours, and has no placeholder in it.
fn is_path(text: &str, files: &[TextFile]) -> bool {
    let Some((folder, rest)) = text.split_once('/') else { return false };
    let is_placeholder =
        |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
    let mut parts = rest.split(['/', '.', '-', '_']);
    !text.contains([' ', '*', '{', '<', '…'])
        && exists(folder, files)
        && !parts.any(|part| is_placeholder(part) && part != "LICENSE")
}

/// The names by which headings are linked to.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.trim())
    });
    headings
        .map(|title| {
            let kept = title.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// The lines outside code, counted from 0.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let files = [
            (path, text),
            (
                "README.md",
                "# Top\n## What is *not* met, yet\n```sh\n# no heading\n```\n## 没有 达到\n",
            ),
            ("crates/x/src/lib.rs", ""),
        ]
        .map(|(path, text)| TextFile { path: path.to_owned(), text: text.to_owned() });
        let found: Vec<_> =
            check_document(&files[0], &files).into_iter().map(|f| f.message).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn links_lead_somewhere() {
        let check = |text: &str, expected: &[&str]| check_text("docs/a.md", text, expected);
        check("[r](../README.md) [x](../crates/x \"title\") [w](https://example.org/a)", &[]);
        check("# Here\n[h](#here) [n](../README.md#what-is-not-met-yet)", &[]);
        check("[z](../README.md#没有-达到)", &[]);
        check("```\n[in code](gone.md)\n```\n", &[]);
        check(
            "[g](c.md) and [also](../b.md)",
            &["link to c.md, which does not exist", "link to ../b.md, which does not exist"],
        );
        check("[h](#there)", &["link to #there, which does not exist"]);
        check(
            "[n](../README.md#no-heading)",
            &["link to ../README.md#no-heading, which does not exist"],
        );
    }

    #[test]
    fn named_paths_exist() {
        check_text("a.md", "`crates/x/src/lib.rs`, `crates/x/`, `crates/x/src/NAME.rs`", &[]);
        check_text("a.md", "`and/or`, `GET /v1/x`, `crates/*/src`", &[]);
        check_text(
            "a.md",
            "see `crates/x/src/gone.rs`",
            &["names crates/x/src/gone.rs, which does not exist"],
        );
        check_text("CHANGELOG.md", "see `crates/x/src/gone.rs`", &[]);
    }
}
