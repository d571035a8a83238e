//! Debian's kernels: found by what apt offers here, downloaded and unpacked into a cache, never installed.
//!
//! Invariant: what lies in the cache under a kernel's release is its whole package, so the next run needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::command;

/// Flavour of the packages: the one made for virtual machines, the smallest. All have BTF and netem.
const FLAVOUR: &str = "-cloud-amd64";

/// What the names of kernel packages begin with; the rest is the release.
const PREFIX: &str = "linux-image-";

/// Why there may be none of a series, and what to do.
pub(super) const ABSENT: &str = "apt's sources offer no such kernel of Debian's for virtual machines: as root \
    `apt-get update`, add a source of a Debian that has it, or name others by --kernel";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    folder: PathBuf,
}

/// The newest kernel of a series (`6.1`) that apt offers, from the cache or downloaded; `None` if it offers none.
pub(super) fn obtain(series: &str, cache: &Path) -> anyhow::Result<Option<Kernel>> {
    let kernel = |release: String| Kernel { folder: cache.join(&release), release };
    let known = newest(series)?.map(kernel);
    if known.as_ref().is_some_and(|kernel| kernel.folder.is_dir()) {
        return Ok(known);
    }
    // A machine that has never asked knows no packages, and one that asked long ago knows those that are gone by now.
    if command::is_root() {
        command::apt_get(&["update"], cache)?;
    }
    let Some(kernel) = newest(series)?.map(kernel) else { return Ok(None) };
    if !kernel.folder.is_dir() {
        kernel.download().with_context(|| {
            format!(
                "cannot get Linux {}; if apt's lists are old, run this as root or `apt-get update` first",
                kernel.release
            )
        })?;
    }
    Ok(Some(kernel))
}

/// The newest release of a series in apt's lists.
fn newest(series: &str) -> anyhow::Result<Option<String>> {
    let names = command::output("apt-cache", &["pkgnames", &format!("{PREFIX}{series}.")])?;
    let releases = names.lines().filter_map(|name| name.strip_prefix(PREFIX));
    let fitting = releases.filter(|release| release.ends_with(FLAVOUR));
    Ok(fitting.max_by_key(|release| numbers(release)).map(str::to_owned))
}

/// The numbers in a release in their order, which is that of Debian's versions of one flavour.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

impl Kernel {
    /// Fills the cache with the package.
    fn download(&self) -> anyhow::Result<()> {
        let package = format!("{PREFIX}{}", self.release);
        eprintln!("downloading {package}, about 30 MB");
        let partial = self.folder.with_file_name(format!("{}.partial", self.release));
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
        // Not as apt's own user, who may not write here, which it would warn of.
        command::apt_get(&["--option=APT::Sandbox::User=root", "download", &package], &partial)?;
        let archive = only_entry(&partial, "deb")?;
        let tree = text(&partial)?;
        command::run("dpkg-deb", &["--extract", text(&archive)?, tree])?;
        fs::remove_file(&archive).with_context(|| archive.display().to_string())?;
        // Installing the package would do this: which module needs which.
        command::run("busybox", &["depmod", "-b", tree, &self.release])?;
        fs::rename(&partial, &self.folder).with_context(|| partial.display().to_string())
    }

    /// What is booted.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The files of modules and of those that they need, and the lists in which `modprobe` finds them: where each belongs,
    /// and where it is.
    pub(super) fn modules(&self, names: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let under = format!("lib/modules/{}", self.release);
        let folder = self.folder.join(&under);
        let dependencies = folder.join("modules.dep");
        let dependencies = fs::read_to_string(&dependencies)
            .with_context(|| dependencies.display().to_string())?;
        let lists = ["modules.dep", "modules.alias", "modules.builtin"].map(str::to_owned);
        let modules = closure(&dependencies, names)
            .with_context(|| format!("modules of Linux {}", self.release))?;
        let files = modules.into_iter().chain(lists);
        Ok(files.map(|file| (format!("/{under}/{file}"), folder.join(file))).collect())
    }
}

/// The paths of modules and of all that they need, from the text of `modules.dep` (`path: path path`).
fn closure(dependencies: &str, names: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let needs: BTreeMap<&str, &str> =
        dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    // `sch_netem.ko`, or compressed `sch_netem.ko.xz`.
    let is_named = |path: &str, name: &str| {
        let file = Path::new(path).file_name().and_then(OsStr::to_str).unwrap_or_default();
        file.split('.').next() == Some(name)
    };
    let mut waiting = Vec::new();
    for name in names {
        match needs.keys().find(|path| is_named(path, name)) {
            Some(path) => waiting.push(*path),
            None => bail!("{name} is not among the {} of modules.dep", needs.len()),
        }
    }
    let mut found = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if found.insert(path.to_owned()) {
            waiting.extend(needs.get(path).into_iter().flat_map(|paths| paths.split_whitespace()));
        }
    }
    Ok(found)
}

/// The one file with an extension in a folder.
fn only_entry(folder: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut fitting: Vec<PathBuf> =
        paths.filter(|path| path.extension() == Some(OsStr::new(extension))).collect();
    ensure!(
        fitting.len() == 1,
        "{}: {} files end in .{extension}, and there should be one",
        folder.display(),
        fitting.len()
    );
    Ok(fitting.remove(0))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{}: a path that is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let check = |newer: &str, older: &str| assert!(numbers(newer) > numbers(older), "{newer}");
        check("6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64");
        check("6.12.117+deb12-cloud-amd64", "6.12.94+deb12-cloud-amd64");
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let dependencies = "kernel/a/tcp_diag.ko.xz: kernel/a/inet_diag.ko.xz\n\
                            kernel/a/inet_diag.ko.xz: kernel/b/core.ko.xz\n\
                            kernel/b/core.ko.xz:\nkernel/b/core_more.ko.xz:\nkernel/b/veth.ko:\n";
        let check = |names: &[&str], expected: &[&str]| {
            let found = closure(dependencies, names).expect("known");
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{names:?}");
        };
        check(&["veth", "core"], &["kernel/b/core.ko.xz", "kernel/b/veth.ko"]);
        check(
            &["tcp_diag"],
            &["kernel/a/inet_diag.ko.xz", "kernel/a/tcp_diag.ko.xz", "kernel/b/core.ko.xz"],
        );
        check(&[], &[]);
        let error = closure(dependencies, &["veth", "netem"]).expect_err("unknown").to_string();
        assert_eq!(error, "netem is not among the 5 of modules.dep");
    }
}
