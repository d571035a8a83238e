//! The interface that faults are meant for, and the reasons to leave it alone.

use super::iproute::{self, Link};
use super::{HANDLE, injection, login};
use crate::failure::UsageError;
use crate::terminal::say;

/// The most interfaces that are named to somebody who has misspelt one.
const MOST_NAMED: usize = 12;

/// The interface called `name`; complaints call it `named`, with its place.
pub(crate) fn find(name: &str, named: &str) -> anyhow::Result<Link> {
    let mut links = iproute::links()?;
    if let Some(index) = links.iter().position(|link| link.is(name)) {
        return Ok(links.swap_remove(index));
    }
    let mut names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    if names.len() > MOST_NAMED {
        names.truncate(MOST_NAMED);
        names.push("…");
    }
    let names = names.join(", ");
    let message =
        format!("{named}: no such interface in this network namespace; there are {names}");
    Err(UsageError::new(message).into())
}

/// Refuses an interface that answers to the caller's own login leave by.
pub(crate) fn refuse_login(link: &Link, named: &str) -> anyhow::Result<()> {
    let links = iproute::links()?;
    for login in login::logins() {
        let Some(way) = login.interface()? else { continue };
        if iproute::carriers(&way, &links).contains(link.name.as_str()) {
            return Err(UsageError::new(format!(
                "{named}: carries your own login from {} (SSH_CONNECTION), which the faults would meet, too; choose \
                 another interface, or add --force",
                login.client
            ))
            .into());
        }
    }
    Ok(())
}

/// Removes what a killed run of ours has left, and refuses what somebody else configured.
pub(crate) fn make_free(link: &Link, named: &str) -> anyhow::Result<()> {
    let root = iproute::root_qdiscs()?.into_iter().find(|root| root.interface == link.name);
    match root {
        Some(root) if root.handle == HANDLE => {
            injection::undo(link)?;
            let (name, kind) = (&link.name, root.kind);
            say(&format!("netdiag: {name}: removed what a killed run had left ({kind})"));
            Ok(())
        }
        // What the kernel puts there itself, and puts back, has no handle.
        Some(root) if root.handle != "0:" => Err(UsageError::new(format!(
            "{named}: has a queueing discipline of somebody's own ({} {}), which would not come back afterwards; \
             remove it with `tc qdisc del dev {} root`, or choose another interface",
            root.kind, root.handle, link.name
        ))
        .into()),
        _ => Ok(()),
    }
}
