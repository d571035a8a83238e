//! What a soak must not leave behind: processes, network namespaces, mounts, files.
//!
//! Others run labs on the same machine, so only what is known to be this soak's is looked for: processes by a mark in their environment,
//! namespaces by their inode numbers, mounts and files by the folder's name. Invariant: it is looked for when everything is said to be gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::parts::{MARK, Places};
use netdiag_lab::Lab;

/// The kernel takes a namespace down a moment after its last user has gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to look for, noted while it is there.
pub(super) struct Marks {
    environment: String,
    namespaces: Vec<String>,
    folder: PathBuf,
}

impl Marks {
    pub(super) fn of(lab: &Lab, places: &Places) -> Self {
        let clients = lab.links().iter().map(netdiag_lab::Link::client_netns_inode);
        let inodes = clients.chain([lab.server_netns_inode()]);
        Self {
            environment: format!("{MARK}={}", places.mark),
            namespaces: inodes.map(|inode| format!("net:[{inode}]")).collect(),
            folder: places.folder.clone(),
        }
    }

    /// What is still there, by a name for each.
    pub(super) fn found(&self) -> Vec<String> {
        let asked = Instant::now();
        loop {
            let found = self.look();
            if found.is_empty() || asked.elapsed() > PATIENCE {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn look(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.folder.exists() {
            found.push(format!("folder {}", self.folder.display()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let folder = self.folder.display().to_string();
        found.extend(
            mounts
                .lines()
                // A namespace is held by a mount of it, too.
                .filter(|line| {
                    line.contains(&folder) || self.namespaces.iter().any(|name| line.contains(name))
                })
                .map(|line| format!("mount {line}")),
        );
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = process.path();
            let is_number = |name: &std::ffi::OsStr| name.to_string_lossy().parse::<u32>().is_ok();
            if !path.file_name().is_some_and(is_number) {
                continue;
            }
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            if environment.split(|&byte| byte == 0).any(|one| one == self.environment.as_bytes()) {
                found.push(format!("process {}", path.display()));
            }
            // A namespace lives by who is in it, and by who has it open.
            let held = links(path.join("fd")).chain(fs::read_link(path.join("ns/net")).ok());
            for link in held {
                if self.namespaces.iter().any(|name| Path::new(name) == link) {
                    found.push(format!("namespace {} of {}", link.display(), path.display()));
                }
            }
        }
        found
    }
}

fn links(folder: PathBuf) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_with_the_mark_is_found_until_it_has_ended() {
        let marks = Marks {
            environment: format!("{MARK}=test-{}", std::process::id()),
            namespaces: Vec::new(),
            folder: "/no/such/folder".into(),
        };
        assert_eq!(marks.look(), Vec::<String>::new());
        let mut child = Command::new("sleep")
            .arg("60")
            .env(MARK, format!("test-{}", std::process::id()))
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep");
        let found = marks.look();
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(found, [format!("process /proc/{}", child.id())]);
        assert_eq!(marks.found(), Vec::<String>::new());
    }

    #[test]
    fn a_namespace_that_somebody_is_in_is_found() {
        let here = fs::read_link("/proc/self/ns/net").expect("a namespace");
        let marks = Marks {
            environment: "nobody has this".to_owned(),
            namespaces: vec![here.display().to_string()],
            folder: "/no/such/folder".into(),
        };
        assert!(marks.look().iter().any(|found| found.starts_with("namespace ")));
    }
}
