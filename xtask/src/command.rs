//! Running other programs: always from the root of the checkout, always naming the command that failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let line = format!("{program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(crate::root())
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a program and returns what it printed to its standard output.
pub(crate) fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(crate::root())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be started.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Whether we are root, who may install packages and load programs.
pub(crate) fn is_root() -> bool {
    // The owner of our own /proc entry is the effective user.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Makes sure that each program (by name) or file (by path) is there, installing the Debian packages that hold the missing
/// ones if we may. Nothing is touched where nothing is missing.
pub(crate) fn ensure_debian(needs: &[(&str, &str)]) -> anyhow::Result<()> {
    let is_there = |what: &str| match what.starts_with('/') {
        true => Path::new(what).exists(),
        false => exists(what),
    };
    let missing: Vec<_> = needs.iter().filter(|(what, _)| !is_there(what)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|&&(_, package)| package).collect();
    if !is_root() || !exists("apt-get") {
        let names: Vec<&str> = missing.iter().map(|&&(what, _)| what).collect();
        bail!(
            "{} not found: install the Debian packages {} (as root this is done for you)",
            names.join(", "),
            packages.join(" ")
        );
    }
    apt_get(&["update"], crate::root())?;
    let install = ["install", "--yes", "--no-install-recommends"];
    apt_get(&[&install, &packages[..]].concat(), crate::root())
}

/// Runs apt-get without questions in a folder, which is where it downloads to. It talks to the standard error: a bench's
/// standard output may be read by a program.
pub(crate) fn apt_get(arguments: &[&str], folder: &Path) -> anyhow::Result<()> {
    let line = format!("apt-get --quiet=2 {}", arguments.join(" "));
    eprintln!("running `{line}`");
    let status = Command::new("apt-get")
        .args(["--quiet=2", "--option=Dpkg::Use-Pty=0"]) // no progress bar in a log
        .args(arguments)
        .current_dir(folder)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Makes sure that `cargo NAME` is there, building it from source if not.
///
/// `version` is a requirement with its sign (`^1.2`): cargo refuses a bare `1.2` here.
pub(crate) fn ensure_cargo_tool(name: &str, version: &str) -> anyhow::Result<()> {
    // Asked through cargo, which also looks where it installs, on the PATH or not.
    let probe = Command::new("cargo")
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let package = format!("cargo-{name}@{version}");
    eprintln!("installing {package}, which takes a few minutes");
    run("cargo", &["install", "--quiet", "--locked", &package])
}

/// A Python that has these packages, in an environment of this name that is kept where builds are so that they are installed once.
pub(crate) fn python_with(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let environment = crate::target_directory().join(name);
    let python = environment.join("bin/python");
    let path = |path: &Path| {
        let path = path.to_str().context("the target folder's path is not UTF-8")?;
        anyhow::Ok(path.to_owned())
    };
    // Its standard output is not the report's.
    if !environment.join("bin/pip").exists() {
        ensure_debian(&[("python3", "python3"), ("/usr/share/doc/python3-venv", "python3-venv")])?;
        output("python3", &["-m", "venv", &path(&environment)?])?;
    }
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    output(&path(&python)?, &[&quiet[..], packages].concat())?;
    Ok(python)
}
