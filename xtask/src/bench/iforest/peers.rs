//! Those who are measured, ours among them: each a process that waits for requests, the others in a Python environment.
//!
//! Invariant: a process ends with its [`Peer`], and whatever cannot be installed or started is an error with its reason,
//! never a silent gap.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

use super::{SAMPLES, TREES};
use crate::command;

/// Ourselves.
pub(super) const OURS: &str = "netdiag-iforest";

/// Each library with what is installed for it, of the series that was current when this was written.
pub(super) const LIBRARIES: [(&str, &[&str]); 3] = [
    ("scikit-learn", &["scikit-learn~=1.9"]),
    // It imports pandas and does not say so.
    ("isotree", &["isotree~=0.6", "pandas"]),
    ("coniferest", &["coniferest~=0.2"]),
];

/// A running process with its forest.
pub(super) struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a library, or ours, on the rows of `features` values in a file, and has it fit once.
    pub(super) fn start(library: &str, rows: &Path, features: usize) -> anyhow::Result<Self> {
        let mut command = match LIBRARIES.iter().find(|(name, _)| *name == library) {
            Some((name, packages)) => {
                let mut command = Command::new(command::python_with("bench-peers", packages)?);
                command.arg(crate::root().join("xtask/src/bench/iforest/peers.py")).arg(name);
                command
            }
            None => {
                let target = ["--example", "answers"];
                Command::new(crate::release_binary(OURS, &target, "examples/answers")?)
            }
        };
        command.arg(rows);
        command.args([features, TREES, SAMPLES].map(|number| number.to_string()));
        for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(variable, "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        let mut peer = Self { child, requests, answers };
        match peer.read()?.as_str() {
            "ready" => Ok(peer),
            other => bail!("it said {other:?} instead of being ready"),
        }
    }

    /// Asks for a figure; see `peers.py`.
    pub(super) fn ask(&mut self, request: &str) -> anyhow::Result<f64> {
        let requests = self.requests.as_mut().context("no input")?;
        writeln!(requests, "{request}").context("it has ended")?;
        let answer = self.read()?;
        answer.parse().with_context(|| format!("{answer:?} is no answer to {request}"))
    }

    fn read(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("it ended without an answer; its own message stands above");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}
