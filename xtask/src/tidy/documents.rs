//! Checks on documents: those that must be there, the two READMEs in step, and the metrics' as it is written from them.
//!
//! A translation is compared by its bones, which no language changes: headings, commands, tables. That it says the same
//! between them remains for people to see to.

use super::{Finding, TextFile};
use crate::metrics;

const ENGLISH: &str = "README.md";
const CHINESE: &str = "README.zh-CN.md";

/// What a project of this kind has.
const NEEDED: [&str; 8] = [
    ENGLISH,
    CHINESE,
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

/// Checks all documents.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let text =
        |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let mut findings = Vec::new();
    for needed in NEEDED {
        if text(needed).is_none() {
            findings.push(Finding::new(needed, 1, "is missing"));
        }
    }
    if let (Some(english), Some(chinese)) = (text(ENGLISH), text(CHINESE)) {
        findings.extend(in_step(english, chinese));
    }
    if text(metrics::DOCUMENT).is_none_or(|found| !metrics::is_current(found)) {
        let message = "is not what is registered: run `cargo xtask metrics`";
        findings.push(Finding::new(metrics::DOCUMENT, 1, message));
    }
    findings
}

/// The bones of a document, which a translation shares: headings by level, commands, rows of tables.
fn bones(text: &str) -> Vec<(usize, String)> {
    let mut in_code = false;
    let mut bones = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bone = if line.starts_with("```") {
            in_code = !in_code;
            Some(line.to_owned())
        } else if in_code {
            // Comments in code are translated, commands are not.
            let command = line.split(" #").next().unwrap_or(line).trim_end();
            (!command.is_empty() && !line.starts_with('#')).then(|| command.to_owned())
        } else if line.starts_with('#') {
            let level = line.chars().take_while(|&c| c == '#').count();
            Some(format!("a heading of level {level}"))
        } else if line.starts_with('|') {
            Some("a row of a table".to_owned())
        } else {
            None
        };
        bones.extend(bone.map(|bone| (index + 1, bone)));
    }
    bones
}

fn in_step(english: &str, chinese: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (ours, theirs) = (bones(english), bones(chinese));
    let differing = ours.iter().zip(&theirs).find(|((_, ours), (_, theirs))| ours != theirs);
    if let Some(((line, ours), (other_line, theirs))) = differing {
        let message =
            format!("`{theirs}` where {ENGLISH}:{line} has `{ours}`: keep the two in step");
        findings.push(Finding::new(CHINESE, *other_line, message));
    } else if ours.len() != theirs.len() {
        let (path, rest) = if ours.len() > theirs.len() {
            (ENGLISH, &ours[theirs.len()])
        } else {
            (CHINESE, &theirs[ours.len()])
        };
        findings.push(Finding::new(
            path,
            rest.0,
            format!("`{}` has no counterpart in the other README", rest.1),
        ));
    }
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    if chinese.chars().filter(|&c| is_chinese(c)).count() < 500 {
        findings.push(Finding::new(CHINESE, 1, "is not in Chinese"));
    }
    for (path, text, other) in [(ENGLISH, english, CHINESE), (CHINESE, chinese, ENGLISH)] {
        if !text.contains(&format!("({other})")) {
            findings.push(Finding::new(path, 1, format!("does not link to {other}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translations_keep_the_bones() {
        let han = "网络".repeat(300);
        let english = "# A\n[x](README.zh-CN.md)\n## B\n```sh\nrun it # why\n```\n| a |\n";
        let check = |chinese: String, expected: Option<&str>| {
            let found: Vec<_> =
                in_step(english, &chinese).iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(expected) => assert!(found.iter().any(|f| f.contains(expected)), "{found:?}"),
            }
        };
        let good = format!("# {han}\n[x](README.md)\n## B\n```sh\nrun it # 为什么\n```\n| a |\n");
        check(good.clone(), None);
        check(good.replace("## B", "### B"), Some("heading of level 3"));
        check(good.replace("run it", "run that"), Some("`run that`"));
        check(good.replace("| a |\n", ""), Some("no counterpart"));
        check(good.replace(&han, "A"), Some("not in Chinese"));
        check(good.replace("(README.md)", "()"), Some("does not link"));
    }
}
