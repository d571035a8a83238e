//! `cargo xtask test documents`: the commands in documents for operators, run as they stand.
//!
//! All blocks of a document go into one shell, in order, as a reader would type them: in an empty folder, with our binaries on the
//! path, and in a network namespace of its own, so that default ports are free and nothing is reached but loopback. Invariant: every
//! block marked `sh` is run or told as skipped, and no process outlives its document.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::command;

/// Those that say so of themselves.
const DOCUMENTS: [&str; 3] = ["docs/operate.md", "docs/secure.md", "docs/troubleshoot.md"];

/// What the commands need besides us.
const TOOLS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("nats-server", "nats-server"),
];

/// Each takes some twenty seconds, most of them waiting for things to become stale.
const LONGEST: &str = "180s";

/// Lines of output that are shown of a document that failed.
const LAST: usize = 30;

/// Before the blocks: stop at the first that fails, show each, and have a loopback.
const PREAMBLE: &str = "set -eu\nip link set lo up\nPS4='+ '\nset -x\n";

/// Where a block can be run, by what stands behind ` ```sh `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// Anywhere.
    Here,
    /// As root only.
    Root,
    /// On a host with a service manager, an engine for containers or a cluster: only its syntax is looked at here.
    Host,
}

pub(super) fn run() -> anyhow::Result<()> {
    command::ensure_debian(&TOOLS)?;
    command::run("cargo", &["build", "--quiet", "--package", "netdiag"])?;
    let demo = ["build", "--quiet", "--package", "netdiag-lab", "--example", "demo_engine"];
    command::run("cargo", &demo)?;
    // Where another user can run them, which the target folder may not be.
    let binaries = open_folder()?;
    let built = crate::target_directory().join("debug");
    for (name, path) in [("netdiag", "netdiag"), ("demo_engine", "examples/demo_engine")] {
        fs::copy(built.join(path), binaries.path().join(name)).with_context(|| path.to_owned())?;
    }
    let root = command::is_root();
    let namespaces: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let apart =
        [namespaces, &["--net", "--pid", "--mount-proc", "--fork", "--kill-child"]].concat();
    let possible = Command::new("unshare").args(&apart).arg("true").stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!(
            "skipped: commands in documents (no namespaces: not root, and users may make none)"
        );
        return Ok(());
    }
    for document in DOCUMENTS {
        let text = fs::read_to_string(crate::root().join(document)).context(document)?;
        let found = blocks(&text);
        let of = |place| found.iter().filter(move |(there, _)| *there == place).count();
        ensure!(of(Where::Here) > 0, "{document} has no block of commands");
        syntax(&script(&found, |place| place == Where::Host), document)?;
        if !root && of(Where::Root) > 0 {
            println!("skipped: {} blocks of {document} (not root)", of(Where::Root));
        }
        let wanted = |place| place == Where::Here || root && place == Where::Root;
        perform(&script(&found, wanted), document, &apart, binaries.path())?;
        println!("{document}: {} blocks run", found.iter().filter(|(p, _)| wanted(*p)).count());
    }
    Ok(())
}

/// The blocks of shell commands.
fn blocks(text: &str) -> Vec<(Where, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<Option<(Where, String)>> = None;
    for line in text.lines() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if let Some(Some((_, block))) = &mut open {
                block.push_str(line);
                block.push('\n');
            }
            continue;
        };
        open = match open {
            Some(block) => {
                blocks.extend(block);
                None
            }
            None => {
                let place = match info.trim() {
                    "sh" => Some(Where::Here),
                    "sh root" => Some(Where::Root),
                    "sh host" => Some(Where::Host),
                    _ => None,
                };
                Some(place.map(|place| (place, String::new())))
            }
        };
    }
    blocks
}

fn script(blocks: &[(Where, String)], wanted: impl Fn(Where) -> bool) -> String {
    blocks.iter().filter(|(place, _)| wanted(*place)).map(|(_, block)| &**block).collect()
}

/// What can be said of commands without running them.
fn syntax(script: &str, document: &str) -> anyhow::Result<()> {
    let status = Command::new("bash").args(["-n", "-c", script]).status().context("bash")?;
    ensure!(status.success(), "{document}: a block marked `sh host` is not the shell's language");
    Ok(())
}

fn perform(script: &str, document: &str, apart: &[&str], binaries: &Path) -> anyhow::Result<()> {
    let folder = open_folder()?;
    let log = folder.path().join("output");
    let output = File::create(&log)?;
    let place = folder.path().join("here");
    fs::create_dir(&place)?;
    fs::set_permissions(&place, Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("timeout")
        .args(["--kill-after=5s", LONGEST, "unshare"])
        .args(apart)
        .args(["bash", "-c", &format!("{PREAMBLE}{script}")])
        .env("PATH", format!("{}:{path}", binaries.display()))
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("cannot run `timeout`")?;
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LAST)) {
            println!("    {line}");
        }
        bail!("a command in {document} failed ({status}); above is what the last ones said");
    }
    Ok(())
}

/// A folder that other users can look into.
fn open_folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_by_their_marks() {
        let text = "a\n```sh\none\ntwo\n```\n```ini\n[x]\n```\n```sh root\nthree\n```\n```\nfour\n```\n```sh host\nfive\n```\n";
        let of = |place, text: &str| (place, text.to_owned());
        let expected =
            [of(Where::Here, "one\ntwo\n"), of(Where::Root, "three\n"), of(Where::Host, "five\n")];
        assert_eq!(blocks(text), expected);
        assert_eq!(script(&expected, |place| place != Where::Root), "one\ntwo\nfive\n");
        assert_eq!(blocks("```sh\nnever closed\n"), []);
    }

    #[test]
    fn syntax_is_looked_at() {
        assert!(syntax("if true; then echo; fi", "x").is_ok());
        assert!(syntax("if true; then", "x").is_err());
    }
}
