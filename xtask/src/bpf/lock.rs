//! `netdiag.bpf.lock`: which sources, and which compiler, the committed BPF object comes from.
//!
//! Every C file and header of the folder has its line, so that a new header cannot be forgotten and a stale object can name
//! the file that changed. The format is lines of words, to be read in a diff.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// What to do when source and object disagree.
pub(super) const REMEDY: &str = "run `cargo xtask bpf` and commit the object with its lock file";

/// The content of a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lock {
    /// Names and digests of the sources, by name.
    sources: Vec<(String, String)>,
    /// Digest of the object.
    object: String,
    /// Version of the compiler.
    pub(super) clang: String,
}

impl Lock {
    /// The lock for the sources in a folder and an object that `clang` made of them.
    pub(super) fn of(folder: &Path, object: &[u8], clang: &str) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = fs::read(&path).with_context(|| path.display().to_string())?;
                sources.push((name, digest(&text)));
            }
        }
        sources.sort();
        Ok(Self { sources, object: digest(object), clang: clang.to_owned() })
    }

    /// Fails, naming the file, where `found` is not what this lock says.
    pub(super) fn compare(&self, found: &Self) -> anyhow::Result<()> {
        for (name, digest) in &found.sources {
            match self.sources.iter().find(|(known, _)| known == name) {
                None => bail!("{name} was added after the object was built: {REMEDY}"),
                Some((_, known)) => {
                    ensure!(known == digest, "{name} changed after the object was built: {REMEDY}");
                }
            }
        }
        let gone = |name: &str| !found.sources.iter().any(|(found, _)| found == name);
        if let Some((name, _)) = self.sources.iter().find(|(name, _)| gone(name)) {
            bail!("{name} was removed after the object was built: {REMEDY}");
        }
        ensure!(
            self.object == found.object,
            "the object is not the one that its lock file describes: {REMEDY}"
        );
        Ok(())
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Written by `cargo xtask bpf`: what the object was built from (SHA-256), and by what."
        )?;
        for (name, digest) in &self.sources {
            writeln!(f, "source {name} {digest}")?;
        }
        writeln!(f, "object {}", self.object)?;
        writeln!(f, "clang {}", self.clang)
    }
}

impl FromStr for Lock {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (mut sources, mut object, mut clang) = (Vec::new(), None, None);
        for (index, line) in text.lines().enumerate() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", ..] => {}
                ["source", name, digest] => sources.push((name.to_owned(), digest.to_owned())),
                ["object", digest] => object = Some(digest.to_owned()),
                ["clang", version] => clang = Some(version.to_owned()),
                _ => bail!("line {}: `{line}` is not understood: {REMEDY}", index + 1),
            }
        }
        Ok(Self {
            sources,
            object: object.with_context(|| format!("no `object` line: {REMEDY}"))?,
            clang: clang.with_context(|| format!("no `clang` line: {REMEDY}"))?,
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
