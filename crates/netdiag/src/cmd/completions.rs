//! `netdiag completions`: what a shell completes for `netdiag`.
//!
//! Made from the very definition that the command line is parsed by, so that it cannot be of another version.

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use crate::output;

/// Print what a shell needs to complete commands and flags
///
/// For bash, in ~/.bashrc: `source <(netdiag completions bash)`. For zsh: `netdiag completions zsh > DIR/_netdiag`, with DIR
/// in $fpath. For fish: `netdiag completions fish > ~/.config/fish/completions/netdiag.fish`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell: bash, elvish, fish, powershell or zsh.
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

/// Prints the script for `definition`.
pub(crate) fn run(args: &Args, mut definition: Command) -> anyhow::Result<()> {
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    output::print(&String::from_utf8(script).context("the script is not UTF-8")?)
}
