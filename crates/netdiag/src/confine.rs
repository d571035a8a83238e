//! What a command gives up once it has begun, so that who finds a hole in it finds little behind it: capabilities, files, connections,
//! system calls.
//!
//! The kernel keeps all four by thread, and a new thread has what the one has that starts it. So each thread that is there already
//! confines itself ([`Confinement::enter`]), the main one last, and whoever is started then is confined from birth. Threads of one
//! process share their memory, so what holds is what all of them have given up; what one keeps is told in the log.
//!
//! Best effort: what a kernel does not have is told and not an error. Invariant: nothing is given up before everything is open that
//! needs it (the probe, listeners, keys, files).

mod calls;
mod capabilities;
mod files;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::thread::CapabilitySet;

use crate::args::SandboxArgs;

/// What a command needs when it has begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Files that it reads, which need not be there yet.
    pub(crate) reads: Vec<PathBuf>,
    /// Files that it writes, and renames within their folders.
    pub(crate) writes: Vec<PathBuf>,
    /// It connects to others, whose names it may have to look up.
    pub(crate) connects: bool,
}

/// What one thread needs beyond that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exceptions {
    /// Capabilities that it keeps, of those that it has.
    pub(crate) capabilities: CapabilitySet,
    /// It looks into other network namespaces. Landlock has no exception for those: with it no other process' namespaces are seen.
    pub(crate) namespaces: bool,
    /// It reads the probe's maps.
    pub(crate) bpf: bool,
    /// It writes the files, which may be another user's.
    pub(crate) writes: bool,
}

impl Exceptions {
    /// No more than all threads.
    pub(crate) const NONE: Self =
        Self { capabilities: CapabilitySet::empty(), namespaces: false, bpf: false, writes: false };

    /// Writing the files.
    pub(crate) const WRITING: Self = Self { writes: true, ..Self::NONE };
}

/// What threads of a command confine themselves to. All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Confinement(Option<Arc<Needs>>);

/// What is in force on a thread.
#[derive(Debug)]
pub(crate) struct Confined {
    capabilities: capabilities::Left,
    files: Option<files::InForce>,
    calls: Option<calls::Refused>,
}

impl Confinement {
    /// For a command with such needs, unless it is not wished for.
    pub(crate) fn new(args: SandboxArgs, needs: Needs) -> Self {
        Self((!args.no_sandbox).then(|| Arc::new(needs)))
    }

    /// Nothing is given up.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether anything is given up.
    pub(crate) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// Confines this thread, and those that it starts from now on; what is in force then.
    pub(crate) fn enter(&self, exceptions: Exceptions) -> Option<Confined> {
        let needs = self.0.as_deref()?;
        let Exceptions { capabilities, namespaces, writes, .. } = exceptions;
        // Folders are found with the capabilities that there are now.
        let files = if namespaces { None } else { Some(files::prepare(needs)) };
        let mut keep = capabilities | files::to_read(needs);
        if writes {
            keep |= files::to_write(needs);
        }
        let capabilities = capabilities::drop_all_but(keep);
        let files = files.and_then(files::Prepared::enforce);
        let calls = calls::refuse(exceptions, needs.connects);
        Some(Confined { capabilities, files, calls })
    }

    /// Confines the main thread, and tells what is in force. `beside` is the thread that has the probe, which may keep more.
    pub(crate) fn enter_and_tell(&self, beside: Option<&Confined>) {
        // The thread that writes has what this one has, until this one gives it up.
        let writing = self.0.as_deref().map_or(CapabilitySet::empty(), files::to_write);
        let writing = writing & capabilities::held();
        let Some(here) = self.enter(Exceptions::NONE) else { return };
        let mut told = here.to_string();
        if !writing.is_empty() {
            told += &format!("; the thread that writes keeps {}", capabilities::names(writing));
        }
        if let Some(probe) = beside.filter(|probe| !probe.capabilities.is_none()) {
            told = format!("{told}; the probe's thread keeps {}", probe.capabilities);
            if probe.files.is_none() {
                told += " and files, to look into other network namespaces";
            }
        }
        tracing::info!("confined: {told}");
    }
}

/// Confines this thread to computing. For those that are started before the others are confined, or beside somebody who keeps something.
pub(crate) fn to_computing() {
    let nothing = Confinement(Some(Arc::default()));
    nothing.enter(Exceptions::NONE);
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.capabilities)?;
        match &self.files {
            Some(files) => write!(f, "; {files}")?,
            None => f.write_str("; files as its user may (this kernel has no Landlock)")?,
        }
        match self.calls {
            Some(refused) => write!(f, "; {refused}"),
            None => f.write_str("; no system call refused (no seccomp filter here)"),
        }
    }
}

/// What of all this the kernel has: whether Landlock, and whether filters of system calls. Tried on a thread that ends.
pub(crate) fn supported() -> (bool, bool) {
    let tried = std::thread::spawn(|| {
        let nothing = Confinement(Some(Arc::default()));
        nothing.enter(Exceptions::NONE).map(|made| (made.files.is_some(), made.calls.is_some()))
    });
    tried.join().ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests;
