//! Files and connections, by Landlock (Linux 5.13; connections from 6.7 on).
//!
//! A path is followed by its folder, because files are replaced by others of the same name; with a link both its folder and that of the
//! file behind it.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::Needs;

/// The newest kinds of access that we ask to be refused (Linux 6.10). Kernels that know fewer refuse fewer.
const ABI_OF_RIGHTS: ABI = ABI::V5;

/// What finding out an address reads: configuration, which programs replace by renaming, and the C library's modules; and the
/// authorities that servers are told by.
const NAMES: [&str; 9] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// Rules that are made and not in force yet.
pub(super) struct Prepared {
    ruleset: Option<RulesetCreated>,
    told: InForce,
}

/// What files may be touched.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    connects: bool,
}

/// Makes the rules, while folders can still be found.
pub(super) fn prepare(needs: &Needs) -> Prepared {
    let told = InForce {
        reads: needs.reads.iter().flat_map(|path| folders(path)).collect(),
        writes: needs.writes.iter().flat_map(|path| folders(path)).collect(),
        connects: needs.connects,
    };
    let ruleset = ruleset(&told);
    if let Err(error) = &ruleset {
        tracing::warn!("files cannot be confined: {error}");
    }
    Prepared { ruleset: ruleset.ok(), told }
}

fn ruleset(told: &InForce) -> Result<RulesetCreated, RulesetError> {
    let mut net = BitFlags::from(AccessNet::BindTcp);
    if !told.connects {
        net |= AccessNet::ConnectTcp;
    }
    // Whoever listens does so by now.
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI_OF_RIGHTS))?
        .handle_access(net)?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg;
    ruleset = ruleset
        .add_rules(path_beneath_rules(&told.reads, read))?
        .add_rules(path_beneath_rules(&told.writes, write | AccessFs::RemoveFile))?;
    if told.connects {
        ruleset = ruleset.add_rules(path_beneath_rules(NAMES, read))?;
    }
    Ok(ruleset)
}

impl Prepared {
    /// Puts them in force on this thread; nothing where the kernel does not know them.
    pub(super) fn enforce(self) -> Option<InForce> {
        let status = self.ruleset?.restrict_self().inspect_err(|error| {
            tracing::warn!("files cannot be confined: {error}");
        });
        (status.ok()?.ruleset != RulesetStatus::NotEnforced).then_some(self.told)
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |paths: &[PathBuf]| {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            paths.join(", ")
        };
        match (&self.reads[..], &self.writes[..]) {
            ([], []) => f.write_str("no files")?,
            (reads, []) => write!(f, "reads files in {} alone", list(reads))?,
            ([], writes) => write!(f, "writes files in {} alone", list(writes))?,
            (reads, writes) => {
                write!(f, "reads files in {} and writes in {} alone", list(reads), list(writes))?;
            }
        }
        match self.connects {
            true => f.write_str(" but those that names are looked up with"),
            false => f.write_str("; no connections to others"),
        }
    }
}

/// The folder of a path, and that of the file behind it if it is a link. Of a folder that is not there, the one where it may be made.
fn folders(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        path.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
    };
    let behind = fs::canonicalize(path).ok().and_then(|path| folder(&path));
    let mut folders: Vec<PathBuf> = folder(path).into_iter().chain(behind).collect();
    folders.dedup();
    folders
}

/// What root needs to read files that are somebody else's.
pub(super) fn to_read(needs: &Needs) -> CapabilitySet {
    let is_readable = |path: &PathBuf| {
        let path = fs::canonicalize(path).unwrap_or(path.clone());
        may_be_reached(&path) && fs::metadata(&path).map_or(true, |found| may(&found, 0o4))
    };
    if needs.reads.iter().all(is_readable) {
        CapabilitySet::empty()
    } else {
        CapabilitySet::DAC_READ_SEARCH
    }
}

/// What root needs to replace files that are somebody else's, and to leave them his.
pub(super) fn to_write(needs: &Needs) -> CapabilitySet {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let is_ours = |path: &PathBuf| {
        let path = fs::canonicalize(path).unwrap_or(path.clone());
        let file = fs::metadata(&path);
        let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
        may_be_reached(&path)
            && folder.is_none_or(|found| found.uid() == user)
            && file.is_ok_and(|found| (found.uid(), found.gid()) == (user, group))
    };
    if needs.writes.iter().all(is_ours) {
        CapabilitySet::empty()
    } else {
        CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
    }
}

/// Whether all folders on the way let us through without privileges.
fn may_be_reached(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|folder| fs::metadata(folder).map_or(true, |found| may(&found, 0o1)))
}

/// Whether one who is the owner, or anybody, may do this (a bit of the mode). What groups may is not counted.
fn may(found: &Metadata, what: u32) -> bool {
    let is_owner = found.uid() == geteuid().as_raw();
    found.mode() & if is_owner { what << 6 } else { what } != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_followed_by_its_folder_and_that_behind_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("it is there");
        fs::create_dir(root.join("real")).expect("a folder");
        fs::write(root.join("real/data.csv"), "").expect("a file");
        symlink(root.join("real/data.csv"), root.join("link.csv")).expect("a link");
        let check = |path: PathBuf, expected: &[PathBuf]| assert_eq!(folders(&path), expected);
        check(root.join("link.csv"), &[root.clone(), root.join("real")]);
        check(root.join("real/data.csv"), &[root.join("real")]);
        // It may come yet, and its folder with it.
        check(root.join("real/other.csv"), &[root.join("real")]);
        check(root.join("no/such/data.csv"), std::slice::from_ref(&root));
    }

    #[test]
    fn files_of_ones_own_need_no_capabilities() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.csv");
        fs::write(&path, "").expect("a file");
        let needs = Needs { reads: vec![path.clone()], writes: vec![path], connects: false };
        assert_eq!(to_read(&needs) | to_write(&needs), CapabilitySet::empty());
        if geteuid().is_root() {
            let owner = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534));
            owner(&needs.writes[0]).expect("root may");
            assert!(to_write(&needs).contains(CapabilitySet::CHOWN));
            // Everybody may read it.
            assert_eq!(to_read(&needs), CapabilitySet::empty());
        }
    }
}
