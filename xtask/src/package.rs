//! `cargo xtask package`: the Debian package, with completions and manual pages that the binary itself has made.
//!
//! cargo-deb's list of assets is in the manifest of the crate `netdiag`. Invariant: what is packed is of this checkout, since it is
//! made anew each time.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::command;

/// As for the other tools: the series that was current when this was written.
const CARGO_DEB: &str = "^3";

/// Where bash, zsh and fish look for what they complete: by these names.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "netdiag.bash"), ("zsh", "_netdiag"), ("fish", "netdiag.fish")];

/// Builds the package and says where it is.
pub(crate) fn run() -> anyhow::Result<()> {
    let netdiag = crate::release_binary("netdiag", &[], "netdiag")?;
    let assets = crate::target_directory().join("release/assets");
    make_assets(&netdiag, &assets)?;
    command::ensure_cargo_tool("deb", CARGO_DEB)?;
    let build = ["deb", "--package", "netdiag", "--no-build"];
    let package = command::output("cargo", &build)?;
    println!("{}", package.trim());
    Ok(())
}

/// What the binary tells of itself, as files.
pub(crate) fn make_assets(netdiag: &Path, folder: &Path) -> anyhow::Result<()> {
    let program = netdiag.to_str().context("the target folder's path is not UTF-8")?;
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
