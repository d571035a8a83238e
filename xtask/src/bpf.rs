//! `cargo xtask bpf`: from `netdiag.bpf.c` to the committed object, and the proof that the two belong together.
//!
//! The object is committed so that users need no clang. Compilers of other versions give other bytes, so what is compared
//! everywhere is the digest of each source and of the object against the lock file written when it was built; where the
//! same version of clang is at hand (Debian 12's, on the machines of this project), the object is also rebuilt and must be
//! identical, byte for byte. With another version, even of the same series, a rebuild proves nothing, and is skipped by
//! name.
//!
//! Invariant: the object and its lock file are written together, and the bytes depend on the sources and the compiler, not
//! on where the checkout is.

mod lock;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::command;
use lock::Lock;

const SOURCE: &str = "netdiag.bpf.c";
const OBJECT: &str = "netdiag.bpf.o";
const LOCK: &str = "netdiag.bpf.lock";

/// What the compilation needs beside the sources, and the Debian package that has it.
const NEEDS: [(&str, &str); 4] = [
    ("clang", "clang"),
    ("llvm-strip", "llvm"),
    ("/usr/include/bpf/bpf_helpers.h", "libbpf-dev"),
    ("/usr/include/linux/bpf.h", "linux-libc-dev"),
];

/// Builds the object and its lock file, or checks them.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let folder = crate::root().join("crates/netdiag-probe/bpf");
    if check { verify(&folder) } else { build(&folder) }
}

fn build(folder: &Path) -> anyhow::Result<()> {
    command::ensure_debian(&NEEDS)?;
    let object = compile(folder, &folder.join(OBJECT))?;
    let lock = Lock::of(folder, &object, &clang_version()?)?;
    fs::write(folder.join(LOCK), lock.to_string()).context(LOCK)?;
    println!("{OBJECT}: {} bytes, clang {}", object.len(), lock.clang);
    Ok(())
}

fn verify(folder: &Path) -> anyhow::Result<()> {
    let (lock, object) = recorded(folder)?;
    if let Err(error) = command::ensure_debian(&NEEDS) {
        println!("skipped: rebuilding the BPF object ({error:#})");
        return Ok(());
    }
    let ours = clang_version()?;
    if ours != lock.clang {
        println!(
            "skipped: rebuilding the BPF object (it was built by clang {}, here is {ours})",
            lock.clang
        );
        return Ok(());
    }
    let temporary = std::env::temp_dir().join(format!("netdiag-bpf-{}.o", std::process::id()));
    let rebuilt = compile(folder, &temporary);
    let _ = fs::remove_file(&temporary);
    if rebuilt? != object {
        bail!("{OBJECT}: clang {ours} makes other bytes of the sources: {}", lock::REMEDY);
    }
    println!("bpf: the object is what clang {ours} makes of its sources");
    Ok(())
}

/// The lock file and the object, once they and the sources agree. Needs no compiler.
fn recorded(folder: &Path) -> anyhow::Result<(Lock, Vec<u8>)> {
    let text = fs::read_to_string(folder.join(LOCK)).context(LOCK)?;
    let lock: Lock = text.parse().context(LOCK)?;
    let object = fs::read(folder.join(OBJECT)).context(OBJECT)?;
    lock.compare(&Lock::of(folder, &object, &lock.clang)?)?;
    Ok((lock, object))
}

fn compile(folder: &Path, object: &Path) -> anyhow::Result<Vec<u8>> {
    let run = |program: &str, arguments: &[&str]| -> anyhow::Result<()> {
        let status = Command::new(program).args(arguments).current_dir(folder).status();
        let status = status.with_context(|| format!("cannot run {program}"))?;
        ensure!(status.success(), "`{program} {}` failed ({status})", arguments.join(" "));
        Ok(())
    };
    let path = object.to_str().context("the path of the object is not UTF-8")?;
    let here = folder.to_str().context("the path of the checkout is not UTF-8")?;
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
            // Debian keeps asm/types.h apart for each architecture: clang for BPF does not look there by itself.
            &format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH),
            // No path of this machine in the object.
            &format!("-ffile-prefix-map={here}=."),
            "-c",
            SOURCE,
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

#[cfg(test)]
mod tests;
