//! Whether `netdiag up` says for whom a stream waits: engine, path or reader, on real TCP.
//!
//! Demo engines stream to clients over emulated links, and `netdiag up` watches from outside as it would anywhere. Then something is done
//! to a stream for a while, and whom `/v1/streams` gives most of that time is compared with who it was. Engines follow the hints
//! on half of the connections and ignore them on the others, and half of the links jitter and lose packets as links do.
//!
//! Links fail in ways that keep tokens from the client for most of the time; `delivered` says how much of what would have come
//! came all the same. Invariant: nothing in here tells `netdiag up` what is done.

mod events;
mod stage;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{anyhow, ensure};

use self::events::{Event, Fault, Who, events};
use self::stage::{Account, Stage};
use super::{Bar, Bound, Options, Report};
use crate::command;

/// Of each kind.
const EVENTS: usize = 100;
/// How many times as many with `--long`.
const LONG: usize = 5;

/// Of each kind, by whom most of the time was given.
const RIGHT: f64 = 0.99;

/// Between two events, until the link is what it was.
const REST: Duration = Duration::from_millis(300);

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the lab makes network namespaces: run it as root");
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let events = events(EVENTS * if options.long { LONG } else { 1 });
    let stage = Stage::build(&netdiag)?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..stage.places() {
            let (stage, events, next) = (&stage, &events, &next);
            let (outcomes, failures) = (&outcomes, &failures);
            scope.spawn(move || {
                while let Some(event) = events.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match stage.play(place, event) {
                        Ok(account) => lock(outcomes).push((*event, account)),
                        Err(error) => {
                            lock(failures).push(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failures).pop() {
        return Err(error);
    }
    if let Some(error) = stage.failed() {
        return Err(anyhow!(error));
    }
    Ok(judge(&lock(&outcomes)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn judge(outcomes: &[(Event, Account)]) -> Report {
    let columns = vec!["done to the stream", "events", "engine", "path", "reader", "pacer"];
    let mut report = Report { columns, ..Report::default() };
    report.columns.extend(["share of the time", "delivered"]);
    for who in Who::ALL {
        let of = |event: &Event| event.fault.who() == who;
        let row = Row::of(outcomes.iter().filter(|(event, _)| of(event)));
        report.rows.push(row.cells(who.as_str(), who));
        report.bars.push(Bar {
            name: format!("attribution_{}", who.as_str()),
            value: row.right(who),
            bound: Bound::AtLeast(RIGHT),
            unit: "",
        });
    }
    // What the three are made of.
    let mut kinds: BTreeMap<Fault, Vec<&(Event, Account)>> = BTreeMap::new();
    for outcome in outcomes {
        kinds.entry(outcome.0.fault).or_default().push(outcome);
    }
    for (fault, outcomes) in kinds {
        let row = Row::of(outcomes);
        report.rows.push(row.cells(&format!("  {}", fault.describe()), fault.who()));
    }
    for (event, account) in outcomes {
        if account.dominant() != Some(event.fault.who().as_str()) {
            eprintln!("wrong: {event:?} {account:?}");
        }
    }
    report
}

/// Events of one kind.
#[derive(Debug, Default)]
struct Row {
    events: usize,
    by_cause: BTreeMap<&'static str, usize>,
    shares: BTreeMap<&'static str, f64>,
    delivered: f64,
}

impl Row {
    fn of<'a>(outcomes: impl IntoIterator<Item = &'a (Event, Account)>) -> Self {
        let mut row = Self::default();
        for (_, account) in outcomes {
            row.events += 1;
            if let Some(cause) = account.dominant() {
                *row.by_cause.entry(cause).or_default() += 1;
            }
            for (cause, share) in account.shares() {
                *row.shares.entry(cause).or_default() += share;
            }
            row.delivered += account.delivered;
        }
        row
    }

    fn right(&self, who: Who) -> f64 {
        let right = self.by_cause.get(who.as_str()).copied().unwrap_or_default();
        right as f64 / self.events as f64
    }

    fn cells(&self, name: &str, who: Who) -> Vec<String> {
        let mut cells = vec![name.to_owned(), self.events.to_string()];
        let count = |cause| self.by_cause.get(cause).copied().unwrap_or_default().to_string();
        cells.extend(["engine", "path", "reader", "pacer"].map(count));
        let mean = |sum: f64| format!("{:.0} %", 100.0 * sum / self.events as f64);
        cells.push(mean(self.shares.get(who.as_str()).copied().unwrap_or_default()));
        cells.push(mean(self.delivered));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_counts_whom_most_of_the_time_was_given() {
        let outcome = |fault, engine, path| {
            let event = Event { fault, lasts: Duration::from_secs(1), number: 0 };
            (event, Account { engine, path, reader: 0.0, pacer: 0.0, delivered: 0.5 })
        };
        let outcomes = [
            outcome(Fault::Pause, 0.9, 0.1),
            outcome(Fault::Pause, 0.4, 0.6),
            outcome(Fault::Blackout, 0.0, 1.0),
        ];
        let report = judge(&outcomes);
        let expected = ["engine", "2", "1", "1", "0", "0", "65 %", "50 %"];
        assert_eq!(report.rows[0], expected);
        let values: Vec<f64> = report.bars.iter().map(|bar| bar.value).collect();
        assert_eq!(values[..2], [0.5, 1.0]);
        // Nothing of the third kind was measured: no promise is kept by that.
        assert!(!report.bars[2].is_met());
    }
}
