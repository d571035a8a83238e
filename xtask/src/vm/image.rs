//! The file system that a virtual machine starts with: busybox, iproute2, our programs and the kernel's modules, each with
//! the libraries that this machine would load for it.
//!
//! Invariant: a program stands at the path at which it stands here, where it has one that it or others know it by.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::kernel::{self, Kernel};

/// What a check may need of the kernel; loaded by itself when `tc` or the agent asks for it, as on any machine.
const MODULES: [&str; 6] = ["veth", "sch_netem", "sch_tbf", "sch_htb", "inet_diag", "tcp_diag"];

/// Tools of this machine for the checks. busybox has some of these names too, but tests use the real ones' options.
const TOOLS: [&str; 4] = ["ip", "tc", "nsenter", "unshare"];

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

/// Writes the archive for a kernel to `archive`, using the folder `root` to put it together.
pub(super) fn write(
    kernel: &Kernel,
    programs: &Programs,
    root: &Path,
    archive: &Path,
) -> anyhow::Result<()> {
    kernel::remove(root)?;
    for folder in ["bin", "dev", "proc", "run", "sbin", "sys", "tmp", "usr/bin", "tests"] {
        fs::create_dir_all(root.join(folder)).with_context(|| root.display().to_string())?;
    }
    let open = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(root.join("tmp"), open)?;

    add(root, &found("busybox")?, "/bin/busybox")?;
    for tool in TOOLS {
        add(root, &found(tool)?, &format!("/usr/bin/{tool}"))?;
    }
    let place = programs.netdiag.to_str().context("the path of the build is not UTF-8")?;
    add(root, &programs.netdiag, place)?;
    std::os::unix::fs::symlink(place, root.join("usr/bin/netdiag"))?;
    for (name, path) in &programs.tests {
        add(root, path, &format!("/tests/{name}"))?;
    }
    kernel.install_modules(&MODULES, root)?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    pack(root, archive)
}

/// Copies a program and its libraries into the tree.
fn add(root: &Path, program: &Path, place: &str) -> anyhow::Result<()> {
    let copy = |from: &Path, place: &str| -> anyhow::Result<()> {
        let to = root.join(place.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        // What links point to, with its permissions.
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        Ok(())
    };
    copy(program, place)?;
    let output = Command::new("ldd").arg(program).output().context("cannot run `ldd`")?;
    // It fails for what needs no libraries, like a static busybox.
    let text = String::from_utf8_lossy(&output.stdout);
    for library in libraries(&text).with_context(|| program.display().to_string())? {
        copy(Path::new(library), library)?;
    }
    Ok(())
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

/// Writes a tree as the archive that the kernel unpacks. Uncompressed: the emulated machine would take longer to unpack it
/// than to be given it.
fn pack(root: &Path, archive: &Path) -> anyhow::Result<()> {
    let output = fs::File::create(archive).with_context(|| archive.display().to_string())?;
    let mut list = Command::new("find")
        .arg(".")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `find`")?;
    let names = list.stdout.take().context("no output of `find`")?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
        .current_dir(root)
        .stdin(names)
        .stdout(output)
        .status()
        .context("cannot run `cpio`")?;
    let listed = list.wait()?;
    ensure!(
        status.success() && listed.success(),
        "`find . | cpio --create` failed in {} ({listed}, {status})",
        root.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
