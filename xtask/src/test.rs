//! `cargo xtask test`: every check, in the order in which they are quick to fail, ending with the test runner.
//!
//! Each step is a command that also runs alone, so that what failed can be repeated without the rest. Invariant: nothing
//! is left out in silence (what cannot run here prints a line that starts with `skipped:`), and the last line of a run that
//! passes is the test runner's own summary.

mod documents;
mod nextest;
mod packaging;
mod page;

use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;

pub(crate) use page::fetch_tools as fetch_page_tools;

use crate::{bpf, command, fuzz, tidy};

/// A part of the test run; in a full run they come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// rustfmt
    Fmt,
    /// `cargo xtask tidy`
    Tidy,
    /// `cargo xtask bpf --check`
    Bpf,
    /// clippy, warnings denied
    Clippy,
    /// Licences, sources and banned crates among the dependencies
    Deny,
    /// That the fuzz targets compile and pass their seeds; `cargo xtask fuzz` goes on from there
    Fuzz,
    /// What the dashboard's page computes, under `node --test`; fetches what its browser tests need
    Page,
    /// Units, rules, images and the chart, each by its own tool
    Packaging,
    /// The commands in documents for operators, run as they stand
    Documents,
    /// Documentation tests
    Doc,
    /// Unit, property, command-line and privileged tests
    Nextest,
}

/// What is installed where there is none: the newest releases of the series that was current when this was written, so that
/// a new series cannot break a checkout that did not change.
const CARGO_DENY: &str = "^0.19";
const CARGO_NEXTEST: &str = "^0.9";

/// Runs the named steps, or all.
pub(crate) fn run(steps: &[Step]) -> anyhow::Result<()> {
    let steps = if steps.is_empty() { Step::value_variants() } else { steps };
    for (index, &step) in steps.iter().enumerate() {
        let value = step.to_possible_value();
        let name = value.as_ref().map_or("step", |value| value.get_name());
        println!("── {name}");
        let start = Instant::now();
        perform(step)
            .with_context(|| format!("step {name} failed (alone: `cargo xtask test {name}`)"))?;
        // The last word belongs to the last step.
        if index + 1 < steps.len() {
            println!("── {name} passed in {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

fn perform(step: Step) -> anyhow::Result<()> {
    match step {
        Step::Fmt => {
            command::run("cargo", &["fmt", "--all", "--check"])?;
            command::run("cargo", &["fmt", "--check", "--manifest-path", fuzz::MANIFEST])
        }
        Step::Tidy => tidy::run(),
        Step::Bpf => bpf::run(true),
        Step::Clippy => {
            clippy(&["--workspace"])?;
            clippy(&[fuzz::WITHOUT_LIBFUZZER, "--manifest-path", fuzz::MANIFEST])
        }
        Step::Deny => {
            command::ensure_cargo_tool("deny", CARGO_DENY)?;
            for manifest in ["Cargo.toml", fuzz::MANIFEST] {
                deny(manifest)?;
            }
            Ok(())
        }
        Step::Fuzz => fuzz::check(),
        Step::Page => page::run(),
        Step::Packaging => packaging::run(),
        Step::Documents => documents::run(),
        Step::Doc => command::run("cargo", &["test", "--quiet", "--workspace", "--doc"]),
        Step::Nextest => {
            command::ensure_cargo_tool("nextest", CARGO_NEXTEST)?;
            nextest::run()
        }
    }
}

fn clippy(what: &[&str]) -> anyhow::Result<()> {
    let arguments = [&["clippy", "--quiet", "--all-targets"], what, &["--", "--deny", "warnings"]];
    command::run("cargo", &arguments.concat())
}

/// Advisories need their database, which not every network reaches; public CI checks them.
fn deny(manifest: &str) -> anyhow::Result<()> {
    let place = ["deny", "--log-level", "error", "--manifest-path", manifest];
    let checks = ["check", "--config", "deny.toml", "bans", "licenses", "sources"];
    command::run("cargo", &[&place[..], &checks].concat())
}
