//! `cargo xtask bpf`: from `netdiag.bpf.c` to the committed object, and the proof that the two belong together.
//!
//! The object is committed so that users need no clang. Compilers of other versions give other bytes, so what is compared
//! everywhere is the digest of the sources and of the object against the lock file written when it was built; where the
//! same major version of clang is at hand, the object is also rebuilt and must be identical, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::command;

const SOURCES: [&str; 3] = ["netdiag.bpf.c", "netdiag.h", "kernel.h"];
const OBJECT: &str = "netdiag.bpf.o";
const LOCK: &str = "netdiag.bpf.lock";

/// Builds the object and its lock file, or checks them.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let folder = crate::root().join("crates/netdiag-probe/bpf");
    if check { verify(&folder) } else { build(&folder) }
}

fn build(folder: &Path) -> anyhow::Result<()> {
    tools()?;
    let object = compile(folder, &folder.join(OBJECT))?;
    let lock = format!(
        "# Written by `cargo xtask bpf`; says which sources and compiler the object comes from.\n\
         sources {}\nobject {}\nclang {}\n",
        sources(folder)?,
        digest(&object),
        clang_version()?
    );
    fs::write(folder.join(LOCK), lock)?;
    println!("{}: {} bytes", folder.join(OBJECT).display(), object.len());
    Ok(())
}

fn verify(folder: &Path) -> anyhow::Result<()> {
    let lock = fs::read_to_string(folder.join(LOCK)).context(LOCK)?;
    let entry = |name: &str| {
        let value = lock.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("{LOCK} has no `{name}`"))
    };
    let object = fs::read(folder.join(OBJECT)).context(OBJECT)?;
    let advice = "run `cargo xtask bpf` and commit the result";
    ensure!(
        entry("sources")? == sources(folder)?,
        "the BPF sources changed after the object was built: {advice}"
    );
    ensure!(
        entry("object")? == digest(&object),
        "{OBJECT} is not the one that {LOCK} describes: {advice}"
    );
    let built_by = entry("clang")?;
    if tools().is_err() {
        println!("skipped: rebuilding the BPF object (needs clang and llvm-strip)");
        return Ok(());
    }
    let ours = clang_version()?;
    if major(&ours) != major(built_by) {
        println!(
            "skipped: rebuilding the BPF object (it was built by clang {built_by}, here is {ours})"
        );
        return Ok(());
    }
    let temporary = std::env::temp_dir().join(format!("netdiag-bpf-{}.o", std::process::id()));
    let rebuilt = compile(folder, &temporary);
    let _ = fs::remove_file(&temporary);
    if rebuilt? != object {
        bail!("rebuilding {OBJECT} with clang {ours} gives other bytes: {advice}");
    }
    println!("bpf: object and source agree (clang {ours})");
    Ok(())
}

fn tools() -> anyhow::Result<()> {
    command::ensure_debian(&[("clang", "clang"), ("llvm-strip", "llvm")])?;
    if !Path::new("/usr/include/bpf/bpf_helpers.h").exists() {
        ensure!(
            command::is_root(),
            "missing header bpf/bpf_helpers.h: install the Debian package libbpf-dev"
        );
        command::run("apt-get", &["install", "--quiet=2", "--yes", "libbpf-dev"])?;
    }
    Ok(())
}

fn compile(folder: &Path, object: &Path) -> anyhow::Result<Vec<u8>> {
    let run = |program: &str, arguments: &[&str]| -> anyhow::Result<()> {
        let status = Command::new(program).args(arguments).current_dir(folder).status();
        ensure!(
            status.with_context(|| format!("cannot run {program}"))?.success(),
            "{program} failed"
        );
        Ok(())
    };
    let path = object.to_str().context("the path of the object is not UTF-8")?;
    let here = folder.to_str().context("the path of the checkout is not UTF-8")?;
    let machine = command::output("uname", &["-m"])?;
    run(
        "clang",
        &[
            "-O2",
            "-g",
            "-target",
            "bpf",
            // Atomic compare-and-swap, from Linux 5.12 on.
            "-mcpu=v3",
            "-Wall",
            "-Werror",
            // Where clang for x86 finds asm/types.h by itself, clang for BPF does not.
            &format!("-I/usr/include/{}-linux-gnu", machine.trim()),
            // No path of this machine in the object.
            &format!("-ffile-prefix-map={here}=."),
            "-c",
            SOURCES[0],
            "-o",
            path,
        ],
    )?;
    // Debug information goes, BTF stays.
    run("llvm-strip", &["-g", path])?;
    fs::read(object).with_context(|| path.to_owned())
}

fn clang_version() -> anyhow::Result<String> {
    let text = command::output("clang", &["-dumpversion"])?;
    Ok(text.trim().to_owned())
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

fn sources(folder: &Path) -> anyhow::Result<String> {
    let mut all = Vec::new();
    for name in SOURCES {
        let path: PathBuf = folder.join(name);
        all.extend(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    Ok(digest(&all))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
