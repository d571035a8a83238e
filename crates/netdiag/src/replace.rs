//! Writing a file that others read: a path names the old content or the new one, never half of it.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Replaces `path` by what `write` writes; if that fails, the old file stays as it was.
///
/// A new file is readable by all, as far as the umask allows; an existing one keeps its mode.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // Through a link, so that the link stays one; beside the file, because a rename must not cross file systems.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mode = target.metadata().map_or(0o666, |metadata| metadata.permissions().mode() & 0o777);
    let mut temporary = tempfile::Builder::new()
        .prefix(".netdiag-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist(&target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

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
    }
}
