//! `netdiag doctor`: what this machine supports, and what to do about what it lacks.
//!
//! Everything is tried for real where it can be tried without harm, because a version number or a capability says
//! little about what a hardened kernel lets one do. Invariant: nothing is left behind.

mod checks;
mod faults;
mod qdisc;

use std::fmt;

use anyhow::Context as _;
use netdiag_telemetry::Source;
use serde::Serialize;

use crate::args::values;
use crate::output;
use crate::stop::Stop;

/// Check what this machine supports, and say what to do about what it lacks
///
/// Loads each eBPF hook for a moment, asks sock_diag, looks into other network namespaces, and tries the queueing
/// disciplines that inject faults in a scratch namespace; nothing is left behind. Exit code 0 if at least one source of
/// telemetry works, 1 otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of a table.
    ///
    /// An object with `works`, `source` and `checks`; each check has `name`, `status` (`ok`, `warn` or `fail`), `detail`
    /// and `remedy`.
    #[arg(long, value_name = "BOOL", env = "NETDIAG_JSON", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", value_parser = values::truth(),
          action = clap::ArgAction::Set, hide_possible_values = true)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Nothing to do.
    Ok,
    /// Something works less well than it could.
    Warn,
    /// Something does not work.
    Fail,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    status: Status,
    detail: String,
    remedy: Option<String>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether there is a source of telemetry at all.
    works: bool,
    /// The one that `--source auto` would take.
    source: Option<Source>,
    checks: Vec<Check>,
}

/// Prints the report; an error if no source works.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // A signal must not end it in the middle: it is done in a moment, and leaves nothing behind if it ends by itself.
    let _stop = Stop::on_signals()?;
    let report = checks::all();
    let mut text = if args.json {
        serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?
    } else {
        report.to_string()
    };
    text.push('\n');
    output::print(&text)?;
    anyhow::ensure!(
        report.works,
        "no source of telemetry works here; the remedies are in the table"
    );
    Ok(())
}

/// The report as `--json` prints it.
pub(crate) fn json() -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec(&checks::all()).context("cannot write the report as JSON")
}

impl Check {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), Some(remedy.into()));
        Self { name: name.to_owned(), status: Status::Warn, detail, remedy }
    }

    fn fail(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::warn(name, detail, remedy) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in &self.checks {
            writeln!(f, "{:4}  {:width$}  {}", check.status, check.name, check.detail)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:4}  {:width$}  → {remedy}", "", "")?;
            }
        }
        match self.source {
            Some(source) => write!(f, "\ntelemetry works; --source auto would use {source}"),
            None => write!(f, "\ntelemetry does not work"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_status_detail_and_remedy() {
        let report = Report {
            works: true,
            source: Some(Source::Sockdiag),
            checks: vec![Check::ok("kernel", "6.1"), Check::warn("btf", "none", "build one")],
        };
        assert_eq!(
            report.to_string(),
            "ok    kernel  6.1\n\
             WARN  btf     none\n              → build one\n\n\
             telemetry works; --source auto would use sockdiag"
        );
    }
}
