//! `cargo xtask test`: every check, in the order in which they are quick to fail, ending with the test runner.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::{bpf, command, tidy};

/// A part of the test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// rustfmt
    Fmt,
    /// clippy, warnings denied
    Clippy,
    /// `cargo xtask tidy`
    Tidy,
    /// `cargo xtask bpf --check`
    Bpf,
    /// Licences, sources and duplicates of dependencies
    Deny,
    /// Documentation tests
    Doc,
    /// Unit, property, command-line and privileged tests
    Nextest,
}

/// The release of cargo-deny that is installed where there is none.
const CARGO_DENY: &str = "0.19";

/// Runs the named steps, or all.
pub(crate) fn run(steps: &[Step]) -> anyhow::Result<()> {
    let steps = if steps.is_empty() { Step::value_variants() } else { steps };
    for &step in steps {
        let value = step.to_possible_value();
        let name = value.as_ref().map_or("step", |value| value.get_name());
        println!("── {name}");
        let start = Instant::now();
        perform(step)
            .with_context(|| format!("step {name} failed (alone: `cargo xtask test {name}`)"))?;
        eprintln!("── {name} took {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn perform(step: Step) -> anyhow::Result<()> {
    match step {
        Step::Fmt => command::run("cargo", &["fmt", "--all", "--check"]),
        Step::Clippy => command::run(
            "cargo",
            &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        ),
        Step::Tidy => tidy::run(),
        Step::Bpf => bpf::run(true),
        Step::Deny => {
            if !command::exists("cargo-deny") {
                let version = format!("cargo-deny@{CARGO_DENY}");
                command::run("cargo", &["install", "--quiet", "--locked", &version])?;
            }
            // Advisories need their database, which not every network reaches; public CI checks them.
            command::run(
                "cargo",
                &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"],
            )
        }
        Step::Doc => command::run("cargo", &["test", "--quiet", "--workspace", "--doc"]),
        Step::Nextest => nextest(),
    }
}

fn nextest() -> anyhow::Result<()> {
    if !command::exists("cargo-nextest") {
        command::run("cargo", &["install", "--quiet", "--locked", "cargo-nextest"])?;
    }
    if !command::is_root() {
        println!("skipped: privileged tests (not root; run as root for eBPF and link emulation)");
    }
    // Tests that cannot run here print a line that starts with `skipped:`. The runner shows the output of passing tests
    // too, and we let only those lines through, so that the run still ends in the runner's own summary.
    let mut child = Command::new("cargo")
        .args([
            "nextest",
            "run",
            "--workspace",
            "--success-output",
            "immediate",
            "--color",
            "never",
        ])
        .current_dir(crate::root())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo nextest")?;
    let mut in_passed_output = false;
    for line in BufReader::new(child.stderr.take().context("no stderr")?).lines() {
        let line = line?;
        let text = line.trim_start();
        if text.starts_with("skipped:") {
            println!("{text}");
            continue;
        }
        // The runner's own lines come with its column of verdicts; what a passing test printed follows `PASS`.
        let verdict = text.split_whitespace().next().unwrap_or_default();
        match verdict {
            "PASS" | "SLOW" | "LEAK" => in_passed_output = true,
            "FAIL"
            | "TIMEOUT"
            | "SIGABRT"
            | "SIGSEGV"
            | "Cancelling"
            | "TRY"
            | "────────────"
            | "Summary" => {
                in_passed_output = false;
            }
            _ if in_passed_output => continue,
            _ => {}
        }
        println!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("tests failed ({status})");
    }
    Ok(())
}
