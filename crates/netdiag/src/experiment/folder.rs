//! The folder that an experiment writes into: looked at before a minute is spent, filled all at once after it.
//!
//! Invariants: what cannot be written is found out before the run, as far as that can be known; nothing of the folder changes
//! unless all files could be written; and a folder that was made for a run which came to nothing is gone again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::conditions::Policy;
use crate::failure::UsageError;
use crate::replace::Staged;

/// All files that a run may leave there. The first ones are put in place first: of all that could go wrong with the rest, nothing
/// shall cost the figures.
pub(super) const SUMMARY: &str = "summary.json";
pub(super) const LINK: &str = "net_data.csv";
pub(super) const HINTS: &str = "hints.csv";
pub(super) const TOKENS: &str = "tokens.csv";
pub(super) const PICTURE: &str = "timeline.png";
pub(super) const REPORT: &str = "report.html";

/// The recording of an arm that is not the last one.
pub(super) fn link_of(arm: &str) -> String {
    format!("{arm}.{LINK}")
}

/// A folder for results.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Those that were not there, the outermost first.
    made: Vec<PathBuf>,
}

/// What to write into a file.
pub(super) type Content<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

impl Folder {
    /// Makes sure that the results can be written into `path`, which is made if it is not there. `place` is where that was said.
    pub(crate) fn prepare(path: &Path, place: &str) -> Result<Self, UsageError> {
        let cannot = |what: String, error: io::Error| {
            UsageError::new(format!("{place}: {what}: {error}; name a folder that can be written"))
        };
        let missing = path
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        made.reverse();
        fs::create_dir_all(path).map_err(|error| cannot("cannot be made".to_owned(), error))?;
        let folder = Self { path: path.to_owned(), made };
        for name in [SUMMARY, LINK, HINTS, TOKENS, PICTURE, REPORT] {
            stage(&folder.path.join(name))
                .map_err(|error| cannot(format!("{name} cannot be written"), error))?;
        }
        Ok(folder)
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.path.join(REPORT)
    }

    /// Writes `files`, in this order, and removes what an earlier run left that this one has not.
    pub(super) fn write(&self, files: &[(String, Content<'_>)]) -> anyhow::Result<()> {
        let path = |name: &str| self.path.join(name);
        let cannot = |name: &str| format!("cannot write {}", path(name).display());
        let mut staged = Vec::new();
        for (name, write) in files {
            let new = stage(&path(name))
                .and_then(|new| {
                    new.write(|file| {
                        let mut buffered = io::BufWriter::new(file);
                        write(&mut buffered)?;
                        buffered.flush()
                    })
                })
                .with_context(|| cannot(name))?;
            staged.push((name.as_str(), new));
        }
        let mut replaced: Vec<&str> = Vec::new();
        for (name, staged) in staged {
            staged.replace().with_context(|| match replaced.is_empty() {
                true => cannot(name),
                false => format!("{}; new already: {}", cannot(name), replaced.join(", ")),
            })?;
            replaced.push(name);
        }
        let recordings = Policy::ALL.map(|policy| link_of(policy.name()));
        for stale in recordings.into_iter().chain([PICTURE.to_owned()]) {
            if !replaced.contains(&stale.as_str()) {
                match fs::remove_file(path(&stale)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| {
                            let left = path(&stale);
                            format!("cannot remove {} of an earlier run", left.display())
                        });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// [`Staged::create`], whose complaint may name a temporary file that says nothing to anybody.
fn stage(path: &Path) -> io::Result<Staged> {
    Staged::create(path).map_err(|error| {
        let told = error.to_string();
        let reason = told.split_once(" at path ").map_or(told.as_str(), |(reason, _)| reason);
        io::Error::new(error.kind(), reason.to_owned())
    })
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Refused for one that has something in it.
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &'static str) -> (String, Content<'static>) {
        (name.to_owned(), Box::new(move |to| to.write_all(text.as_bytes())))
    }

    fn prepare(path: &Path) -> Result<Folder, String> {
        let place = format!("--out {}", path.display());
        Folder::prepare(path, &place).map_err(|error| error.to_string())
    }

    #[test]
    fn all_files_are_new_or_none_is() {
        let temporary = tempfile::tempdir().expect("folder");
        let path = temporary.path();
        let old = |name: &str| fs::read_to_string(path.join(name)).ok();
        for name in [REPORT, SUMMARY, PICTURE, "none.net_data.csv", "other.net_data.csv"] {
            fs::write(path.join(name), "old").expect("written");
        }
        let folder = prepare(path).expect("writable");
        let full: Content<'_> = Box::new(|_| Err(io::ErrorKind::StorageFull.into()));
        let failing = [text(SUMMARY, "new"), (REPORT.to_owned(), full)];
        let error = folder.write(&failing).expect_err("full").to_string();
        assert!(error.ends_with("report.html"), "{error}");
        assert_eq!((old(SUMMARY), old(REPORT)), (Some("old".into()), Some("old".into())));
        assert_eq!(fs::read_dir(path).expect("listed").count(), 5);
        folder.write(&[text(SUMMARY, "new"), text(REPORT, "new")]).expect("written");
        assert_eq!((old(SUMMARY), old(REPORT)), (Some("new".into()), Some("new".into())));
        // Of arms and a picture that this run has not; what is somebody else's stays.
        assert_eq!((old(PICTURE), old("none.net_data.csv")), (None, None));
        assert_eq!(old("other.net_data.csv"), Some("old".into()));
    }

    #[test]
    fn what_cannot_be_written_is_told_before_the_run() {
        let temporary = tempfile::tempdir().expect("folder");
        let path = temporary.path();
        let file = path.join("file");
        fs::write(&file, "").expect("written");
        for bad in [file.as_path(), &file.join("x"), Path::new("/dev/null/x"), Path::new("/proc")] {
            let told = prepare(bad).expect_err("refused");
            assert!(told.starts_with(&format!("--out {}", bad.display())), "{told}");
            assert!(!told.contains(".netdiag-"), "{told}");
        }
        fs::create_dir(path.join(REPORT)).expect("in the way");
        let told = prepare(path).expect_err("refused");
        assert!(told.contains("report.html cannot be written: not a regular file"), "{told}");
    }

    #[test]
    fn a_folder_that_came_to_nothing_is_gone_again() {
        let temporary = tempfile::tempdir().expect("folder");
        let path = temporary.path().join("a/b");
        drop(prepare(&path).expect("made"));
        assert!(!temporary.path().join("a").exists() && temporary.path().exists());
        let folder = prepare(&path).expect("made");
        folder.write(&[text(SUMMARY, "new")]).expect("written");
        drop(folder);
        assert!(path.join(SUMMARY).exists());
    }
}
