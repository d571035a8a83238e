//! What a killed process left behind, found by the record every lab keeps of itself.
//!
//! A record is a file named after the owner's process id and start time (ids are used again, the pair is not) and holds
//! the labs' identifiers. It is written before anything is made, with the time; a record without an identifier belongs
//! to a process that died while making its namespaces, which are those made since then that nobody else claims.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::mount::{UnmountFlags, unmount};

/// Where records are kept: gone after a reboot, like the namespaces.
const RECORDS: &str = "/run/netdiag-lab";
/// Where the `ip netns` convention, which rattan-core follows, puts names.
const NAMESPACES: &str = "/run/netns";
/// How rattan-core names a lab's namespaces, before the lab's identifier.
const PREFIXES: [&str; 3] = ["ns-left-", "ns-rattan-", "ns-right-"];

/// A lab's record. Dropping it says that the lab is gone.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    /// Announces a lab that is about to be made.
    pub(crate) fn announce() -> io::Result<Self> {
        fs::create_dir_all(RECORDS)?;
        let owner = std::process::id();
        let start = start_time(owner).unwrap_or_default();
        for number in 0.. {
            let path = Path::new(RECORDS).join(format!("{owner}-{start}-{number}"));
            match fs::File::create_new(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("too many labs"))
    }

    /// Adds the lab's identifier, once it has one.
    pub(crate) fn name(&self, identifier: &str) -> io::Result<()> {
        fs::write(&self.0, identifier)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A record that stays is removed by the next lab, when this process is gone.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what dead owners left. Returns the namespaces removed.
pub(crate) fn remove() -> io::Result<Vec<String>> {
    let mut claimed = HashSet::new();
    let mut orphaned = HashSet::new();
    let mut unnamed: Option<SystemTime> = None;
    let mut dead = Vec::new();
    for entry in fs::read_dir(RECORDS).into_iter().flatten().flatten() {
        let path = entry.path();
        let identifier = fs::read_to_string(&path).unwrap_or_default();
        if is_alive(&path) {
            if identifier.is_empty() {
                // Being made at this moment: whose the unclaimed namespaces are cannot be told.
                return Ok(Vec::new());
            }
            claimed.insert(identifier);
        } else {
            if identifier.is_empty() {
                let made = entry.metadata()?.modified()?;
                unnamed = Some(unnamed.map_or(made, |earliest| earliest.min(made)));
            } else {
                orphaned.insert(identifier);
            }
            dead.push(path);
        }
    }
    let mut removed = Vec::new();
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(identifier) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
            continue;
        };
        // The time of the name is lost under the mount; the namespace's own is when it was last looked up, never before
        // it was made.
        let since = || entry.metadata().and_then(|metadata| metadata.modified());
        let unclaimed = unnamed.is_some_and(|time| since().is_ok_and(|made| made >= time));
        if orphaned.contains(identifier) || (unclaimed && !claimed.contains(identifier)) {
            // The veth pairs go with the namespaces.
            unmount(entry.path(), UnmountFlags::DETACH)?;
            fs::remove_file(entry.path())?;
            removed.push(name);
        }
    }
    for path in dead {
        let _ = fs::remove_file(path);
    }
    Ok(removed)
}

/// Whether the owner named by a record still runs.
fn is_alive(record: &Path) -> bool {
    let name = record.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts = name.split('-').map(str::parse::<u64>);
    let (Some(Ok(owner)), Some(Ok(start))) = (parts.next(), parts.next()) else { return false };
    u32::try_from(owner).is_ok_and(|owner| start_time(owner) == Some(start))
}

/// When a process started, in the kernel's clock ticks since boot (field 22 of `/proc/PID/stat`).
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}
