//! A pacer fed by a CSV that another process writes: what `serve` and `pace` follow.
//!
//! A row says when it was written by a clock that may be another's, or may jump. So its age is read off that clock only
//! where there is no better evidence: for rows that were there before we came. A row that comes while we watch is as
//! fresh as its coming.
//!
//! Invariant: age only grows until the next row comes, whatever the clocks do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netdiag_pacer::{Hint, TpsRange};
use netdiag_telemetry::csv::CsvError;
use netdiag_telemetry::{Row, Scope};

use super::complaints::{Complaints, Trouble};
use super::tail::CsvTail;
use super::unusable;
use crate::failure::UsageError;
use crate::models::Models;
use crate::paced_link::{PacedLink, Waiting};

/// How often a file is worth looking at: at twice the usual pace of rows, none waits for longer than it took to measure.
pub(crate) const POLL: Duration = Duration::from_millis(250);

/// Rows this old say nothing about now, unless the user knows better: ten rows of the usual pace.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(5);

/// The interval of a first row, and of rows whose timestamps do not tell: the usual pace.
const USUAL_INTERVAL: Duration = Duration::from_millis(500);

/// The longest interval that a pause between two rows is taken for.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// How long the interval was that a row speaks of.
#[derive(Debug, Default)]
pub(crate) struct RowClock {
    /// Timestamp of the last row.
    last: Option<Duration>,
}

impl RowClock {
    /// The time since the row before, as far as that makes sense.
    pub(crate) fn elapsed(&mut self, row: &Row) -> Duration {
        let before = self.last.replace(row.sample.timestamp);
        before
            .and_then(|before| row.sample.timestamp.checked_sub(before))
            .filter(|elapsed| !elapsed.is_zero())
            .map_or(USUAL_INTERVAL, |elapsed| elapsed.min(LONGEST_INTERVAL))
    }
}

/// Follows one file. It speaks for the host as a whole.
#[derive(Debug)]
pub(crate) struct CsvPacer {
    path: PathBuf,
    tail: CsvTail,
    models: Models,
    link: PacedLink,
    clock: RowClock,
    sampled_at: Option<Instant>,
    last: Option<Row>,
    complaints: Complaints,
}

/// What a look at the file found.
#[derive(Debug)]
struct Look {
    /// There were new rows, so the hint is a new one.
    news: bool,
    /// Whether there is a file.
    present: bool,
    /// The first line that could not be used; the others were.
    wrong: Option<CsvError>,
}

impl CsvPacer {
    /// Follows `path`, which need not exist yet, and recommends rates within `range` for what `models` judge.
    fn new(path: &Path, range: TpsRange, models: Models) -> Self {
        Self {
            path: path.to_owned(),
            tail: CsvTail::new(path),
            link: PacedLink::new(models.host(), range),
            models,
            clock: RowClock::default(),
            sampled_at: None,
            last: None,
            complaints: Complaints::default(),
        }
    }

    /// The same, with a first look, and whether there is a file. `on_row` sees each row and what is recommended at its end. A
    /// file that cannot be used is the caller's mistake.
    pub(crate) fn start(
        path: &Path,
        range: TpsRange,
        models: Models,
        on_row: impl FnMut(&Row, &PacedLink),
    ) -> Result<(Self, bool), UsageError> {
        // What `agent` prints to its standard output with the same flag.
        if path == Path::new("-") {
            return Err(UsageError::new(
                "--csv -: a file is followed and not the standard input; let both name one (agent --csv FILE)",
            ));
        }
        let mut pacer = Self::new(path, range, models);
        let look = pacer.look(on_row).map_err(|error| {
            UsageError::because(format!("--csv {}: cannot be read", path.display()), error)
        })?;
        match look.wrong {
            Some(wrong) => Err(unusable("--csv", path, &wrong)),
            None => Ok((pacer, look.present)),
        }
    }

    /// Takes in what has come since the last look.
    fn look(&mut self, mut on_row: impl FnMut(&Row, &PacedLink)) -> io::Result<Look> {
        let poll = self.tail.poll()?;
        for row in &poll.rows {
            let elapsed = self.clock.elapsed(row);
            self.link.observe(&row.sample, Waiting::in_sample(&row.sample), elapsed);
            on_row(row, &self.link);
        }
        self.models.keep_up(&mut self.link);
        if let Some(newest) = poll.rows.last() {
            self.last = Some(*newest);
            let age = if poll.backlog { wall_age(newest.sample.timestamp) } else { Duration::ZERO };
            self.sampled_at = Instant::now().checked_sub(age);
        }
        Ok(Look { news: !poll.rows.is_empty(), present: poll.present, wrong: poll.error })
    }

    /// Takes in what has come since the last look, as [`CsvPacer::start`] does; whether that was any row. What is wrong with
    /// the file is logged.
    pub(crate) fn keep_up(&mut self, on_row: impl FnMut(&Row, &PacedLink)) -> bool {
        let now = Instant::now();
        let news = match self.look(on_row) {
            Ok(look) => {
                if let Some(wrong) = look.wrong {
                    let trouble = Trouble::of(&wrong);
                    let loss = if trouble.concerns_all() {
                        "none of its rows can be read"
                    } else {
                        "left out"
                    };
                    self.complaints.add(trouble, format!("{wrong}; {loss}"), now);
                } else if look.news && self.complaints.good_again() {
                    tracing::info!("{}: is read again", self.path.display());
                }
                look.news
            }
            Err(error) => {
                let trouble = Trouble::Reading(error.kind());
                self.complaints.add(trouble, format!("cannot be read: {error}"), now);
                false
            }
        };
        for what in self.complaints.due(now) {
            tracing::warn!("{}: {what}", self.path.display());
        }
        news
    }

    /// The hint as of the last row; its age is for the caller to tell.
    pub(crate) fn hint(&self) -> Hint {
        self.link.hint(&Scope::Host)
    }

    /// The last row.
    pub(crate) fn row(&self) -> Option<Row> {
        self.last
    }

    /// When the last row was written, as far as we can tell; `None` before the first, and for one from before this
    /// machine was started.
    pub(crate) fn sampled_at(&self) -> Option<Instant> {
        self.sampled_at
    }
}

/// How old a timestamp is by the wall clock; one from the future is new.
fn wall_age(timestamp: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(timestamp)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use netdiag_pacer::State;
    use netdiag_telemetry::Tps;

    const HEADER: &str = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n";

    fn follow(path: &Path) -> CsvPacer {
        let tps = |n| Tps::try_new(n).expect("valid");
        let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid");
        CsvPacer::new(path, range, Models::new(None))
    }

    fn age(pacer: &CsvPacer) -> Option<Duration> {
        pacer.sampled_at().map(|at| at.elapsed())
    }

    #[test]
    fn rows_become_hints_and_ages_are_honest() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("followed.csv");
        let mut pacer = follow(&path);
        let look = pacer.look(|_, _| ()).expect("looks");
        assert!(!look.present && !look.news && age(&pacer).is_none());

        // What was there before is as old as it says.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let row = |age: f64, p95: u32| format!("{},20000,{p95},0\n", now - age);
        let calm: String = (30..90).rev().map(|age| row(age.into(), 25_000)).collect();
        fs::write(&path, HEADER.to_owned() + &calm).expect("file");
        assert!(pacer.look(|_, _| ()).expect("looks").news);
        assert!(age(&pacer).is_none_or(|age| age >= Duration::from_secs(29)));
        assert_eq!(pacer.hint().state, State::Clear);

        // What comes while we watch is new, whatever it says.
        let before = fs::read_to_string(&path).expect("file");
        let bad: String = (10..25).rev().map(|age| row(age.into(), 900_000)).collect();
        fs::write(&path, before + &bad).expect("file");
        assert!(pacer.look(|_, _| ()).expect("looks").news);
        assert!(age(&pacer).is_some_and(|age| age < Duration::from_secs(5)));
        let hint = pacer.hint();
        assert_eq!(hint.state, State::Constrained);
        assert!(hint.current_tps.get() < 6.0, "{hint:?}");
        assert!(!pacer.look(|_, _| ()).expect("looks").news);
    }

    #[test]
    fn timestamps_that_stand_still_or_go_back_do_no_harm() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("followed.csv");
        let rows: String =
            [5, 5, 3, 3, 0, 9].map(|second| format!("{second},20000,25000,0\n")).concat();
        fs::write(&path, HEADER.to_owned() + &rows).expect("file");
        let mut pacer = follow(&path);
        pacer.look(|_, _| ()).expect("looks");
        assert!(pacer.hint().current_tps.get() > 70.0);
    }
}
