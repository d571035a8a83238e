//! Following a CSV that somebody else writes: growing, rotated, truncated, replaced, gone and back.
//!
//! Polled, because what is followed is a path and not a file, and a poll is one `stat`. Rows come out once each, in the
//! order of the file; after a rotation, which keeps the newest rows, those seen before are left out.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netdiag_telemetry::Row;
use netdiag_telemetry::csv::{CsvError, RowDecoder};

/// Rows that one poll returns at most, the newest ones: plenty for every window, bounded for a file of any size.
const MOST_ROWS: usize = 4096;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Follows one path.
#[derive(Debug)]
pub(crate) struct CsvTail {
    path: PathBuf,
    open: Option<Open>,
    /// Timestamp of the last row that came out.
    last: Option<Duration>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    decoder: RowDecoder,
}

/// What a poll found.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    /// New rows, the newest last.
    pub(crate) rows: Vec<Row>,
    /// The first thing that was wrong in the bytes read; the rows around it are in `rows`.
    pub(crate) error: Option<CsvError>,
    /// Whether there is a file at the path.
    pub(crate) present: bool,
}

impl CsvTail {
    /// Follows `path`, which need not exist yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, last: None }
    }

    /// Reads what has come since the last poll; the first poll reads the whole file.
    pub(crate) fn poll(&mut self) -> io::Result<Poll> {
        let named = match fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let identity = named.as_ref().map(|named| (named.dev(), named.ino()));
        let mut found = Found::default();
        if let Some(open) = &mut self.open {
            let truncated = open.file.metadata()?.len() < open.offset;
            if !truncated {
                open.read(&mut found)?;
            }
            if truncated || identity != Some(open.identity) {
                self.open = None;
            }
        }
        self.last = found.rows.back().map(timestamp).or(self.last);
        if let (None, Some(identity)) = (&self.open, identity) {
            let mut open = Open {
                file: File::open(&self.path)?,
                identity,
                offset: 0,
                decoder: RowDecoder::default(),
            };
            let mut fresh = Found::default();
            open.read(&mut fresh)?;
            self.open = Some(open);
            self.leave_out_seen(&mut fresh.rows);
            self.last = fresh.rows.back().map(timestamp).or(self.last);
            found.rows.append(&mut fresh.rows);
            found.error = found.error.or(fresh.error);
        }
        Ok(Poll { rows: found.rows.into(), error: found.error, present: identity.is_some() })
    }

    /// A file that continues the one before, as after a rotation, has rows up to the last one seen and perhaps newer
    /// ones. A file whose rows are all older is another recording, and new from its beginning.
    fn leave_out_seen(&self, rows: &mut VecDeque<Row>) {
        let Some(last) = self.last else { return };
        if rows.iter().any(|row| timestamp(row) >= last) {
            rows.retain(|row| timestamp(row) > last);
        }
    }
}

#[derive(Default)]
struct Found {
    rows: VecDeque<Row>,
    error: Option<CsvError>,
}

impl Open {
    fn read(&mut self, found: &mut Found) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            self.offset += length as u64;
            let rows = &mut found.rows;
            let decoded = self.decoder.push(&chunk[..length], |row| {
                if rows.len() == MOST_ROWS {
                    rows.pop_front();
                }
                rows.push_back(row);
            });
            if let Err(error) = decoded {
                found.error.get_or_insert(error);
            }
        }
    }
}

fn timestamp(row: &Row) -> Duration {
    row.sample.timestamp
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HEADER: &str = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n";

    fn lines(seconds: std::ops::Range<u64>) -> String {
        seconds.map(|second| format!("{second},20000,25000,0\n")).collect()
    }

    struct Followed {
        folder: tempfile::TempDir,
        path: PathBuf,
        tail: CsvTail,
    }

    impl Followed {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("followed.csv");
            let tail = CsvTail::new(&path);
            Self { folder, path, tail }
        }

        fn write(&self, text: impl AsRef<str>) {
            fs::write(&self.path, text.as_ref()).expect("write");
        }

        fn append(&self, text: &str) {
            let mut file = File::options().append(true).open(&self.path).expect("open");
            file.write_all(text.as_bytes()).expect("append");
        }

        fn replace(&self, text: impl AsRef<str>) {
            let other = self.folder.path().join("other");
            fs::write(&other, text.as_ref()).expect("write");
            fs::rename(other, &self.path).expect("rename");
        }

        fn check(&mut self, expected: impl IntoIterator<Item = u64>) {
            let poll = self.tail.poll().expect("poll");
            assert_eq!(poll.error, None);
            let seconds: Vec<_> = poll.rows.iter().map(|row| timestamp(row).as_secs()).collect();
            assert_eq!(seconds, Vec::from_iter(expected));
        }
    }

    #[test]
    fn a_file_may_come_grow_go_and_come_back() {
        let mut followed = Followed::new();
        assert!(!followed.tail.poll().expect("poll").present);
        followed.write(&HEADER[..10]);
        followed.check([]);
        followed.append(&HEADER[10..]);
        followed.append(&lines(0..3));
        followed.check(0..3);
        followed.check([]);
        followed.append("3,20000,25");
        followed.check([]);
        followed.append("000,0\n");
        followed.check([3]);
        fs::remove_file(&followed.path).expect("remove");
        followed.check([]);
        followed.write(HEADER.to_owned() + &lines(4..6));
        followed.check(4..6);
    }

    #[test]
    fn a_rotation_repeats_nothing_and_loses_nothing() {
        let mut followed = Followed::new();
        followed.write(HEADER.to_owned() + &lines(0..10));
        followed.check(0..10);
        // Two rows come, then the file is rotated and goes on, all between two polls.
        followed.append(&lines(10..12));
        followed.replace(HEADER.to_owned() + &lines(8..15));
        followed.check(10..15);
        followed.append(&lines(15..16));
        followed.check([15]);
        // A rotation without news.
        followed.replace(HEADER.to_owned() + &lines(14..16));
        followed.check([]);
    }

    #[test]
    fn truncation_starts_over() {
        let mut followed = Followed::new();
        followed.write(HEADER.to_owned() + &lines(0..10));
        followed.check(0..10);
        followed.write(HEADER.to_owned() + &lines(10..12));
        followed.check(10..12);
        // Another recording, older than what was seen.
        followed.replace(HEADER.to_owned() + &lines(3..5));
        followed.check(3..5);
    }

    #[test]
    fn a_bad_line_is_told_once_and_passed_over() {
        let mut followed = Followed::new();
        followed.write(HEADER.to_owned() + "0,fast,1,1\n" + &lines(1..3));
        let poll = followed.tail.poll().expect("poll");
        assert_eq!(poll.rows.len(), 2);
        let error = poll.error.expect("line 2").to_string();
        assert!(error.starts_with("line 2: column `avg_rtt_us`: `fast`"), "{error}");
        followed.append(&lines(3..4));
        followed.check([3]);
    }

    #[test]
    fn a_file_of_any_size_gives_its_newest_rows() {
        let mut followed = Followed::new();
        followed.write(HEADER.to_owned() + &lines(0..20_000));
        followed.check(20_000 - MOST_ROWS as u64..20_000);
    }
}
