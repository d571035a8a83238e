//! How soon a silent link holds its stream, lets it go on when it is back, and a reader that stops is known: on real TCP, for
//! whoever asks `netdiag up`, and for a server that paces its own sockets.
//!
//! A link that is back tells nobody. The kernel can know with the first ACK, and that comes after its next try, whose timer has doubled
//! with each before. So two times are told apart: from the link's return to that ACK, which is TCP's, and from the ACK
//! to the stream that goes on, which is ours. What shortens the first is measured beside it: linear timers for thin streams, and
//! a bound on the timer.
//!
//! Invariant: every event counts; one that has not shown itself by the time it is looked for counts as that long.

mod embedded;
mod stage;
mod watched;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{anyhow, ensure};

use self::stage::{Retries, Stage};
use super::{Bar, Bound, Options, Report};
use crate::command;

/// Of each kind.
const EVENTS: usize = 100;
/// How many times as many with `--long`.
const LONG: usize = 5;

/// Longest from a silence to the hold, and from a shut window to its name.
const HELD_MS: f64 = 1000.0;
/// Longest from the first ACK until the stream goes on, beyond a round trip.
const RESUMED_MS: f64 = 100.0;

/// What one silence showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    retries: Retries,
    /// From the silence to the hold.
    held: Duration,
    /// From the link's return to the first ACK.
    heard: Duration,
    /// From that ACK until the stream went on, less a round trip.
    resumed: Duration,
    /// The hold was given up while the link was still silent.
    wavered: bool,
}

/// What one reader that stopped showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    /// From the last read to the shut window.
    shut: Duration,
    /// From the shut window to its name.
    named: Duration,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the lab makes network namespaces: run it as root");
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let events = EVENTS * if options.long { LONG } else { 1 };
    let columns = vec!["what", "events", "median", "p99", "most", "unit"];
    let mut report = Report { columns, ..Report::default() };
    let stage = Stage::build(&netdiag)?;
    let pacing = embedded::pacing()?;

    let silences = on_all(&stage, events, |place, n| watched::silence(&stage, place, n))?;
    report.silences("hints", &silences);
    for retries in Retries::ALL {
        let of = silences.iter().filter(|silence| silence.retries == retries);
        let heard: Vec<Duration> = of.map(|silence| silence.heard).collect();
        report.times(&format!("  link back to first ACK, {}", retries.describe()), &heard);
    }
    let silences = on_all(&stage, events, |place, n| embedded::silence(&stage, &pacing, place, n))?;
    report.silences("embedded", &silences);
    let heard: Vec<Duration> = silences.iter().map(|silence| silence.heard).collect();
    report.times("  link back to first ACK", &heard);

    let stops = on_all(&stage, events, |place, n| watched::stop(&stage, place, n))?;
    report.stops("hints", &stops);
    let stops = on_all(&stage, events, |place, n| embedded::stop(&stage, &pacing, place, n))?;
    report.stops("embedded", &stops);
    stage.failed().map_or(Ok(report), |error| Err(anyhow!(error)))
}

impl Report {
    fn silences(&mut self, who: &str, silences: &[Silence]) {
        let times = |of: fn(&Silence) -> Duration| silences.iter().map(of).collect::<Vec<_>>();
        let held = self.times(&format!("{who}: silent to held"), &times(|silence| silence.held));
        self.promise(&format!("{who}_held_p99_ms"), held, HELD_MS);
        let resumed = times(|silence| silence.resumed);
        let what = format!("{who}: first ACK to resumed, less a round trip");
        let resumed = self.times(&what, &resumed);
        self.promise(&format!("{who}_resumed_p99_ms"), resumed, RESUMED_MS);
        let wavered = silences.iter().filter(|silence| silence.wavered).count();
        self.promise(&format!("{who}_holds_given_up"), wavered as f64, 0.0);
    }

    fn stops(&mut self, who: &str, stops: &[Stop]) {
        let times = |of: fn(&Stop) -> Duration| stops.iter().map(of).collect::<Vec<_>>();
        let what = format!("{who}: window shut to `reader`");
        let named = self.times(&what, &times(|stop| stop.named));
        self.promise(&format!("{who}_reader_p99_ms"), named, HELD_MS);
        self.times("  last read to window shut", &times(|stop| stop.shut));
    }

    fn promise(&mut self, name: &str, value: f64, limit: f64) {
        let bound = Bound::AtMost(limit);
        self.bars.push(Bar { name: name.to_owned(), value, bound, unit: "ms" });
    }

    /// A row of times; the 99th percentile, ms.
    fn times(&mut self, what: &str, times: &[Duration]) -> f64 {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        // The nearest rank: of a hundred the second longest.
        let at = |share: f64| {
            let rank = (share * ms.len() as f64).ceil() as usize;
            ms.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let mut cells = vec![what.to_owned(), ms.len().to_string()];
        cells.extend([0.5, 0.99, 1.0].map(|share| format!("{:.0}", at(share))));
        cells.push("ms".to_owned());
        self.rows.push(cells);
        at(0.99)
    }
}

/// Plays so many events, each on whichever link is free; with their numbers.
fn on_all<T: Send>(
    stage: &Stage,
    events: usize,
    play: impl Fn(usize, usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let lock = || outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        for place in 0..stage.places() {
            let (next, play, lock) = (&next, &play, &lock);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= events {
                        return;
                    }
                    let outcome = play(place, number);
                    let failed = outcome.is_err();
                    lock().push(outcome);
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    let outcomes = std::mem::take(&mut *lock());
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut report = Report::default();
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(report.times("x", &times), 99.0);
        assert_eq!(report.rows[0], ["x", "100", "50", "99", "100", "ms"]);
        // Nothing measured meets no bar.
        let nothing = report.times("y", &[]);
        report.promise("y", nothing, 1.0);
        assert!(!report.bars[0].is_met());
    }
}
