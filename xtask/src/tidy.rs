//! `cargo xtask tidy`: checks what no compiler checks, so that a reviewer need not.
//!
//! Each check is a function from what it looks at to a list of findings. A finding names the place and what to do.

mod dependencies;
mod documents;
mod layers;
mod links;
mod sources;

use std::fmt;
use std::fs;

use anyhow::{Context, bail};

use crate::command;

/// Something to mend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A file of the project.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Path from the root.
    path: String,
    /// Empty if it is no text, such as a picture: there is nothing to check in it then, but it can be pointed at.
    text: String,
}

/// Runs all checks and prints what they find.
pub(crate) fn run() -> anyhow::Result<()> {
    let files = text_files()?;
    let metadata = command::output("cargo", &["metadata", "--format-version=1", "--no-deps"])?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let mut findings = layers::check(&metadata);
    findings.extend(sources::check(&files));
    findings.extend(documents::check(&files));
    findings.extend(links::check(&files));
    findings.extend(dependencies::check(&metadata, &files));
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to mend", findings.len());
    }
    println!("tidy: {} files, no findings", files.len());
    Ok(())
}

/// Every file that git tracks or would track.
fn text_files() -> anyhow::Result<Vec<TextFile>> {
    // In continuous integration root looks at another user's checkout, which git takes for a trap unless told.
    let trust = "safe.directory=*";
    let list = ["-c", trust, "ls-files", "--cached", "--others", "--exclude-standard"];
    let list = command::output("git", &list)?;
    let read = |path: &str| {
        let bytes = fs::read(crate::root().join(path)).ok()?;
        Some(TextFile { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() })
    };
    Ok(list.lines().filter_map(read).collect())
}
