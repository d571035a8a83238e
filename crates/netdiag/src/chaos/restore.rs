//! Removing what runs have left behind, without knowing anything of them.

use super::iproute::Link;
use super::{injection, lock, privilege};
use crate::terminal::say;

/// Removes our faults from all interfaces of this network namespace, or from `only` that one, and tells of each.
pub(crate) fn remove_all(only: Option<&Link>) -> anyhow::Result<()> {
    let mut faulty = injection::faulty()?;
    faulty.retain(|(link, _)| only.is_none_or(|only| only.index == link.index));
    if faulty.is_empty() {
        let place = only.map_or("any interface of this network namespace", |link| &link.name);
        say(&format!("netdiag: nothing to restore: no fault of ours on {place}"));
        return Ok(());
    }
    privilege::share_with_tools()?;
    let (mut removed, mut failure) = (Vec::new(), None);
    for (link, qdisc) in faulty {
        let whose = match lock::holder(link.index) {
            Ok(Some(holder)) => format!("of {holder}, which still runs"),
            _ => "left by a run that was killed".to_owned(),
        };
        match injection::undo(&link) {
            Ok(_) => {
                removed.push(format!("netdiag: {}: removed {} {whose}", link.name, qdisc.kind))
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // Afterwards: a terminal that takes no text keeps no interface from being restored.
    for line in removed {
        say(&line);
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}
