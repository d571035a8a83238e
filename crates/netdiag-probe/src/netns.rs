//! Finding network namespaces and looking into them.
//!
//! A namespace is kept by its path and inode, never by an open descriptor: a descriptor (or a netlink socket made
//! inside) would keep a deleted namespace alive. A visit happens on a thread of its own that dies with it, so no failure
//! can leave the caller in a foreign namespace.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace: its inode and a path that leads into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Netns {
    pub(crate) inode: u32,
    pub(crate) path: PathBuf,
}

/// The inode of the namespace behind a path such as `/run/netns/NAME` or `/proc/PID/ns/net`.
pub(crate) fn inode_of(path: &Path) -> io::Result<u32> {
    let inode = fs::metadata(path)?.ino();
    u32::try_from(inode).map_err(|_| {
        let message = format!("{} is not a network namespace (inode {inode})", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

/// The inode of the calling thread's own namespace.
pub(crate) fn own_inode() -> io::Result<u32> {
    inode_of(Path::new("/proc/thread-self/ns/net"))
}

/// Every namespace that has a name or a process we may look at, one entry per inode, sorted.
pub(crate) fn discover() -> Vec<Netns> {
    let mut found = HashMap::new();
    let named = entries("/run/netns");
    let processes = entries("/proc")
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
        })
        .map(|path| path.join("ns/net"));
    for path in named.chain(processes) {
        if let Ok(inode) = inode_of(&path) {
            found.entry(inode).or_insert(path);
        }
    }
    let mut namespaces: Vec<_> =
        found.into_iter().map(|(inode, path)| Netns { inode, path }).collect();
    namespaces.sort_unstable_by_key(|ns| ns.inode);
    namespaces
}

/// Runs `visit` once inside each namespace, on one thread that ends afterwards. A namespace that cannot be entered any
/// more, or whose path now leads elsewhere, gives an error of its own.
pub(crate) fn visit<T: Send>(
    namespaces: &[Netns],
    visit: impl Fn(&Netns) -> io::Result<T> + Sync,
) -> Vec<io::Result<T>> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    let enter_and_visit = |ns: &Netns| {
        let file = File::open(&ns.path)?;
        if u64::from(ns.inode) != file.metadata()?.ino() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the namespace is gone"));
        }
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        visit(ns)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| namespaces.iter().map(enter_and_visit).collect());
        thread.join().unwrap_or_default()
    })
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}
