//! The number of files that this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
