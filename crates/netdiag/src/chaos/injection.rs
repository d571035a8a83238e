//! A fault in force on an interface, and its end.
//!
//! Invariant: from the moment at which `tc` is first asked for a fault until it is known to be gone there is an
//! [`Injection`], which undoes it when dropped: by a return in the middle as by a panic.

use super::HANDLE;
use super::fault::{Discipline, Fault};
use super::iproute::{self, Link, RootQdisc, ToolError};
use crate::failure::chain;
use crate::terminal::say;

/// Our queueing discipline on an interface.
#[derive(Debug)]
pub(crate) struct Injection {
    link: Link,
    discipline: Discipline,
    in_force: bool,
}

/// How an interface came to have no fault of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// We removed it.
    Removed,
    /// Somebody else did.
    AlreadyGone,
    /// The interface itself is gone.
    NoInterface,
}

/// Why a fault is still there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the fault on {interface} could not be undone; remove it with `tc qdisc del dev {interface} root`"
)]
pub(crate) struct NotUndone {
    interface: String,
    source: ToolError,
}

impl Injection {
    /// Puts `fault` in force: by netem where the kernel has it, else by a token bucket if that can do it.
    pub(crate) fn start(link: Link, fault: &Fault) -> Result<Self, ToolError> {
        let mut injection = Self { link, discipline: Discipline::Netem, in_force: true };
        match injection.tell("add", fault) {
            Err(error) if error.is_unknown_discipline() && !fault.needs_netem() => {
                injection.discipline = Discipline::Tbf;
                injection.tell("add", fault)?;
            }
            result => result?,
        }
        Ok(injection)
    }

    /// Puts `fault` in force instead; packets that wait go on waiting.
    pub(crate) fn change(&self, fault: &Fault) -> Result<(), ToolError> {
        self.tell("change", fault)
    }

    /// What it is done by.
    pub(crate) fn discipline(&self) -> Discipline {
        self.discipline
    }

    /// Takes the fault away, and makes sure that it is.
    pub(crate) fn undo(mut self) -> Result<Undone, NotUndone> {
        self.in_force = false;
        undo(&self.link)
    }

    fn tell(&self, verb: &str, fault: &Fault) -> Result<(), ToolError> {
        let words = self.discipline.words(fault, self.link.mtu);
        iproute::tc_qdisc(verb, &self.link.name, HANDLE, &words)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if self.in_force
            && let Err(error) = undo(&self.link)
        {
            say(&format!("netdiag: {}", chain(&error.into())));
        }
    }
}

/// Removes our queueing discipline from an interface, if it has one.
pub(crate) fn undo(link: &Link) -> Result<Undone, NotUndone> {
    let failed = |source| NotUndone { interface: link.name.clone(), source };
    // By index: it may have another name by now, and another interface have its.
    let links = iproute::links().map_err(failed)?;
    let Some(now) = links.iter().find(|now| now.index == link.index) else {
        return Ok(Undone::NoInterface);
    };
    if !is_ours(now).map_err(failed)? {
        return Ok(Undone::AlreadyGone);
    }
    // With the handle named the kernel removes no other, should somebody have replaced it in this moment.
    let removed = iproute::tc_qdisc("del", &now.name, HANDLE, "");
    match (is_ours(now), removed) {
        (Ok(false), _) => Ok(Undone::Removed),
        (_, Err(source)) | (Err(source), _) => Err(failed(source)),
        (Ok(true), Ok(())) => Err(failed(ToolError::Ignored { command: "tc qdisc del" })),
    }
}

fn is_ours(link: &Link) -> Result<bool, ToolError> {
    let root = iproute::root_qdiscs()?.into_iter().find(|qdisc| qdisc.interface == link.name);
    Ok(root.is_some_and(|root| root.handle == HANDLE))
}

/// The interfaces of this network namespace that have a fault of ours, and what it is done by.
pub(crate) fn faulty() -> Result<Vec<(Link, RootQdisc)>, ToolError> {
    let qdiscs = iproute::root_qdiscs()?;
    let ours = |link: &Link| {
        qdiscs.iter().find(|qdisc| qdisc.interface == link.name && qdisc.handle == HANDLE).cloned()
    };
    let links = iproute::links()?.into_iter();
    Ok(links.filter_map(|link| ours(&link).map(|qdisc| (link, qdisc))).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::{Command, Stdio};

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;
    use crate::chaos::values::BitRate;

    /// Runs `task` in a network namespace of its own, where nobody is met by faults.
    fn in_namespace(task: impl FnOnce() + Send) {
        let holder = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn();
        let mut holder = holder.expect("unshare");
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        while std::fs::read_link(&path).expect("the process") == own {
            std::thread::yield_now();
        }
        let namespace = File::open(path).expect("a namespace");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("enters");
                task();
            });
        });
        holder.kill().and_then(|()| holder.wait()).expect("the process");
    }

    #[test]
    fn a_panic_undoes_the_fault() {
        if !rustix::process::geteuid().is_root() {
            let test = "chaos::injection::tests::a_panic_undoes_the_fault";
            let _ = writeln!(std::io::stderr(), "skipped: {test} (needs root)");
            return;
        }
        in_namespace(|| {
            let loopback = iproute::links().expect("interfaces").remove(0);
            let fault = Fault::CALM.limited(BitRate::kbit(1000));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let injection = Injection::start(loopback.clone(), &fault).expect("tbf");
                assert_eq!(faulty().expect("faults").len(), 1);
                injection.change(&Fault::CALM).expect("another rate");
                panic!("as intended, with {injection:?} in force");
            }));
            assert!(panicked.is_err());
            assert!(faulty().expect("faults").is_empty());
            assert_eq!(undo(&loopback).expect("nothing to do"), Undone::AlreadyGone);
            let mut gone = loopback;
            gone.index = u32::MAX;
            assert_eq!(undo(&gone).expect("nothing to do"), Undone::NoInterface);
        });
    }
}
