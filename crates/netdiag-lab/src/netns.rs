//! Network namespaces without names.
//!
//! A namespace with a name in `/run/netns` outlives a killed owner and has to be found and removed by somebody. One that
//! is only held open by a file is gone with the last process that uses it, whatever ended that process, so there is
//! nothing to find. It still has a path, through the owner's open file, that `setns` and `nsenter` take.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, held open.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// That of the calling thread.
    pub(crate) fn current() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        let inode = file.metadata()?.ino();
        Ok(Self { file, path, inode })
    }

    /// A new one, with nothing in it but a loopback interface that is down.
    pub(crate) fn create() -> io::Result<Self> {
        // On a thread of its own: the caller stays where it is.
        on_thread(|| {
            new_here()?;
            Self::current()
        })
    }

    /// Runs `task` on a thread inside the namespace and waits for it.
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(task())
        })
    }

    /// A path to it, for as long as this process keeps it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the kernel, and so eBPF, knows it by.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }
}

/// Puts the calling thread into a new one.
pub(crate) fn new_here() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

fn on_thread<T: Send>(task: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(task).join() {
        Ok(result) => result,
        // The task's panic is the caller's.
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
