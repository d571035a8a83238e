//! Faults of `netdiag chaos` in this network namespace: those in force, and those that a killed run has left behind.

use super::Check;
use crate::chaos::{injection, lock};

const NAME: &str = "faults";

/// The check, unless `tc` cannot be asked; then the disciplines' checks say why.
pub(super) fn check() -> Option<Check> {
    let (mut in_force, mut left_behind) = (Vec::new(), Vec::new());
    for (link, qdisc) in injection::faulty().ok()? {
        let named = format!("{} on {}", qdisc.kind, link.name);
        match lock::holder(link.index) {
            Ok(None) => left_behind.push(named),
            Ok(Some(holder)) => in_force.push(format!("{named} by {holder}")),
            // Who holds it is not known, so it may be left behind.
            Err(error) => left_behind.push(format!("{named} ({error})")),
        }
    }
    Some(if !left_behind.is_empty() {
        Check::warn(
            NAME,
            format!("left by a `netdiag chaos` that was killed: {}", left_behind.join(", ")),
            "remove them with `netdiag chaos --restore` as root",
        )
    } else if !in_force.is_empty() {
        Check::ok(NAME, format!("in force: {}", in_force.join(", ")))
    } else {
        Check::ok(NAME, "none of ours is in force here")
    })
}
