//! The file system that a virtual machine starts with: busybox, iproute2, our programs and the kernel's modules, each with
//! the libraries that this machine would load for it.
//!
//! Invariants: a program stands at the path at which it stands here, where it has one that it or others know it by. And
//! nothing is put together on disk: what is written is the archive alone, so that nothing is left whoever ends us.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use cpio::newc::{self, ModeFileType};

use super::kernel::Kernel;

/// What a check may need of the kernel; loaded by itself when `tc` or the agent asks for it, as on any machine.
const MODULES: [&str; 6] = ["veth", "sch_netem", "sch_tbf", "sch_htb", "inet_diag", "tcp_diag"];

/// Tools of this machine for the checks. busybox has some of these names too, but tests use the real ones' options.
const TOOLS: [&str; 4] = ["ip", "tc", "nsenter", "unshare"];

/// Where file systems are mounted and programs write.
const FOLDERS: [&str; 6] = ["/dev", "/etc", "/proc", "/run", "/sbin", "/sys"];

/// The program that the kernel starts.
const INIT: &str = include_str!("init.sh");

/// Our programs, as they were built.
#[derive(Debug)]
pub(super) struct Programs {
    /// The binary. Its tests know it by this path.
    pub(super) netdiag: PathBuf,
    /// Test executables, and the names by which [`INIT`] knows them.
    pub(super) tests: Vec<(&'static str, PathBuf)>,
}

/// What stands at a path.
#[derive(Debug)]
enum Entry {
    Folder {
        permissions: u32,
    },
    /// A file of this machine, with its permissions.
    Copy(PathBuf),
    /// A program.
    Text(&'static str),
    Link(String),
}

/// What the archive is to have, by absolute path. Folders come before what is in them, as the kernel wants it.
#[derive(Debug, Default)]
struct Tree(BTreeMap<String, Entry>);

/// Writes the archive for a kernel. Uncompressed: the emulated machine would take longer to unpack it than to be given it.
pub(super) fn write(
    kernel: &Kernel,
    programs: &Programs,
    archive: impl Write,
) -> anyhow::Result<()> {
    let mut tree = Tree::default();
    for folder in FOLDERS {
        tree.add(folder, Entry::Folder { permissions: 0o755 });
    }
    tree.add("/tmp", Entry::Folder { permissions: 0o1777 });
    tree.add_program("/bin/busybox", found("busybox")?)?;
    for tool in TOOLS {
        tree.add_program(&format!("/usr/bin/{tool}"), found(tool)?)?;
    }
    let place = programs.netdiag.to_str().context("the path of the build is not UTF-8")?;
    tree.add_program(place, programs.netdiag.clone())?;
    tree.add("/usr/bin/netdiag", Entry::Link(place.to_owned()));
    for (name, path) in &programs.tests {
        tree.add_program(&format!("/tests/{name}"), path.clone())?;
    }
    for (place, file) in kernel.modules(&MODULES)? {
        tree.add(&place, Entry::Copy(file));
    }
    tree.add("/init", Entry::Text(INIT));
    tree.write(archive)
}

impl Tree {
    /// Adds an entry, and the folders that it is in.
    fn add(&mut self, place: &str, entry: Entry) {
        for (at, _) in place.match_indices('/').skip(1) {
            let parent = place[..at].to_owned();
            self.0.entry(parent).or_insert(Entry::Folder { permissions: 0o755 });
        }
        self.0.insert(place.to_owned(), entry);
    }

    /// Adds a program and its libraries.
    fn add_program(&mut self, place: &str, program: PathBuf) -> anyhow::Result<()> {
        let output = Command::new("ldd").arg(&program).output().context("cannot run `ldd`")?;
        // It fails for what needs no libraries, like a static busybox.
        let text = String::from_utf8_lossy(&output.stdout);
        for library in libraries(&text).with_context(|| program.display().to_string())? {
            self.add(library, Entry::Copy(PathBuf::from(library)));
        }
        self.add(place, Entry::Copy(program));
        Ok(())
    }

    fn write(&self, mut archive: impl Write) -> anyhow::Result<()> {
        for (place, entry) in &self.0 {
            let (kind, permissions, content) =
                entry.read().with_context(|| format!("cannot put {place} into the archive"))?;
            let size = u32::try_from(content.len())
                .with_context(|| format!("{place}: over 4 GiB, which the archive cannot hold"))?;
            let mut file = newc::Builder::new(place.trim_start_matches('/'))
                .mode(permissions)
                .set_mode_file_type(kind)
                .write(&mut archive, size);
            file.write_all(&content)?;
            file.finish()?;
        }
        newc::trailer(archive)?;
        Ok(())
    }
}

impl Entry {
    /// Its kind, its permissions and its content.
    fn read(&self) -> anyhow::Result<(ModeFileType, u32, Vec<u8>)> {
        Ok(match self {
            Self::Folder { permissions } => (ModeFileType::Directory, *permissions, Vec::new()),
            Self::Copy(file) => {
                let named = || file.display().to_string();
                // Of what links point to.
                let mode = fs::metadata(file).with_context(named)?.permissions().mode();
                let content = fs::read(file).with_context(named)?;
                (ModeFileType::Regular, mode & 0o7777, content)
            }
            Self::Text(text) => (ModeFileType::Regular, 0o755, text.as_bytes().to_vec()),
            Self::Link(to) => (ModeFileType::Symlink, 0o777, to.as_bytes().to_vec()),
        })
    }
}

/// The files in the answer of `ldd`: `name => path (address)`, or `path (address)` for the loader.
fn libraries(answer: &str) -> anyhow::Result<Vec<&str>> {
    let mut paths = Vec::new();
    for line in answer.lines() {
        let (name, rest) = line.trim().split_once(" => ").unwrap_or(("", line.trim()));
        if rest.starts_with("not found") {
            bail!("the library {name} is not on this machine");
        }
        paths.extend(rest.split_whitespace().next().filter(|path| path.starts_with('/')));
    }
    Ok(paths)
}

/// Where a tool is; also where only root looks for it.
fn found(tool: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join(tool));
    candidates
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{tool} is neither in the PATH nor in /usr/sbin or /sbin"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_has_what_was_added_behind_its_folders() {
        let mut tree = Tree::default();
        tree.add("/a/b/link", Entry::Link("/a/init".to_owned()));
        tree.add("/a/init", Entry::Text("#!"));
        tree.add("/a", Entry::Folder { permissions: 0o1777 });
        let mut archive = Vec::new();
        tree.write(&mut archive).expect("memory");
        let (mut rest, mut found) = (&archive[..], Vec::new());
        loop {
            let mut reader = newc::Reader::new(rest).expect("an archive");
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = String::new();
            reader.read_to_string(&mut content).expect("text");
            found.push((name, mode, content));
            rest = reader.finish().expect("a next entry");
        }
        let expected = [
            ("a", 0o041_777, ""),
            ("a/b", 0o040_755, ""),
            ("a/b/link", 0o120_777, "/a/init"),
            ("a/init", 0o100_755, "#!"),
        ];
        let expected = expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut tree = Tree::default();
        tree.add("/x", Entry::Copy(PathBuf::from("/nowhere/x")));
        let error = format!("{:#}", tree.write(Vec::new()).expect_err("no such file"));
        assert!(error.starts_with("cannot put /x into the archive: /nowhere/x: "), "{error}");
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let answer = "\tlinux-vdso.so.1 (0x00007fb8)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007fb8)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007fb8)\n";
        let expected = ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(answer).expect("readable"), expected);
        assert_eq!(libraries("\tnot a dynamic executable\n").expect("none"), [""; 0]);
        assert_eq!(libraries("\tstatically linked\n").expect("none"), [""; 0]);
        let error = libraries("\tlibmnl.so.0 => not found\n").expect_err("one is missing");
        assert_eq!(error.to_string(), "the library libmnl.so.0 is not on this machine");
    }
}
