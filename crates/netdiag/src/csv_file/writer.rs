//! The writer: appends whole rows, repairs what a crash left, rotates in bounded memory.
//!
//! Invariants: a row reaches the file in one `write`, or not at all (a part of it is cut off again), so a process killed
//! at any moment leaves complete rows and at most one torn line, which the next writer cuts off; only one writer has
//! the file at a time; the path always names a complete file, because rotation renames over it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netdiag_telemetry::{Row, csv};
use rustix::fs::{FlockOperation, flock};

use crate::failure::UsageError;

/// Rows beyond `--max-samples` before the file is rewritten: an eighth, so that each row is copied about eight times in
/// its life, and at least this many.
const LEAST_SLACK: u64 = 64;

/// An open `net_data.csv`.
#[derive(Debug)]
pub(crate) struct CsvWriter {
    path: PathBuf,
    file: File,
    /// Bytes of complete lines.
    length: u64,
    rows: u64,
    max_rows: Option<u64>,
    /// Rotate when the file has this many rows; moves on when rotating fails.
    rotate_at: u64,
}

impl CsvWriter {
    /// Opens or creates the file, and repairs it. `max_rows` keeps the newest that many (and up to an eighth more).
    ///
    /// A file of another kind, or one that another process writes, is a mistake of the caller's.
    pub(crate) fn open(path: &Path, max_rows: Option<u64>) -> anyhow::Result<Self> {
        let file = open_locked(path)?;
        // Left by a writer that was killed while rotating; we have the lock, so it is nobody's.
        let _ = fs::remove_file(temporary(path));
        let read = |what: &str| format!("cannot {what} {}", path.display());
        let (length, rows) = check(path, &file)?;
        if length < file.metadata().with_context(|| read("examine"))?.len() {
            tracing::warn!("{} ended in a torn line, which was cut off", path.display());
            file.set_len(length).with_context(|| read("repair"))?;
        }
        let mut writer = Self {
            path: path.to_owned(),
            file,
            length,
            rows,
            max_rows,
            rotate_at: max_rows.map_or(u64::MAX, |max| max.saturating_add(slack(max))),
        };
        if length == 0 {
            writer.append_line(&csv::header())?;
        }
        Ok(writer)
    }

    /// Appends a row. After an error the file holds the rows before it, whole.
    pub(crate) fn append(&mut self, row: &Row) -> anyhow::Result<()> {
        self.append_line(&csv::format_row(row))?;
        self.rows += 1;
        if self.rows > self.rotate_at
            && let Some(max) = self.max_rows
            && let Err(error) = self.rotate(max)
        {
            // The rows are safe where they are; try again when as many have come.
            self.rotate_at = self.rows.saturating_add(slack(max));
            tracing::warn!("cannot shorten {}: {error}; it grows on", self.path.display());
        }
        Ok(())
    }

    fn append_line(&mut self, line: &str) -> anyhow::Result<()> {
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Part of the line may be there. If even this fails, the next writer repairs it.
            let _ = self.file.set_len(self.length);
            let path = self.path.display();
            return Err(error).with_context(|| {
                format!("cannot write to {path}: the rows so far are kept; free some space or choose another --csv")
            });
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Rewrites the file with its newest `max` rows.
    fn rotate(&mut self, max: u64) -> io::Result<()> {
        let temporary = temporary(&self.path);
        let result = self.rotate_into(&temporary, max);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn rotate_into(&mut self, temporary: &Path, max: u64) -> io::Result<()> {
        let skip = self.rows.saturating_sub(max);
        let mut old = BufReader::new(File::open(&self.path)?);
        let mut header = Vec::new();
        old.read_until(b'\n', &mut header)?;
        for _ in 0..skip {
            old.skip_until(b'\n')?;
        }
        let mut new = OpenOptions::new().append(true).create_new(true).open(temporary)?;
        new.set_permissions(self.file.metadata()?.permissions())?;
        // Locked before it gets the name, so that no other writer ever finds it free.
        flock(&new, FlockOperation::NonBlockingLockExclusive)?;
        new.write_all(&header)?;
        let copied = io::copy(&mut old, &mut new)?;
        new.sync_all()?;
        fs::rename(temporary, &self.path)?;
        (self.file, self.length, self.rows) = (new, header.len() as u64 + copied, self.rows - skip);
        self.rotate_at = max.saturating_add(slack(max));
        Ok(())
    }
}

fn slack(max_rows: u64) -> u64 {
    (max_rows / 8).max(LEAST_SLACK)
}

/// Beside the file, because a rename must not cross file systems.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".rotating");
    path.with_file_name(name)
}

/// Opens the file for this process alone.
fn open_locked(path: &Path) -> anyhow::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(
            |error| {
                UsageError::because(
                    format!("--csv {}: cannot be opened for writing", path.display()),
                    error,
                )
            },
        )?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!(
                "--csv {}: another netdiag writes to it; choose another file",
                path.display()
            );
            return Err(UsageError::new(message).into());
        }
        // Between opening and locking, its writer may have put another file in its place.
        let (ours, named) = (file.metadata()?, fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// How many bytes of the file are complete lines, and how many of them are rows. Refuses a file that is not ours.
fn check(path: &Path, file: &File) -> anyhow::Result<(u64, u64)> {
    let unreadable = || format!("cannot read {}", path.display());
    if !file.metadata().with_context(unreadable)?.is_file() {
        return Err(UsageError::new(format!("--csv {}: not a regular file", path.display())).into());
    }
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0)).with_context(unreadable)?;
    let ours = csv::header();
    let mut header = Vec::new();
    // A foreign file may be one line without end.
    (&mut reader)
        .take(ours.len() as u64 * 4)
        .read_until(b'\n', &mut header)
        .with_context(unreadable)?;
    if !header.ends_with(b"\n") && ours.as_bytes().starts_with(&header) {
        return Ok((0, 0)); // empty, or killed while writing its first line
    }
    csv::check_header(&String::from_utf8_lossy(&header)).map_err(|error| {
        let message = format!("--csv {}: not written by this version of netdiag", path.display());
        UsageError::because(message, format!("{error}; move it away or choose another file"))
    })?;
    let (mut length, mut rows) = (header.len() as u64, 0);
    loop {
        let mut line = 0;
        let complete = loop {
            let buffer = reader.fill_buf().with_context(unreadable)?;
            if buffer.is_empty() {
                break false;
            }
            let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let used = end.unwrap_or(buffer.len());
            line += used as u64;
            reader.consume(used);
            if end.is_some() {
                break true;
            }
        };
        if !complete {
            return Ok((length, rows));
        }
        length += line;
        rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netdiag_telemetry::{LinkSample, Rolling};

    use super::*;

    fn row(second: u64) -> Row {
        Row {
            sample: LinkSample {
                timestamp: Duration::from_secs(second),
                rtt: None,
                srtt: None,
                retrans_segs: 0,
                segs_out: Some(0),
                avg_cwnd: None,
                throughput_bps: Some(0.0),
                flows: Some(0),
                stalled_flows: Some(0),
                source: None,
            },
            rolling: Rolling::default(),
        }
    }

    fn seconds(path: &Path) -> Vec<u64> {
        let rows = csv::read_rows(&fs::read(path).expect("file")).expect("parses");
        rows.iter().map(|row| row.sample.timestamp.as_secs()).collect()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("net_data.csv");
        (folder, path)
    }

    #[test]
    fn a_restart_repairs_a_torn_line_and_appends() {
        let (_folder, path) = folder();
        let mut writer = CsvWriter::open(&path, None).expect("opens");
        writer.append(&row(1)).expect("writes");
        drop(writer);
        let whole = fs::read(&path).expect("file");
        let second = csv::format_row(&row(2));
        for cut in 0..second.len() {
            fs::write(&path, [&whole[..], &second.as_bytes()[..cut]].concat()).expect("torn");
            let mut writer = CsvWriter::open(&path, None).expect("opens");
            writer.append(&row(3)).expect("writes");
            assert_eq!(seconds(&path), [1, 3], "cut at {cut}");
        }
        // A header that was torn is as good as none.
        for cut in 0..csv::header().len() {
            fs::write(&path, &csv::header()[..cut]).expect("torn");
            CsvWriter::open(&path, None).expect("opens").append(&row(4)).expect("writes");
            assert_eq!(seconds(&path), [4], "cut at {cut}");
        }
    }

    #[test]
    fn the_newest_rows_are_kept() {
        let (_folder, path) = folder();
        let mut writer = CsvWriter::open(&path, Some(100)).expect("opens");
        for second in 0..1000 {
            writer.append(&row(second)).expect("writes");
            assert!(writer.rows <= 100 + LEAST_SLACK);
        }
        let kept = seconds(&path);
        assert!(kept.len() >= 100 && kept.last() == Some(&999));
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{kept:?}");
        assert!(!temporary(&path).exists());
        // The lock went along with the name.
        assert!(CsvWriter::open(&path, Some(100)).is_err());
        drop(writer);
        assert_eq!(CsvWriter::open(&path, Some(100)).expect("opens").rows, kept.len() as u64);
    }

    #[test]
    fn foreign_files_and_second_writers_are_refused() {
        let (folder, path) = folder();
        let refused = |path: &Path| {
            let error = CsvWriter::open(path, None).expect_err("refused");
            assert!(error.is::<UsageError>());
            crate::failure::chain(&error)
        };
        fs::write(&path, "timestamp,label\n1,2\n").expect("file");
        let error = refused(&path);
        assert!(error.contains("column 2 is `label`, expected `min_rtt_us`"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("file"), "timestamp,label\n1,2\n", "untouched");
        let ours = folder.path().join("ours.csv");
        let _writer = CsvWriter::open(&ours, None).expect("opens");
        assert!(refused(&ours).contains("another netdiag writes to it"));
        assert!(refused(&folder.path().join("no/such/folder.csv")).contains("no/such/folder.csv"));
        assert!(refused(Path::new("/dev/null")).contains("not a regular file"));
    }

    #[test]
    fn a_full_disk_leaves_whole_rows() {
        // The kernel's own full disk: every write to it is ENOSPC.
        let (_folder, path) = folder();
        let mut writer = CsvWriter::open(&path, None).expect("opens");
        writer.append(&row(1)).expect("writes");
        writer.file = OpenOptions::new().append(true).open("/dev/full").expect("device");
        let error = format!("{:#}", writer.append(&row(2)).expect_err("full"));
        assert!(error.contains("net_data.csv") && error.contains("No space left"), "{error}");
        assert_eq!(seconds(&path), [1]);
    }
}
