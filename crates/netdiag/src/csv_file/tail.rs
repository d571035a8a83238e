//! Following a CSV that somebody else writes: growing, rotated, truncated, replaced, gone and back.
//!
//! Polled, because what is followed is a path and not a file, and a poll is one `stat` and one `read`. A file that is not
//! the one of the last poll any more is read from its beginning; if it continues what was seen (a rotation keeps the
//! newest rows), the rows seen before are left out.
//!
//! Invariants: rows come out once each, in the order of the file; memory is bounded whatever the file's size; nothing
//! that happens to the file ends the following.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use netdiag_telemetry::Row;
use netdiag_telemetry::csv::{CsvError, RowDecoder};

/// Rows that one poll returns at most, the newest ones: an hour at the usual pace for who shows them, plenty for every window,
/// bounded for a file of any size.
const MOST_ROWS: usize = 8192;

/// Of a file met for the first time, only this many bytes at its end are decoded: several times what [`MOST_ROWS`] take,
/// and decoded in some forty milliseconds.
const RECENT_BYTES: u64 = 4 << 20;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Bytes before the place reached that are compared before reading on. A file that was truncated and has grown past that
/// place differs there: this much holds a whole timestamp.
const MARK: usize = 64;

/// Follows one path.
#[derive(Debug)]
pub(crate) struct CsvTail {
    path: PathBuf,
    open: Option<Open>,
    /// The last row that came out.
    last: Option<Row>,
}

/// What a poll found.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    /// New rows, the newest last.
    pub(crate) rows: Vec<Row>,
    /// The first thing that was wrong in the lines read; the rows around it are in `rows`.
    pub(crate) error: Option<CsvError>,
    /// Whether there is a file at the path.
    pub(crate) present: bool,
    /// The rows were in a file that was met for the first time and does not continue the one before, so nobody knows
    /// since when: they are as old as their timestamps say, not as new as this poll.
    pub(crate) backlog: bool,
}

impl CsvTail {
    /// Follows `path`, which need not exist yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, last: None }
    }

    /// Reads what has come since the last poll; the first poll reads what is there.
    pub(crate) fn poll(&mut self) -> io::Result<Poll> {
        let mut found = Found::default();
        if let Some(mut open) = self.open.take() {
            let intact = open.is_intact()?;
            if intact {
                // Also what came before a rename took the file's name away.
                open.read(&mut found)?;
                self.last = found.rows.back().copied().or(self.last);
            }
            if intact && identity(&self.path)? == Some(open.identity) {
                self.open = Some(open);
                return Ok(found.into_poll(true, false));
            }
        }
        let Some(mut open) = Open::at(&self.path)? else {
            return Ok(found.into_poll(false, false));
        };
        let mut fresh = Found::default();
        open.read(&mut fresh)?;
        self.open = Some(open);
        let continues = self.leave_out_seen(&mut fresh.rows);
        self.last = fresh.rows.back().copied().or(self.last);
        let backlog = !continues && found.rows.is_empty();
        found.append(fresh);
        Ok(found.into_poll(true, backlog))
    }

    /// Whether `rows`, from the beginning of a file, continue those that came out before; if so, leaves these out. A file
    /// that has neither the last row nor newer ones is another recording, and all of it is new.
    fn leave_out_seen(&self, rows: &mut VecDeque<Row>) -> bool {
        let Some(last) = self.last else { return false };
        let newer = |row: &Row| row.sample.timestamp > last.sample.timestamp;
        // The row itself is the better evidence: the clock that gave the timestamps may have been set back.
        if let Some(at) = rows.iter().rposition(|row| *row == last) {
            rows.drain(..=at);
        } else if rows.iter().any(newer) {
            rows.retain(newer);
        } else {
            return false;
        }
        true
    }
}

/// What was read.
#[derive(Default)]
struct Found {
    rows: VecDeque<Row>,
    error: Option<CsvError>,
}

impl Found {
    fn take(&mut self, row: Result<Row, CsvError>) {
        match row {
            Ok(row) => {
                if self.rows.len() == MOST_ROWS {
                    self.rows.pop_front();
                }
                self.rows.push_back(row);
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn append(&mut self, later: Self) {
        for row in later.rows {
            self.take(Ok(row));
        }
        self.error = self.error.take().or(later.error);
    }

    fn into_poll(self, present: bool, backlog: bool) -> Poll {
        Poll { rows: self.rows.into(), error: self.error, present, backlog }
    }
}

/// The file at the path, and how far it was read.
#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// The last bytes before `offset`.
    mark: Vec<u8>,
    /// Up to here, rows are too old to matter.
    decode_from: u64,
    decoder: RowDecoder,
}

impl Open {
    fn at(path: &Path) -> io::Result<Option<Self>> {
        // Asked before opening: to open a pipe is to wait for its writer.
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let kind = io::ErrorKind::IsADirectory;
                return Err(io::Error::new(
                    kind,
                    "a directory and not a file; give the file's path",
                ));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(io::Error::other("not a regular file; give the path of one"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        Ok(Some(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            offset: 0,
            mark: Vec::new(),
            decode_from: metadata.len().saturating_sub(RECENT_BYTES),
            decoder: RowDecoder::default(),
        }))
    }

    /// Whether the file still is what was read of it: not truncated, nor truncated and grown again.
    fn is_intact(&self) -> io::Result<bool> {
        let mut mark = [0; MARK];
        let mark = &mut mark[..self.mark.len()];
        match self.file.read_exact_at(mark, self.offset - self.mark.len() as u64) {
            Ok(()) => Ok(mark == self.mark),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, found: &mut Found) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            let bytes = &chunk[..length];
            self.offset += length as u64;
            if self.offset <= self.decode_from {
                if let Err(error) = self.decoder.skip(bytes) {
                    found.take(Err(error));
                }
            } else {
                self.decoder.push(bytes, |row| found.take(row));
            }
            self.mark.extend_from_slice(&bytes[length.saturating_sub(MARK)..]);
            self.mark.drain(..self.mark.len().saturating_sub(MARK));
        }
    }
}

/// Which file the path names, if any.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
