//! The number of files that this process may have open.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What every command can begin with: runtimes and signal handlers panic where there is no descriptor left for them.
const LEAST: u64 = 64;

/// Raises the limit, and fails where even that is too low to begin.
pub(crate) fn ensure_enough() -> anyhow::Result<()> {
    let limit = raise_limit();
    ensure!(
        limit >= LEAST,
        "open files are limited to {limit}, and {LEAST} are needed to begin: raise the limit (ulimit -n, LimitNOFILE)"
    );
    Ok(())
}

/// Raises the limit to what the administrator allows, because the usual 1024 are a shell's default, and says what it is then.
pub(crate) fn raise_limit() -> u64 {
    let mut files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        files = raised;
    }
    // Without a limit it is memory that ends them.
    files.current.unwrap_or(u64::MAX)
}
