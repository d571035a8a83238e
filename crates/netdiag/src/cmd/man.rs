//! `netdiag man`: the manual pages, a page for each command.
//!
//! Made from the very definition that the command line is parsed by, as `--help` is, so that the two say the same.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use crate::failure::UsageError;
use crate::replace::replace;
use crate::terminal::say;

/// Write the manual pages into a folder
///
/// netdiag.1, and netdiag-COMMAND.1 for each command. `man -l DIR/netdiag-up.1` shows one; in DIR/man1 of a folder that `manpath`
/// names they are found by their names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the pages into this folder.
    ///
    /// It must exist; pages that are there are replaced. Default: the present folder.
    #[arg(
        long,
        value_name = "DIR",
        env = "NETDIAG_OUT",
        default_value = ".",
        help_heading = "Output"
    )]
    out: PathBuf,
}

/// Writes the pages of `definition`.
pub(crate) fn run(args: &Args, mut definition: Command) -> anyhow::Result<()> {
    if !args.out.is_dir() {
        let why =
            format!("--out {}: no such folder; make it, or choose another", args.out.display());
        return Err(UsageError::new(why).into());
    }
    // clap's `netdiag help` has no page of its own: it shows those of others.
    definition = definition.disable_help_subcommand(true);
    // Names of commands in full, and flags of every command in each.
    definition.build();
    let mut pages = 1;
    page(&args.out, definition.get_name().to_owned(), definition.clone())?;
    for command in definition.get_subcommands() {
        page(
            &args.out,
            format!("{}-{}", definition.get_name(), command.get_name()),
            command.clone(),
        )?;
        pages += 1;
    }
    say(&format!("netdiag: {pages} pages written to {}", args.out.display()));
    Ok(())
}

fn page(folder: &Path, name: String, command: Command) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.1"));
    let mut text = Vec::new();
    let page = Man::new(command)
        .title(name.to_uppercase())
        // Quotes keep the place of a date that is empty, or the version is read as one. A build's own would make builds differ.
        .date("\"\"")
        .source(concat!("netdiag ", env!("CARGO_PKG_VERSION")));
    page.render(&mut text).context("cannot make a manual page")?;
    replace(&path, |file| file.write_all(&text))
        .with_context(|| format!("cannot write {}", path.display()))
}
