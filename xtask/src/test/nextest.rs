//! All tests under cargo-nextest, with what they skipped shown before the runner's summary.
//!
//! A test that cannot run here passes, and prints a line `skipped: what (why)`; the runner hides what passing tests print.
//! It keeps it in its JUnit report though (`store-success-output` in `.config/nextest.toml`), and that is where the lines
//! are taken from. Reading them from the runner's own output instead would mean telling its lines from those of tests,
//! which look however they like.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::page;
use crate::command;

/// Where the runner leaves its report, whatever the target folder: in its store, at the path that its configuration says.
const REPORT: &str = "target/nextest/default/junit.xml";

/// What tests of faults on interfaces make their interfaces with, what pages are looked at with, and the message bus.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("chromium", "chromium"),
    ("nats-server", "nats-server"),
];

pub(super) fn run() -> anyhow::Result<()> {
    command::ensure_debian(&TOOLS)?;
    page::fetch_tools()?;
    let report = crate::root().join(REPORT);
    // What is read afterwards must be this run's.
    match fs::remove_file(&report) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context(REPORT),
        _ => {}
    }
    let color = if std::io::stdout().is_terminal() { "always" } else { "never" };
    let mut child = Command::new("cargo")
        .args(["nextest", "run", "--workspace", "--color", color])
        .current_dir(crate::root())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo nextest")?;
    let closing = relay(BufReader::new(child.stderr.take().context("no stderr")?))?;
    let status = child.wait()?;
    if !command::is_root() {
        println!("skipped: tests of eBPF and emulated links (not root)");
    }
    // Without a report nothing was run: the build failed, and the runner has said so.
    for line in skipped(&fs::read_to_string(&report).unwrap_or_default()) {
        println!("{line}");
    }
    if closing
        .iter()
        .any(|line| plain(line).contains("Summary [") && !plain(line).contains(" 0 skipped"))
    {
        println!(
            "(counted as skipped below: helpers that other tests run as processes of their own)"
        );
    }
    for line in closing {
        println!("{line}");
    }
    if !status.success() {
        bail!("cargo nextest run failed ({status})");
    }
    Ok(())
}

/// Prints the runner's lines as they come, up to its summary: that and the rest are returned.
fn relay(lines: impl BufRead) -> anyhow::Result<Vec<String>> {
    let mut held: Vec<String> = Vec::new();
    let mut closing = false;
    for line in lines.lines() {
        let line = line?;
        let is_rule = line.starts_with('─');
        // The summary comes under a rule. What only looks like one is held back too, and is shown all the same.
        closing |= !held.is_empty() && plain(&line).contains("Summary [");
        if !closing {
            for line in held.drain(..) {
                println!("{line}");
            }
        }
        match closing || is_rule {
            true => held.push(line),
            false => println!("{line}"),
        }
    }
    Ok(held)
}

/// What tests said they skipped, in a JUnit report: each line once.
fn skipped(report: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in report.lines() {
        let text = line.trim_start();
        // Output begins right behind its tag, and on a machine with one core right behind the test's name.
        let text = ["<system-out>", "<system-err>"]
            .iter()
            .find_map(|tag| text.strip_prefix(tag))
            .unwrap_or(text);
        let named = text.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let text = named.map_or(text, |(_, rest)| rest);
        if text.starts_with("skipped:") {
            let text = text.split("</system-").next().unwrap_or(text);
            let text = unescape(text.trim_end());
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

fn unescape(text: &str) -> String {
    // The ampersand last, or `&amp;lt;` would be unescaped twice.
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_lines_are_found_wherever_they_begin() {
        let check = |report: &str, expected: &[&str]| assert_eq!(skipped(report), expected);
        check(
            "<system-out>\nrunning 1 test\nskipped: a &lt;b&gt; &amp;lt; (why)\n",
            &["skipped: a <b> &lt; (why)"],
        );
        check("    <system-err>skipped: b (why)\n</system-err>", &["skipped: b (why)"]);
        check("<system-err>skipped: b (why)</system-err>", &["skipped: b (why)"]);
        check("test one_core ... skipped: c (why)\nok\n", &["skipped: c (why)"]);
        check("skipped: d\ntest x ... ok\n<system-err>skipped: d\n", &["skipped: d"]);
        check("<testsuites skipped=\"0\">\nwhat was skipped: nothing\n", &[]);
    }

    #[test]
    fn the_summary_is_held_back_and_nothing_is_lost() {
        let rule = "────────────";
        let check = |lines: &[&str], expected: &[&str]| {
            assert_eq!(relay(lines.join("\n").as_bytes()).expect("lines"), expected);
        };
        check(
            &[rule, "Nextest run ID", "PASS a", rule, "  Summary [1s]", "FAIL b"],
            &[rule, "  Summary [1s]", "FAIL b"],
        );
        check(
            &[rule, "\x1b[32;1m     Summary\x1b[0m [1s] \x1b[1m8\x1b[0m tests"],
            &[rule, "\x1b[32;1m     Summary\x1b[0m [1s] \x1b[1m8\x1b[0m tests"],
        );
        check(&["error: could not compile", "Summary of it"], &[]);
        check(&[rule, rule, "PASS a", rule], &[rule]);
    }
}
