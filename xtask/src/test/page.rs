//! The dashboard's page: its logic under `node --test`, and what its tests in a browser need, from npm at the versions that are
//! locked. The page itself has no dependencies and no build step.

use std::fs;

use anyhow::ensure;

use crate::command;

/// The package that the page and its tests are in.
const PACKAGE: &str = "crates/netdiag-dashboard";

/// What Playwright asks for.
const NODE: u32 = 20;

/// Node.js and its package manager, by the Debian packages that hold them.
const TOOLS: [(&str, &str); 2] = [("node", "nodejs"), ("npm", "npm")];

pub(super) fn run() -> anyhow::Result<()> {
    fetch_tools()?;
    command::run("node", &["--test", "--test-reporter=dot", &format!("{PACKAGE}/tests/page/")])
}

/// Fetches what the browser tests need, unless it is there already.
pub(crate) fn fetch_tools() -> anyhow::Result<()> {
    command::ensure_debian(&TOOLS)?;
    let version = command::output("node", &["--version"])?;
    ensure!(
        major(&version) >= Some(NODE),
        "node is {}, and the page's tests need {NODE} or later: install a newer Node.js",
        version.trim()
    );
    let package = crate::root().join(PACKAGE);
    // npm keeps a copy of the lock file beside what it has installed, without the root's own entry.
    let installed = fs::read_to_string(package.join("node_modules/.package-lock.json"));
    let wanted = fs::read_to_string(package.join("package-lock.json"))?;
    if installed.is_ok_and(|installed| is_of(&installed, &wanted)) {
        return Ok(());
    }
    command::run("npm", &["ci", "--prefix", PACKAGE, "--no-audit", "--no-fund", "--loglevel=error"])
}

/// The first number of `v20.1.2`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Whether every package of the lock file `wanted` is installed as it says.
fn is_of(installed: &str, wanted: &str) -> bool {
    let hashes = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| line.starts_with("\"integrity\"")).map(str::to_owned).collect()
    };
    let wanted = hashes(wanted);
    !wanted.is_empty() && hashes(installed) == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_first_number() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("20"), None);
    }

    #[test]
    fn what_is_installed_is_told_by_its_hashes() {
        let lock = "{\n \"integrity\": \"sha512-a\",\n \"integrity\": \"sha512-b\"\n}";
        assert!(is_of(lock, lock));
        assert!(!is_of(&lock.replace("-b", "-c"), lock));
        assert!(!is_of("{}", lock) && !is_of("{}", "{}"));
    }
}
