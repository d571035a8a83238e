//! Everything that can happen to a file between two polls.

use std::io::Write as _;

use proptest::prelude::*;

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

    /// Truncates the file and writes it anew, as a shell's `>` does.
    fn write(&self, text: impl AsRef<str>) {
        fs::write(&self.path, text.as_ref()).expect("write");
    }

    fn append(&self, text: impl AsRef<str>) {
        let mut file = File::options().append(true).open(&self.path).expect("open");
        file.write_all(text.as_ref().as_bytes()).expect("append");
    }

    fn replace(&self, text: impl AsRef<str>) {
        let other = self.folder.path().join("other");
        fs::write(&other, text.as_ref()).expect("write");
        fs::rename(other, &self.path).expect("rename");
    }

    fn seconds(&mut self) -> Vec<u64> {
        let poll = self.tail.poll().expect("poll");
        assert_eq!(poll.error, None);
        poll.rows.iter().map(|row| row.sample.timestamp.as_secs()).collect()
    }

    fn check(&mut self, expected: impl IntoIterator<Item = u64>) {
        assert_eq!(self.seconds(), Vec::from_iter(expected));
    }
}

#[test]
fn a_file_may_come_grow_go_and_come_back() {
    let mut followed = Followed::new();
    assert!(!followed.tail.poll().expect("poll").present);
    followed.write("");
    followed.check([]);
    followed.append(&HEADER[..10]);
    followed.check([]);
    followed.append(&HEADER[10..]);
    followed.append(lines(0..3));
    followed.check(0..3);
    followed.check([]);
    followed.append("3,20000,25");
    followed.check([]);
    followed.append("000,0\n");
    followed.check([3]);
    fs::remove_file(&followed.path).expect("remove");
    let poll = followed.tail.poll().expect("poll");
    assert!(poll.rows.is_empty() && !poll.present);
    followed.write(HEADER.to_owned() + &lines(4..6));
    followed.check(4..6);
}

#[test]
fn a_rotation_repeats_nothing_and_loses_nothing() {
    let mut followed = Followed::new();
    followed.write(HEADER.to_owned() + &lines(0..10));
    followed.check(0..10);
    // Two rows come, then the file is rotated and goes on, all between two polls.
    followed.append(lines(10..12));
    followed.replace(HEADER.to_owned() + &lines(8..15));
    followed.check(10..15);
    followed.append(lines(15..16));
    followed.check([15]);
    // A rotation without news.
    followed.replace(HEADER.to_owned() + &lines(14..16));
    followed.check([]);
    // One that kept nothing of what was seen.
    followed.replace(HEADER.to_owned() + &lines(40..42));
    followed.check(40..42);
}

#[test]
fn a_rotation_after_the_clock_was_set_back_repeats_nothing() {
    let mut followed = Followed::new();
    followed.write(HEADER.to_owned() + &lines(100..110) + &lines(50..55));
    followed.check((100..110).chain(50..55));
    followed.replace(HEADER.to_owned() + &lines(105..110) + &lines(50..57));
    followed.check(55..57);
}

#[test]
fn truncation_starts_over() {
    let mut followed = Followed::new();
    followed.write(HEADER.to_owned() + &lines(0..10));
    followed.check(0..10);
    followed.write(HEADER.to_owned() + &lines(10..12));
    followed.check(10..12);
    // Longer than what was read, so that its length does not show it.
    followed.write(HEADER.to_owned() + &lines(12..40));
    followed.check(12..40);
    // Another recording, older than what was seen.
    followed.replace(HEADER.to_owned() + &lines(3..5));
    followed.check(3..5);
}

#[test]
fn only_what_was_there_before_us_is_backlog() {
    let mut followed = Followed::new();
    let backlog = |followed: &mut Followed| {
        let poll = followed.tail.poll().expect("poll");
        assert!(!poll.rows.is_empty());
        poll.backlog
    };
    followed.write(HEADER.to_owned() + &lines(0..5));
    assert!(backlog(&mut followed));
    followed.append(lines(5..6));
    assert!(!backlog(&mut followed));
    followed.replace(HEADER.to_owned() + &lines(4..8));
    assert!(!backlog(&mut followed), "a rotation goes on");
    followed.replace(HEADER.to_owned() + &lines(1..3));
    assert!(backlog(&mut followed), "another recording");
}

#[test]
fn a_bad_line_is_told_once_and_passed_over() {
    let mut followed = Followed::new();
    followed.write(HEADER.to_owned() + "0,fast,1,1\n" + &lines(1..3));
    let poll = followed.tail.poll().expect("poll");
    assert_eq!(poll.rows.len(), 2);
    let error = poll.error.expect("line 2").to_string();
    assert!(error.starts_with("line 2: column `avg_rtt_us`: `fast`"), "{error}");
    followed.append(lines(3..4));
    followed.check([3]);
    // A foreign file is told once, however it grows, and a good one in its place is read.
    followed.replace("time,rtt\n1,2\n");
    let error = followed.tail.poll().expect("poll").error.expect("a foreign header");
    assert_eq!(error, CsvError::MissingColumn("timestamp"));
    followed.append("2,3\n");
    followed.check([]);
    followed.replace(HEADER.to_owned() + &lines(4..5));
    followed.check([4]);
}

#[test]
fn a_file_of_any_size_gives_its_newest_rows() {
    let mut followed = Followed::new();
    // More than is decoded, so that its beginning is passed over.
    let rows = 2 * RECENT_BYTES / lines(100_000..100_001).len() as u64;
    followed.write(HEADER.to_owned() + &lines(0..rows) + "garbage\n");
    let poll = followed.tail.poll().expect("poll");
    let newest = poll.rows.iter().map(|row| row.sample.timestamp.as_secs());
    assert!(newest.eq(rows - MOST_ROWS as u64..rows));
    let error = poll.error.expect("the last line").to_string();
    assert!(error.starts_with(&format!("line {}:", rows + 2)), "{error}");
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().expect("folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    for (path, told) in [(&*pipe, "not a regular file"), (folder.path(), "a directory")] {
        let error = CsvTail::new(path).poll().expect_err("refused");
        assert!(error.to_string().starts_with(told), "{error}");
    }
}

/// What happens to the file between two polls.
#[derive(Clone, Debug)]
enum Event {
    /// Rows come, the last one in two parts.
    Append(u64),
    /// A part of a row, completed by the next event.
    Tear,
    /// Renamed over by its newest rows.
    Rotate(u64),
    Poll,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However writing, rotating and polling interleave, every row comes out once and in order, as long as a rotation
    /// keeps at least what has not been polled.
    #[test]
    fn every_row_comes_out_once(
        events in prop::collection::vec(
            prop_oneof![
                (1u64..5).prop_map(Event::Append),
                Just(Event::Tear),
                (0u64..4).prop_map(Event::Rotate),
                Just(Event::Poll),
            ],
            1..40,
        ),
    ) {
        let mut followed = Followed::new();
        followed.write(HEADER);
        let (mut written, mut torn, mut seen) = (0, false, Vec::new());
        for event in events.into_iter().chain([Event::Poll]) {
            let complete = |written: u64| lines(written..written + 1)[3..].to_owned();
            if std::mem::take(&mut torn) && !matches!(event, Event::Poll) {
                followed.append(complete(1000 + written).trim_start_matches(char::is_numeric));
                written += 1;
            }
            match event {
                Event::Append(rows) => {
                    followed.append(lines(1000 + written..1000 + written + rows));
                    written += rows;
                }
                Event::Tear => {
                    followed.append(format!("{}", 1000 + written));
                    torn = true;
                }
                Event::Rotate(extra) => {
                    let oldest = (seen.len() as u64).saturating_sub(extra);
                    followed.replace(HEADER.to_owned() + &lines(1000 + oldest..1000 + written));
                }
                Event::Poll => {
                    seen.extend(followed.seconds());
                    // Still torn: the next event completes it.
                    let last = fs::read(&followed.path).expect("file").last().copied();
                    torn = last != Some(b'\n');
                }
            }
        }
        prop_assert_eq!(seen, Vec::from_iter(1000..1000 + written));
    }
}
