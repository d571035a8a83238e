//! `cargo xtask package`: the Debian package, with completions and manual pages that the binary itself has made.
//!
//! cargo-deb's list of assets is in the manifest of the crate `netdiag`. Invariant: what is packed is of this checkout, since it is
//! made anew each time.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::command;

/// As for the other tools: the series that was current when this was written.
const CARGO_DEB: &str = "^3";

const CHANGELOG: &str = "packaging/debian/changelog";

/// Where bash, zsh and fish look for what they complete: by these names.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "netdiag.bash"), ("zsh", "_netdiag"), ("fish", "netdiag.fish")];

/// Builds the package and says where it is.
pub(crate) fn run() -> anyhow::Result<()> {
    has_entry()?;
    let netdiag = crate::release_binary("netdiag", &[], "netdiag")?;
    let assets = crate::target_directory().join("release/assets");
    make_assets(&netdiag, &assets)?;
    compress_pages(&assets.join("man"))?;
    command::ensure_cargo_tool("deb", CARGO_DEB)?;
    // Its symbols, too: Debian's packages have none.
    let build = ["deb", "--package", "netdiag", "--no-build", "--strip"];
    let package = command::output("cargo", &build)?;
    println!("{}", package.trim());
    Ok(())
}

/// Debian's changelog begins with the version that is packed, as dpkg and its users go by it.
fn has_entry() -> anyhow::Result<()> {
    let path = crate::root().join(CHANGELOG);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // All crates of the workspace have one version, this one too.
    let expected = concat!("netdiag (", env!("CARGO_PKG_VERSION"), "-1) ");
    ensure!(text.starts_with(expected), "{CHANGELOG} does not begin with `{expected}`");
    Ok(())
}

/// As Debian wants them. cargo-deb does so for pages that are committed, and takes what is among builds for programs.
fn compress_pages(folder: &Path) -> anyhow::Result<()> {
    let mut line = vec!["--best".to_owned(), "--no-name".to_owned()];
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        line.push(entry?.path().to_string_lossy().into_owned());
    }
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    command::run("gzip", &line)
}

/// What the binary tells of itself, as files.
pub(crate) fn make_assets(netdiag: &Path, folder: &Path) -> anyhow::Result<()> {
    let program = netdiag.to_str().context("the target folder's path is not UTF-8")?;
    // Nor a page of a command that there is no more.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let pages = folder.join("man");
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    let pages = pages.to_str().context("the target folder's path is not UTF-8")?;
    command::run(program, &["man", "--out", pages])?;
    for (shell, name) in COMPLETIONS {
        let script = command::output(program, &["completions", shell])?;
        let path = folder.join(name);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
