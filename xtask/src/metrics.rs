//! `cargo xtask metrics`: writes `docs/metrics.md` from what the processes register.
//!
//! The same registrations serve `/metrics` and OTLP, so the document cannot be about other metrics than there are. Invariant: what
//! is committed is what this writes; `cargo xtask tidy` sees to it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, ensure};
use netdiag_dashboard::dashboard_metrics;
use netdiag_gateway::gateway_metrics;
use netdiag_hints::{fleet_metrics, hint_metrics};
use netdiag_metrics::{Bound, FamilyDescription, Label};

/// Where it is.
pub(crate) const DOCUMENT: &str = "docs/metrics.md";

const HEAD: &str = "\
# Metrics

Written by `cargo xtask metrics` from what the processes register; do not edit.

Each process answers `GET /metrics` where it is listed below, in the OpenMetrics text format to who asks for that, as Prometheus
does, and in Prometheus' older one to everybody else. With `--otlp` it pushes the same families to an OpenTelemetry collector
([operate.md](operate.md#opentelemetry)).

Counters have names that end in `_total`; histograms are asked for by `_bucket`, `_sum` and `_count`. Units are base units, at the
end of names. No label holds an address of a client, a path that a client made up, or anything else without a bound: the tables say
how many values each can have in one process.
";

/// Writes it, or with `check` only says whether it is as it should be.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let path = crate::root().join(DOCUMENT);
    let text = document();
    if check {
        let found = fs::read_to_string(&path).with_context(|| DOCUMENT.to_owned())?;
        ensure!(
            is_current(&found),
            "{DOCUMENT} is not what is registered: run `cargo xtask metrics`"
        );
        return Ok(());
    }
    fs::write(&path, text).with_context(|| DOCUMENT.to_owned())
}

/// Whether a text is the document.
pub(crate) fn is_current(found: &str) -> bool {
    found == document()
}

fn document() -> String {
    let (hints, exports): (Vec<_>, Vec<_>) =
        hint_metrics().into_iter().partition(|family| !is_of_export(family));
    let (bus, hints) =
        hints.into_iter().partition(|family| family.name.starts_with("netdiag_bus_"));
    let own = |families: Vec<FamilyDescription>| -> Vec<FamilyDescription> {
        families.into_iter().filter(|family| !is_of_export(family)).collect()
    };
    let gateway = own(gateway_metrics());
    let dashboard = own(dashboard_metrics());
    let fleet = own(fleet_metrics());
    let chapters: [(&str, &str, Vec<FamilyDescription>); 6] = [
        ("Hints", "`netdiag up` and `netdiag serve`, on `--listen` (9000).", hints),
        ("The message bus", "The same with `--bus`.", bus),
        (
            "Gateway",
            "`netdiag gateway`, on `--admin-listen`. What is said of a stream is counted when it ends.",
            gateway,
        ),
        (
            "Dashboard",
            "`netdiag up` and `netdiag dashboard`, on `--dashboard-listen` (8501).",
            dashboard,
        ),
        ("Fleet", "`netdiag fleet`, on `--listen` (9002).", fleet),
        ("Export", "Each of them with `--otlp`; of `up` on `--listen`.", exports),
    ];
    let mut text = HEAD.to_owned();
    for (title, place, families) in chapters {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {title}\n\n{place}\n\n");
        text.push_str(
            "| metric | type | unit | labels | says |\n| --- | --- | --- | --- | --- |\n",
        );
        for family in families {
            text.push_str(&row(&family));
        }
    }
    text
}

fn is_of_export(family: &FamilyDescription) -> bool {
    family.name.starts_with("netdiag_otlp_")
}

fn row(family: &FamilyDescription) -> String {
    let labels: Vec<String> = family.labels.iter().map(label).collect();
    format!(
        "| `{}` | {} | {} | {} | {} |\n",
        family.sample_name(),
        family.kind,
        family.unit.as_deref().unwrap_or_default().replace('_', " "),
        labels.join("; "),
        family.help,
    )
}

fn label(label: &Label) -> String {
    let bound = match label.bound {
        Bound::Most(1) => "one".to_owned(),
        Bound::Most(most) => format!("at most {most}"),
        Bound::Setting(flag) => format!("as many as `{flag}` names"),
    };
    format!("`{}`: {} ({bound})", label.name, label.values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_there_is_to_know() {
        let family =
            hint_metrics().into_iter().find(|family| family.name == "netdiag_http_requests");
        let row = row(&family.expect("registered"));
        for part in [
            "| `netdiag_http_requests_total` | counter |",
            "`path`: ",
            "at most 9",
            "| Requests answered |",
        ] {
            assert!(row.contains(part), "{part} in {row}");
        }
        assert_eq!(row.matches(" | ").count(), 4, "{row}");
    }
}
