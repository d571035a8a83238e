//! The files of `up` and `agent`, read over and over: whether every interval is there, and every row whole.
//!
//! A row is known by its timestamp, which is an interval behind the one before it. A pause is only in order where the part was dead, and
//! for as long. The clock jumps, too: across a step, what the timestamps differ by says nothing, so there it counts when rows were read.
//! Invariants: what was once read must be there until it is rotated away; rows come until the writer is told to end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netdiag_telemetry::csv;

use super::parts::{Id, Places};

/// How often a file is read: more often than it is rotated, and often enough to know when a row came.
const EVERY: Duration = Duration::from_millis(400);

/// The longest time between two rows that is no gap: longer, and hints would be stale, too. A sampler that waits for a core skips
/// deadlines and puts what it saw into the next row, so nothing is lost, and the row is late; here two cores are everybody's.
const LATE: f64 = 2.0;

/// Rows of all that may be late, and how many may be in a short run.
const MOST_LATE: f64 = 0.01;
const FEW_LATE: usize = 5;

/// A row that differs by more from the one before it was written across a step of the clock, seconds.
const JUMP: f64 = 1000.0;

/// How a row may differ from a step of the clock that it was written across.
const STEP: Duration = Duration::from_secs(3);

/// What is found of a file.
pub(super) struct Rows {
    pub(super) id: Id,
    pub(super) rows: usize,
    /// The longest time between two rows that nothing excuses, seconds.
    pub(super) longest: f64,
    pub(super) late: usize,
    pub(super) wrong: Vec<String>,
}

/// A row's timestamp, and when it was read.
type Seen = (Duration, Instant);

/// One who reads a file until told to end.
pub(super) struct Reader {
    id: Id,
    path: PathBuf,
    found: Arc<Mutex<Found>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Found {
    seen: Vec<Seen>,
    wrong: Vec<String>,
}

/// A time in which a pause of this part's rows is in order.
#[derive(Clone, Copy)]
pub(super) struct Excuse {
    /// `None`: of everybody's, because the clock was stepped.
    pub(super) id: Option<Id>,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Reader {
    pub(super) fn start(id: Id, places: &Places) -> Self {
        let (found, done) = (Arc::<Mutex<Found>>::default(), Arc::<AtomicBool>::default());
        let path = places.csv(id);
        let reader = Self {
            id,
            path: path.clone(),
            found: Arc::clone(&found),
            done: Arc::clone(&done),
            thread: None,
        };
        let thread = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                lock(&found).read(&path);
                std::thread::sleep(EVERY);
            }
        });
        Self { thread: Some(thread), ..reader }
    }

    /// Reads a last time and judges; the writer must have ended, and was told to at `told`.
    pub(super) fn end(mut self, excuses: &[Excuse], told: Instant) -> Rows {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut found = lock(&self.found);
        found.read(&self.path);
        let excuses: Vec<Excuse> = excuses
            .iter()
            .filter(|excuse| excuse.id.is_none_or(|id| id == self.id))
            .copied()
            .collect();
        let mut rows = judge(self.id, &found.seen, &excuses, told);
        rows.wrong.append(&mut found.wrong);
        rows
    }
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Found {
    fn read(&mut self, path: &Path) {
        // It may not be there yet.
        let Ok(text) = fs::read(path) else { return };
        let now = Instant::now();
        match csv::read_rows(&text) {
            Ok(rows) => {
                let times: Vec<Duration> = rows.iter().map(|row| row.sample.timestamp).collect();
                self.take(&times, now);
            }
            Err(error) => self.complain(format!("a row is not whole: {error}")),
        }
    }

    /// Takes in the rows behind the last one that is known.
    fn take(&mut self, times: &[Duration], now: Instant) {
        let new = match self.seen.last() {
            None => times,
            Some((last, _)) => match times.iter().rposition(|time| time == last) {
                Some(at) => &times[at + 1..],
                // Killed between its header and its first row, or read in between.
                None if times.is_empty() => return,
                None => {
                    self.complain(format!("the row of {last:?} is gone"));
                    times
                }
            },
        };
        self.seen.extend(new.iter().map(|&time| (time, now)));
    }

    fn complain(&mut self, what: String) {
        // The same thing is found again and again.
        if self.wrong.last() != Some(&what) {
            self.wrong.push(what);
        }
    }
}

fn judge(id: Id, seen: &[Seen], excuses: &[Excuse], told: Instant) -> Rows {
    let mut rows = Rows { id, rows: seen.len(), longest: 0.0, late: 0, wrong: Vec::new() };
    match seen.last() {
        None => rows.wrong.push("there is no row".to_owned()),
        Some(&(_, last)) => {
            let silent = unexcused(last, told, excuses);
            if silent > LATE {
                rows.wrong.push(format!("{silent:.2} s without a row at the end"));
            }
        }
    }
    let mut twice = BTreeMap::new();
    for pair in seen.windows(2) {
        let [(before, seen_before), (time, seen)] = [pair[0], pair[1]];
        let apart = time.as_secs_f64() - before.as_secs_f64();
        let is_excused =
            |excuse: &Excuse| excuse.from <= seen + EVERY && seen_before <= excuse.to + EVERY;
        if excuses.iter().any(is_excused) {
            let silent = unexcused(seen_before, seen, excuses);
            if silent > LATE {
                rows.wrong.push(format!("{silent:.2} s without a row beside what excuses it"));
            }
            continue;
        }
        rows.longest = rows.longest.max(apart);
        if apart < 0.0 {
            rows.wrong.push(format!("a row is {:.1} s before the one before it", -apart));
        } else if apart > LATE {
            rows.wrong.push(format!("{apart:.2} s without a row"));
        } else if apart > 1.5 * super::parts::INTERVAL {
            rows.late += 1;
        }
        *twice.entry(time).or_insert(0) += 1;
    }
    if rows.late > FEW_LATE.max((rows.rows as f64 * MOST_LATE) as usize) {
        rows.wrong.push(format!("{} of {} rows are late", rows.late, rows.rows));
    }
    let times = seen.iter().map(|(time, _)| time.as_secs_f64());
    let jumps = times.clone().zip(times.skip(1)).filter(|(a, b)| (b - a).abs() > JUMP).count();
    let steps = excuses.iter().filter(|excuse| excuse.id.is_none()).count();
    if jumps != steps {
        rows.wrong
            .push(format!("the clock was stepped {steps} times, and {jumps} are in its rows"));
    }
    for (time, times) in twice.into_iter().filter(|&(_, times)| times > 1) {
        rows.wrong.push(format!("the row of {time:?} is there {times} times"));
    }
    rows
}

/// How long it was from one row to the next, seconds, but for when the part was dead: a step of the clock keeps nobody from writing. A row
/// may have been written up to a look before it was read.
fn unexcused(from: Instant, to: Instant, excuses: &[Excuse]) -> f64 {
    let deaths = excuses.iter().filter(|excuse| excuse.id.is_some());
    let mut deaths: Vec<_> =
        deaths.map(|excuse| (excuse.from - EVERY, excuse.to + EVERY)).collect();
    deaths.sort_unstable();
    let (mut lived, mut at) = (Duration::ZERO, from);
    for (died, back) in deaths {
        lived += died.min(to).saturating_duration_since(at);
        at = at.max(back);
    }
    (lived + to.saturating_duration_since(at)).as_secs_f64()
}

/// A step of the clock, as the time in which timestamps say nothing.
pub(super) fn step_at(at: Instant) -> Excuse {
    Excuse { id: None, from: at, to: at + STEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows by tenths of a second, read when they are written.
    fn seen(zero: Instant, tenths: &[u64]) -> Vec<Seen> {
        let tenth = |tenths: u64| Duration::from_millis(100 * tenths);
        tenths.iter().map(|&at| (Duration::from_secs(1000) + tenth(at), zero + tenth(at))).collect()
    }

    #[test]
    fn a_pause_that_nothing_excuses_is_a_lost_row() {
        let zero = Instant::now();
        let check = |tenths: &[u64], excuse: Option<(u64, u64)>, wrong: usize, late: usize| {
            let at = |second| zero + Duration::from_secs(second);
            let excuses =
                excuse.map(|(from, to)| Excuse { id: Some(Id::Up), from: at(from), to: at(to) });
            let seen = seen(zero, tenths);
            let told = seen.last().map_or(zero, |&(_, last)| last);
            let rows = judge(Id::Up, &seen, excuses.as_slice(), told);
            assert_eq!(
                (rows.wrong.len(), rows.late),
                (wrong, late),
                "{tenths:?}: {:?}",
                rows.wrong
            );
        };
        check(&[0, 2, 4, 6], None, 0, 0);
        check(&[0, 2, 6, 8], None, 0, 1);
        check(&[0, 2, 50, 52], None, 1, 0);
        check(&[0, 2, 50, 52], Some((1, 4)), 0, 0);
        check(&[0, 2, 50, 52], Some((7, 9)), 1, 0);
        // A step of the clock, between two rows that were read at the same time.
        let stepped = [(Duration::from_secs(1000), zero), (Duration::from_secs(4600), zero)];
        let rows = judge(Id::Up, &stepped, &[step_at(zero)], zero);
        assert!(rows.wrong.is_empty(), "{:?}", rows.wrong);
        // But not from writing.
        let frozen = [(Duration::from_secs(1000), zero), (Duration::from_secs(4600), zero + STEP)];
        let rows = judge(Id::Up, &frozen, &[step_at(zero)], zero + STEP);
        assert_eq!(rows.wrong.len(), 1, "{:?}", rows.wrong);
        // One that the rows know nothing of.
        let rows = judge(Id::Up, &seen(zero, &[0, 2]), &[step_at(zero)], zero);
        assert_eq!(rows.wrong.len(), 1, "{:?}", rows.wrong);
        // Every other row.
        check(&[0, 4, 8, 12, 16, 20], None, 0, 5);
        check(&[0, 4, 8, 12, 16, 20, 24], None, 1, 6);
        // It excuses its own time and no more.
        check(&[0, 2, 200, 202], Some((1, 4)), 1, 0);
        check(&[0, 2, 2, 4], None, 1, 0);
        check(&[10, 2, 4], None, 1, 0);
        check(&[], None, 1, 0);
    }

    #[test]
    fn what_two_deaths_excuse_counts_once() {
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let death = |from, to| Excuse { id: Some(Id::Up), from: at(from), to: at(to) };
        let check = |excuses: &[Excuse], seconds: f64| {
            let found = unexcused(at(0), at(20), excuses);
            assert!((found - seconds).abs() < 1e-6, "{found} for {seconds}");
        };
        check(&[], 20.0);
        // 0.4 s around each.
        check(&[death(2, 5), death(4, 9)], 20.0 - 7.8);
        check(&[death(4, 5), death(2, 9)], 20.0 - 7.8);
        check(&[death(12, 15), death(2, 5)], 20.0 - 7.6);
        check(&[death(15, 40)], 14.6);
        check(&[step_at(at(3))], 20.0);
    }

    #[test]
    fn a_file_that_nobody_writes_to_any_more_is_found() {
        let zero = Instant::now();
        let check = |told: u64, excuse: Option<(u64, u64)>, wrong: usize| {
            let at = |second| zero + Duration::from_secs(second);
            let excuses =
                excuse.map(|(from, to)| Excuse { id: Some(Id::Up), from: at(from), to: at(to) });
            let rows = judge(Id::Up, &seen(zero, &[0, 2, 4]), excuses.as_slice(), at(told));
            assert_eq!(rows.wrong.len(), wrong, "{told}: {:?}", rows.wrong);
        };
        check(2, None, 0);
        check(5, None, 1);
        check(5, Some((1, 4)), 0);
        check(50, Some((1, 4)), 1);
    }

    #[test]
    fn rows_that_were_read_may_be_rotated_away_and_not_be_lost() {
        let zero = Instant::now();
        let times = |seconds: std::ops::Range<u64>| -> Vec<Duration> {
            seconds.map(Duration::from_secs).collect()
        };
        let mut found = Found::default();
        found.take(&times(0..5), zero);
        found.take(&times(3..9), zero);
        found.take(&times(8..10), zero);
        assert_eq!((found.seen.len(), found.wrong.len()), (10, 0));
        // The newest of those that were read is missing.
        found.take(&times(0..9), zero);
        assert_eq!(found.wrong.len(), 1);
    }

    #[test]
    fn half_a_row_in_the_middle_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.csv");
        fs::write(&path, csv::header() + "1,2\n").expect("written");
        let mut found = Found::default();
        found.read(&path);
        found.read(&path);
        assert_eq!(found.wrong.len(), 1, "{:?}", found.wrong);
    }
}
