//! The writer: appends whole rows, repairs what a crash left, rotates in bounded memory.
//!
//! Invariants: a row reaches the file in one `write`, or not at all (a part of it is cut off again), so a process killed
//! at any moment leaves complete rows and at most one torn line, which the next writer cuts off; only one writer has
//! the file at a time; the path always names a complete file, because rotation renames over it; a row is never written
//! where nobody will find it (a file that was deleted or moved).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netdiag_telemetry::{Row, csv};
use rustix::fs::{Gid, Uid, fchown};

use super::{lock, unusable};
use crate::failure::{UsageError, chain};

/// Rows beyond `--max-samples` before the file is rewritten: an eighth, so that each row is copied about eight times in
/// its life, and at least this many.
const LEAST_SLACK: u64 = 64;

/// An open `net_data.csv`.
#[derive(Debug)]
pub(crate) struct CsvWriter {
    path: PathBuf,
    file: File,
    /// Bytes of complete lines, which is all that the file holds between two calls.
    length: u64,
    rows: u64,
    max_rows: Option<u64>,
    /// Rotate when the file has more rows than this; moves on when rotating fails.
    rotate_at: u64,
}

/// The file system has no room for a row, or the quota none: it may have some later, and the writer goes on then.
#[derive(Debug)]
pub(crate) struct NoRoom(String);

impl std::error::Error for NoRoom {}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
impl NoRoom {
    pub(crate) fn for_test() -> Self {
        Self("full".to_owned())
    }
}

impl CsvWriter {
    /// Opens or creates the file, and repairs it. `max_rows` keeps the newest that many (and up to an eighth more).
    ///
    /// A file of another kind, or one that another process writes, is a mistake of the caller's.
    pub(crate) fn open(path: &Path, max_rows: Option<u64>) -> anyhow::Result<Self> {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(not_regular(path).into());
        }
        let file = lock::open_alone(path)?;
        let mut writer = Self {
            // Behind links: rotation must replace the file and not the link to it.
            path: fs::canonicalize(path).with_context(|| cannot("find", path))?,
            file,
            length: 0,
            rows: 0,
            max_rows,
            rotate_at: max_rows.map_or(u64::MAX, |max| max.saturating_add(slack(max))),
        };
        // Left by a writer that was killed while rotating; we have the lock, so it is nobody's.
        let _ = fs::remove_file(temporary(&writer.path));
        let stock = take_stock(&writer.path, &writer.file)?;
        stock.check_end(path, &writer.file)?;
        writer.repair(&stock)?;
        Ok(writer)
    }

    /// Appends a row. After an error the file holds the rows before it, whole, and the next one can be tried.
    pub(crate) fn append(&mut self, row: &Row) -> anyhow::Result<()> {
        self.stay_with_path()?;
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

    /// Cuts off a torn line, and writes the header of a new file.
    fn repair(&mut self, stock: &Stock) -> anyhow::Result<()> {
        (self.length, self.rows) = (stock.length, stock.rows);
        let metadata = self.file.metadata().with_context(|| cannot("examine", &self.path))?;
        if self.length < metadata.len() {
            tracing::warn!("{} ended in a torn line, which was cut off", self.path.display());
            self.file.set_len(self.length).with_context(|| cannot("repair", &self.path))?;
        }
        if self.length == 0 {
            self.append_line(&csv::header())?;
        }
        Ok(())
    }

    /// Somebody may delete, move, replace or truncate the file at any time; a look at it costs a microsecond.
    fn stay_with_path(&mut self) -> anyhow::Result<()> {
        let path = self.path.display();
        if !lock::names(&self.path, &self.file) {
            let opened = Self::open(&self.path, self.max_rows);
            *self = opened.map_err(|error| in_service(&error))?;
            // Only now: with a full disk it is tried again and again.
            tracing::warn!(
                "{} was deleted or moved; going on at the same path",
                self.path.display()
            );
        } else if self.file.metadata().is_ok_and(|metadata| metadata.len() != self.length) {
            tracing::warn!("{path} was changed by another program; rows go to its end");
            take_stock(&self.path, &self.file)
                .and_then(|stock| self.repair(&stock))
                .map_err(|error| in_service(&error))?;
        }
        Ok(())
    }

    fn append_line(&mut self, line: &str) -> anyhow::Result<()> {
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Part of the line may be there. If this fails too, the next call or the next writer repairs it.
            let _ = self.file.set_len(self.length);
            let kept = if self.rows > 0 { " (the rows so far are kept)" } else { "" };
            let path = self.path.display();
            let message =
                format!("cannot write to {path}{kept}; free some space or choose another --csv");
            let is_full = is_full(&error);
            let error = anyhow::Error::new(error);
            return Err(if is_full {
                error.context(NoRoom(message))
            } else {
                error.context(message)
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
        let mut old = BufReader::new(&self.file);
        old.seek(SeekFrom::Start(0))?;
        let mut header = Vec::new();
        old.read_until(b'\n', &mut header)?;
        for _ in 0..skip {
            old.skip_until(b'\n')?;
        }
        // Nobody else's to read until it has the permissions of the old one.
        let mut new = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        // Locked before it gets the name, so that no other writer ever finds it free. Where there are no locks, the
        // first one has said so.
        let _ = lock::lock(&new);
        new.write_all(&header)?;
        let copied = io::copy(&mut old, &mut new)?;
        let metadata = self.file.metadata()?;
        // Only root can give files away, and for others it is their own anyway.
        let owner = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        let _ = fchown(&new, Some(owner.0), Some(owner.1));
        new.set_permissions(metadata.permissions())?;
        new.sync_all()?;
        fs::rename(temporary, &self.path)?;
        (self.file, self.length, self.rows) = (new, header.len() as u64 + copied, self.rows - skip);
        self.rotate_at = max.saturating_add(slack(max));
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What went wrong when the file was opened or repaired again is not the caller's mistake any more, and a full disk passes there, too.
fn in_service(error: &anyhow::Error) -> anyhow::Error {
    let message = chain(error);
    let has_no_room =
        error.is::<NoRoom>() || error.chain().filter_map(|cause| cause.downcast_ref()).any(is_full);
    if has_no_room { NoRoom(message).into() } else { anyhow::anyhow!(message) }
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

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

fn not_regular(path: &Path) -> UsageError {
    UsageError::new(format!(
        "--csv {}: not a regular file; give the path of one, or `-` to write rows to standard output",
        path.display()
    ))
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default)]
struct Stock {
    /// Bytes of complete lines.
    length: u64,
    /// Complete lines below the header.
    rows: u64,
    /// Bytes of the last of them.
    last: u64,
}

impl Stock {
    /// Refuses a file that does not end in a row: whatever wrote there, it was not we.
    fn check_end(&self, path: &Path, file: &File) -> anyhow::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        // One byte more than a line may have is enough to see that it is too long.
        let length = self.last.min(csv::LONGEST_LINE as u64 + 1);
        let mut line = vec![0; length as usize];
        file.read_exact_at(&mut line, self.length - self.last)
            .with_context(|| cannot("read", path))?;
        csv::check_row(&line, self.rows + 1).map_err(|wrong| unusable("--csv", path, &wrong).into())
    }
}

/// Takes stock of a file. Refuses one that is not ours.
fn take_stock(path: &Path, file: &File) -> anyhow::Result<Stock> {
    let unreadable = || cannot("read", path);
    if !file.metadata().with_context(unreadable)?.is_file() {
        return Err(not_regular(path).into());
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
    if !header.ends_with(b"\n") && ours.as_bytes().starts_with(header.trim_ascii_end()) {
        return Ok(Stock::default()); // empty, or killed while writing its first line
    }
    csv::check_header(&String::from_utf8_lossy(&header)).map_err(|error| {
        let message = format!("--csv {}: not written by this version of netdiag", path.display());
        UsageError::because(message, format!("{error}; move it away or choose another file"))
    })?;
    let mut stock = Stock { length: header.len() as u64, rows: 0, last: 0 };
    let mut before = stock;
    loop {
        // Not `read_until`: a line may be as long as the disk is large.
        let line = reader.skip_until(b'\n').with_context(unreadable)? as u64;
        if line == 0 {
            break;
        }
        before = stock;
        stock = Stock { length: stock.length + line, rows: stock.rows + 1, last: line };
    }
    let mut end = [0];
    file.read_exact_at(&mut end, stock.length - 1).with_context(unreadable)?;
    Ok(if end == *b"\n" { stock } else { before })
}

#[cfg(test)]
mod tests;
