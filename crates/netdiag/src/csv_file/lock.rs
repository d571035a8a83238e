//! One writer per file: an advisory lock (`flock`) held as long as the file is open, so that not even SIGKILL leaves one
//! behind.
//!
//! Invariant: whoever has the lock has it on the file that the path names, not on one that was renamed over.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::UsageError;

/// How long to wait for a lock that is taken. A writer that is just ending, or a child process of its that has not yet
/// become another program, holds it for a moment; a restart must not fail on that.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to ask meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Opens or creates the file for reading and appending, and locks it.
pub(super) fn open_alone(path: &Path) -> Result<File, UsageError> {
    let started = Instant::now();
    loop {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = opened.map_err(|error| cannot_open(path, error))?;
        match lock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => {
                // Opened anew, because its writer may rename another file over it meanwhile.
                std::thread::sleep(ASK_AGAIN);
                continue;
            }
            Err(Errno::WOULDBLOCK) => return Err(taken(path, &file)),
            // Some network file systems have no locks. A file that cannot be protected can still be written.
            Err(error) => tracing::warn!(
                "{}: cannot be locked ({error}); make sure that nothing else writes to it",
                path.display()
            ),
        }
        // Between opening and locking, its writer may have put another file in its place. Some file systems never give two
        // looks at a file the same number.
        if names(path, &file) || started.elapsed() > PATIENCE {
            return Ok(file);
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

fn cannot_open(path: &Path, error: io::Error) -> UsageError {
    let named = path.display();
    // A file that is not there is made, so what lacks is a folder on the way to it.
    if error.kind() == io::ErrorKind::NotFound
        && let Some(folder) = path.parent()
        && folder != Path::new("")
        && !folder.exists()
    {
        let folder = folder.display();
        return UsageError::new(format!(
            "--csv {named}: the folder {folder} does not exist; make it, or choose another file"
        ));
    }
    let message =
        format!("--csv {named}: cannot be opened for writing; choose a file that you may write");
    UsageError::because(message, error)
}

/// Locks a file without waiting.
pub(super) fn lock(file: &File) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, FlockOperation::NonBlockingLockExclusive))
}

/// Whether `path` is the name of `file`.
pub(super) fn names(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(file)) => (named.dev(), named.ino()) == (file.dev(), file.ino()),
        _ => false,
    }
}

fn taken(path: &Path, file: &File) -> UsageError {
    let holder = holder(file).map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let path = path.display();
    UsageError::new(format!(
        "--csv {path}: another netdiag{holder} writes to it; end that one or choose another file"
    ))
}

/// The process that holds the lock, if the kernel's list of locks shows it.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4242 fd:01:131090 0 EOF`: kind, …, process, device and inode.
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(1) == Some(&"FLOCK")
            && fields.get(5)?.rsplit(':').next() == Some(inode.as_str());
        is_it.then(|| fields.get(4)?.parse().ok()).flatten()
    });
    // 0 stands for a process that cannot be seen from here.
    pid.filter(|&pid| pid > 0)
}
