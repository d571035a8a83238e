//! Files and connections, by Landlock (Linux 5.13; connections from 6.7 on).
//!
//! A path is followed by its folder, because files are replaced by others of the same name; with a link both its folder and that of the
//! file behind it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::Needs;

/// The newest kinds of access that we ask to be refused (Linux 6.10). Kernels that know fewer refuse fewer.
const ABI_OF_RIGHTS: ABI = ABI::V5;

/// From here on Linux confines connections.
const ABI_OF_CONNECTIONS: ABI = ABI::V4;

/// Most entries of a folder of authorities that are followed; systems have some hundred.
const MOST_LINKS: usize = 4096;

/// What finding out an address reads: configuration, which programs replace by renaming, and the C library's modules; and the
/// authorities that servers are told by. Beside these, what links of [`LINKS`] lead to.
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

/// Files of those that systems link to places of their own.
const LINKS: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A folder of authorities, each of which may be a link.
const AUTHORITIES: &str = "/etc/ssl/certs";

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
    /// What this kernel's Landlock can confine.
    abi: ABI,
}

/// Makes the rules, while folders can still be found.
pub(super) fn prepare(needs: &Needs) -> Prepared {
    for path in needs.reads.iter().chain(&needs.writes).filter(|path| folders(path).is_empty()) {
        tracing::warn!(
            "{}: there is no folder for it yet, so it will not be found; make that and start again",
            path.display()
        );
    }
    let is_alone = |path: &&PathBuf| folders(path).iter().any(|place| !place.is_dir());
    for path in needs.reads.iter().chain(&needs.writes).filter(is_alone) {
        tracing::warn!(
            "{}: in the root folder a file is reached only as it is now, so it cannot be shortened, and one that replaces it is not \
             found; put it into a folder",
            path.display()
        );
    }
    let told = InForce {
        reads: needs.reads.iter().flat_map(|path| folders(path)).collect(),
        writes: needs.writes.iter().flat_map(|path| folders(path)).collect(),
        connects: needs.connects,
        abi: ABI::Unsupported,
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
        ruleset = ruleset
            .add_rules(path_beneath_rules(NAMES, read))?
            .add_rules(path_beneath_rules(linked(|name| std::env::var_os(name)), read))?;
    }
    Ok(ruleset)
}

/// Where names and authorities are besides: behind links, and where the environment says, which is OpenSSL's.
fn linked(variable: impl Fn(&str) -> Option<OsString>) -> BTreeSet<PathBuf> {
    let certificates = variable("SSL_CERT_DIR").unwrap_or_default();
    let beneath: Vec<PathBuf> = std::env::split_paths(&certificates)
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .filter(|folder| folder.parent().is_some() && folder.is_dir())
        .collect();
    // What else is in a folder of the root is none of names' or authorities' (`/run`, `/tmp`): of those it is the file alone.
    let narrow = |path: PathBuf| {
        let file = fs::canonicalize(&path).ok();
        let is_wide = |folder: &Path| folder.ancestors().count() == 2;
        let places = folders(&path).into_iter();
        places.filter_map(move |place| if is_wide(&place) { file.clone() } else { Some(place) })
    };
    let authorities = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().take(MOST_LINKS);
        let links =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        links.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let files = LINKS.iter().map(PathBuf::from);
    let files = files.chain(variable("SSL_CERT_FILE").map(PathBuf::from));
    let files = files.chain(authorities(Path::new(AUTHORITIES)));
    let files = files.chain(beneath.iter().flat_map(|folder| authorities(folder)));
    let folders: BTreeSet<PathBuf> = files.flat_map(narrow).collect();
    let is_known = |folder: &PathBuf| NAMES.iter().any(|known| folder.starts_with(known));
    beneath.into_iter().chain(folders).filter(|folder| !is_known(folder)).collect()
}

impl Prepared {
    /// Puts them in force on this thread; nothing where the kernel does not know them.
    pub(super) fn enforce(self) -> Option<InForce> {
        let status = self.ruleset?.restrict_self().inspect_err(|error| {
            tracing::warn!("files cannot be confined: {error}");
        });
        let status = status.ok()?;
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi,
            _ => ABI::Unsupported,
        };
        // What it does not know is not enforced, which is told by what it knows.
        (status.ruleset != RulesetStatus::NotEnforced).then_some(InForce { abi, ..self.told })
    }
}

impl InForce {
    /// Whether connections are confined, too.
    pub(super) fn has_connections(&self) -> bool {
        self.abi >= ABI_OF_CONNECTIONS
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
            true => f.write_str(" (and those by which names are looked up)")?,
            false if self.has_connections() => f.write_str("; no connections to others")?,
            false => {}
        }
        if self.abi < ABI_OF_RIGHTS {
            f.write_str(" (as far as this kernel's older Landlock goes)")?;
        }
        Ok(())
    }
}

/// The folder of a path, and that of the file behind it if it is a link. Of a folder that is not there, the one where it may be made.
///
/// Never the root, which is everything: of a file there it is the file alone, and nothing of one that is not there yet.
fn folders(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.ancestors().skip(1).find(|folder| folder.is_dir())?.to_owned();
        let is_root = fs::canonicalize(&folder).is_ok_and(|folder| folder.parent().is_none());
        if is_root { path.exists().then_some(path) } else { Some(folder) }
    };
    let behind = fs::canonicalize(path).ok().and_then(|path| folder(&path));
    let mut folders: Vec<PathBuf> = folder(path).into_iter().chain(behind).collect();
    folders.dedup();
    folders
}

/// What root needs to read files that are somebody else's, or will be: who makes one that is not there yet is not known.
pub(super) fn to_read(needs: &Needs) -> CapabilitySet {
    let is_readable = |path: &PathBuf| {
        let path = fs::canonicalize(path).unwrap_or(path.clone());
        may_be_reached(&path) && fs::metadata(&path).is_ok_and(|found| may(&found, 0o4))
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
        // Everything is never opened.
        check(PathBuf::from("/no-such-folder-here/data.csv"), &[]);
        check(PathBuf::from("/no-such-file-here.csv"), &[]);
        symlink("/", root.join("all")).expect("a link");
        check(root.join("all/no-such-file-here.csv"), &[]);
    }

    #[test]
    fn authorities_are_found_where_the_environment_says_and_behind_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("it is there");
        for name in ["real", "certs", "elsewhere"] {
            fs::create_dir(root.join(name)).expect("a folder");
        }
        fs::write(root.join("real/ca.pem"), "").expect("a file");
        fs::write(root.join("elsewhere/all.pem"), "").expect("a file");
        symlink(root.join("real/ca.pem"), root.join("certs/ca.pem")).expect("a link");
        let variable = |name: &str| match name {
            "SSL_CERT_DIR" => Some(format!("{}:/", root.join("certs").display()).into()),
            "SSL_CERT_FILE" => Some(root.join("elsewhere/all.pem").into()),
            _ => None,
        };
        let found = linked(variable);
        for name in ["real", "certs", "elsewhere"] {
            assert!(found.contains(&root.join(name)), "{name} is not in {found:?}");
        }
        assert!(!found.contains(Path::new("/")), "{found:?}");
        // A folder right below the root is a whole world.
        let file = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
        let variable = |name: &str| (name == "SSL_CERT_FILE").then(|| file.path().into());
        let found = linked(variable);
        assert!(found.contains(file.path()) && !found.contains(Path::new("/tmp")), "{found:?}");
    }

    #[test]
    fn what_is_told_is_what_the_kernel_can_do() {
        let told = |abi| {
            InForce { reads: Vec::new(), writes: Vec::new(), connects: false, abi }.to_string()
        };
        assert_eq!(told(ABI::V5), "no files; no connections to others");
        assert_eq!(
            told(ABI::V4),
            "no files; no connections to others (as far as this kernel's older Landlock goes)"
        );
        assert_eq!(told(ABI::V3), "no files (as far as this kernel's older Landlock goes)");
    }

    #[test]
    fn a_file_that_is_not_there_yet_may_be_anybodys() {
        let folder = tempfile::tempdir().expect("a folder");
        let needs = Needs { reads: vec![folder.path().join("data.csv")], ..Needs::default() };
        assert_eq!(to_read(&needs), CapabilitySet::DAC_READ_SEARCH);
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
