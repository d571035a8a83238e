//! What is said of a followed file, and how often: each kind of trouble now and then, none drowned by another.
//!
//! A complaint that comes too soon after one of its kind waits; the newest of them is told when the time has come, unless
//! the file was good again before. Time comes in as an argument.
//!
//! Invariant: of each kind there is at most one message per [`REPEAT`], and one message that the file is good again for
//! every one that it is not.

use std::collections::HashMap;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use netdiag_telemetry::csv::CsvError;

/// How far apart two complaints of one kind are at least.
const REPEAT: Duration = Duration::from_secs(10);

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// The file cannot be read.
    Reading(io::ErrorKind),
    /// It has a header that means nothing to us.
    Header(Discriminant<CsvError>),
    /// A line is left out.
    Line(Discriminant<CsvError>),
}

impl Trouble {
    /// The kind of trouble that an error in the file is.
    pub(super) fn of(wrong: &CsvError) -> Self {
        let kind = discriminant(wrong);
        if wrong.line() == 1 { Self::Header(kind) } else { Self::Line(kind) }
    }

    /// Whether nothing of the file can be used.
    pub(super) fn concerns_all(self) -> bool {
        !matches!(self, Self::Line(_))
    }
}

/// What was said of one file.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: HashMap<Trouble, Told>,
    /// It was said that nothing of the file can be used.
    unusable: bool,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// The newest complaint that came too soon, and how many came before it.
    waiting: Option<String>,
    kept_quiet: u64,
}

impl Complaints {
    /// Takes in a complaint.
    pub(super) fn add(&mut self, trouble: Trouble, what: String, now: Instant) {
        let long_ago = now.checked_sub(REPEAT).unwrap_or(now);
        let told =
            self.told.entry(trouble).or_insert(Told { at: long_ago, waiting: None, kept_quiet: 0 });
        told.kept_quiet += u64::from(told.waiting.replace(what).is_some());
    }

    /// What is to be said now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (trouble, told) in &mut self.told {
            if now.saturating_duration_since(told.at) < REPEAT {
                continue;
            }
            let Some(what) = told.waiting.take() else { continue };
            due.push(match std::mem::take(&mut told.kept_quiet) {
                0 => what,
                more => format!("{what} (and {more} such complaints before)"),
            });
            told.at = now;
            self.unusable |= trouble.concerns_all();
        }
        due
    }

    /// Rows have come; whether that is worth saying, because it was said that none can.
    pub(super) fn good_again(&mut self) -> bool {
        for (trouble, told) in &mut self.told {
            if trouble.concerns_all() && told.waiting.take().is_some() {
                told.kept_quiet += 1;
            }
        }
        std::mem::take(&mut self.unusable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: u64) -> CsvError {
        CsvError::Width { line, found: 1, expected: 4 }
    }

    #[test]
    fn kinds_do_not_drown_each_other_and_repeat_seldom() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let mut at = |ms: u64, wrong: Option<(Trouble, &str)>| {
            let now = start + Duration::from_millis(ms);
            if let Some((trouble, what)) = wrong {
                complaints.add(trouble, what.to_owned(), now);
            }
            complaints.due(now)
        };
        let bad_line = Trouble::of(&line(43));
        let header = Trouble::of(&CsvError::MissingColumn("timestamp"));
        assert_eq!(at(0, Some((bad_line, "line 43"))), ["line 43"]);
        assert_eq!(at(1000, Some((header, "header"))), ["header"]);
        assert_eq!(at(2000, Some((Trouble::Reading(io::ErrorKind::IsADirectory), "d"))), ["d"]);
        assert!(at(3000, Some((bad_line, "line 44"))).is_empty());
        assert!(at(4000, Some((bad_line, "line 45"))).is_empty());
        assert!(at(9000, None).is_empty());
        // Though nothing new is wrong: a header is told once, and must not be lost.
        assert_eq!(at(10_000, None), ["line 45 (and 1 such complaints before)"]);
        assert!(at(30_000, None).is_empty());
    }

    #[test]
    fn a_file_that_is_good_again_is_told_once() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        complaints.add(Trouble::of(&line(2)), "line 2".to_owned(), now);
        assert_eq!(complaints.due(now), ["line 2"]);
        assert!(!complaints.good_again(), "the other lines were always read");
        let header = Trouble::of(&line(1));
        complaints.add(header, "header".to_owned(), now);
        assert_eq!(complaints.due(now), ["header"]);
        complaints.add(header, "header again".to_owned(), now);
        assert!(complaints.good_again());
        assert!(!complaints.good_again());
        assert!(complaints.due(now + REPEAT).is_empty(), "it is over");
    }
}
