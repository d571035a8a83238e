//! How a command fails: which exit code, and how the error is told.
//!
//! Two kinds matter to a script: the caller's mistake (exit 2: the same call can never work) and a failure of the
//! world (exit 1: it may work tomorrow). A [`UsageError`] anywhere in the chain of causes makes it the former.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// A mistake of the caller's. The message names the value, where it came from and what to do instead.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UsageError {
    message: String,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl UsageError {
    /// A mistake that `message` says all about.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None }
    }

    /// A mistake that a library discovered; its error follows the message.
    pub(crate) fn because(
        message: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), cause: Some(cause.into()) }
    }
}

/// Tells the error on stderr and says which exit code it deserves.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // A closed stderr is no reason to panic, so the result is dropped.
    let _ = writeln!(std::io::stderr(), "netdiag: error: {}", chain(error));
    let usage = error.chain().any(|cause| cause.is::<UsageError>());
    ExitCode::from(if usage { 2 } else { 1 })
}

/// The error and its causes on one line. Many libraries repeat the cause in their own message; it is told once.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let message = cause.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if message.is_empty() || told.contains(&message) {
            continue;
        }
        if !told.is_empty() {
            told.push_str(": ");
        }
        told.push_str(&message);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_cause_is_told_once() {
        let io = std::io::Error::other("disk on fire");
        let error = Err::<(), _>(UsageError::because("cannot write x: disk on fire", io))
            .context("opening the output")
            .expect_err("an error");
        assert_eq!(chain(&error), "opening the output: cannot write x: disk on fire");
    }
}
