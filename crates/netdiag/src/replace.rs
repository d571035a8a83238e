//! Writing files that others read: a path names the old content or the new one, never half of it.
//!
//! Of several files that belong together, each is [staged](Staged) before the first is put in place, so that one that cannot be
//! written leaves all of them as they were.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::UsageError;
use crate::place::Places;

/// New content beside the file that it is to replace; gone if it is dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: NamedTempFile,
    target: PathBuf,
}

impl Staged {
    /// A place beside `path` to write what is to replace it. Fails where that could not be.
    ///
    /// A new file is readable by all, as far as the umask allows; an existing one keeps its mode.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // Through a link, so that the link stays one; beside the file, because a rename must not cross file systems.
        let target = resolved(path);
        let old = target.metadata().ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            // A rename would put a file where the device or the socket was.
            return Err(io::Error::other("not a regular file"));
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        folder.metadata().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let folder = folder.display();
                io::Error::other(format!(
                    "there is no folder {folder}; make it, or give another path"
                ))
            }
            _ => error,
        })?;
        let mode = old.map_or(0o666, |old| old.permissions().mode() & 0o777);
        let temporary = tempfile::Builder::new()
            .prefix(".netdiag-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            // Without the name that it would have had, which says nothing to anybody.
            .map_err(|error| io::Error::from(error.kind()))?;
        Ok(Self { temporary, target })
    }

    /// Writes what is to replace the file, safe on the disk.
    pub(crate) fn write(
        mut self,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        write(self.temporary.as_file_mut())?;
        self.temporary.as_file().sync_all()?;
        Ok(self)
    }

    /// Puts it in place.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.temporary.persist(&self.target)?;
        Ok(())
    }
}

/// Refuses outputs that could not be written at the end of all the work. Each path with its flag's name.
pub(crate) fn check_writable(files: &[(&str, &Path)], places: &Places) -> Result<(), UsageError> {
    files.iter().try_for_each(|(id, path)| {
        let staged = Staged::create(path).map(drop);
        staged.map_err(|error| UsageError::because(places.named(id, path.display()), error))
    })
}

/// Replaces `path` by what `write` writes; if that fails, the old file stays as it was.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    Staged::create(path)?.write(write)?.replace()
}

/// Refuses two names of one file: an output would replace an input, or another output. Each path with its flag's name.
pub(crate) fn check_distinct(files: &[(&str, &Path)], places: &Places) -> Result<(), UsageError> {
    for (index, (id, path)) in files.iter().enumerate() {
        for (other_id, other) in &files[..index] {
            if resolved(path) == resolved(other) {
                return Err(UsageError::new(format!(
                    "{} is the same file as {}; give each a file of its own",
                    places.named(id, path.display()),
                    places.named(other_id, other.display()),
                )));
            }
        }
    }
    Ok(())
}

/// The file that a path names, behind all links; it need not exist.
fn resolved(path: &Path) -> PathBuf {
    let absolute = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    };
    std::fs::canonicalize(path).ok().or_else(absolute).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let error = Staged::create(&folder.path().join("no/chart.png")).expect_err("no folder");
        let named = format!("there is no folder {}/no;", folder.path().display());
        assert!(error.to_string().starts_with(&named), "{error}");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("chart.png");
        replace(&path, |file| file.write_all(b"first")).expect("a new file");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        replace(&link, |file| file.write_all(b"second")).expect("replaced");
        replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        })
        .expect_err("the failure is told");
        assert_eq!(fs::read(&path).expect("there"), b"second");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
        replace(folder.path(), |file| file.write_all(b"a file")).expect_err("a folder stays one");
    }

    #[test]
    fn one_file_has_one_name() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::os::unix::fs::symlink(folder.path(), &link).expect("link");
        // Before it exists and after.
        assert_eq!(resolved(&link.join("file")), resolved(&file));
        fs::write(&file, "").expect("file");
        assert_eq!(resolved(&link.join("./file")), resolved(&file));
        assert_ne!(resolved(&folder.path().join("other")), resolved(&file));
        assert_eq!(resolved(Path::new("/no/such/folder/file")), Path::new("/no/such/folder/file"));
    }
}
