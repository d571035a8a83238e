//! What came of a soak, as tables for people and a verdict for programs.
//!
//! Invariant: whatever was asked and did not hold is in [`Findings::wrong`], and an empty list is the only clean soak.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::load::{PLACES, Tally};
use super::memory::{Growth, Life, MOST_GROWTH};
use super::parts::{ALL, Id};
use super::rows::Rows;
use super::schedule::{Fault, JUDGES_MEMORY};
use super::signs::Recovery;
use crate::median::median;

/// From the end of a fault until every sign of life is there again.
pub(super) const BOUND: Duration = Duration::from_secs(3);

/// Streams over each place that have to be whole in a minute: four at once, of some ten seconds each over a link, make twenty, and the
/// engine is away for a tenth of the time.
const WHOLE_A_MINUTE: u64 = 5;

/// One fault, and how the system came back.
pub(super) struct Outcome {
    pub(super) fault: Fault,
    /// When it began, since the soak did.
    pub(super) at: Duration,
    pub(super) lasted: Duration,
    /// The sign that came back last.
    pub(super) slowest: &'static str,
    pub(super) recovery: Recovery,
}

impl Outcome {
    pub(super) fn is_ok(&self) -> bool {
        matches!(self.recovery, Recovery::After(time) if time <= BOUND)
    }

    /// As a line for whoever watches.
    pub(super) fn line(&self) -> String {
        let verdict = if self.is_ok() { "ok" } else { "MISSED" };
        let name = self.fault.name();
        match self.recovery {
            Recovery::After(Duration::ZERO) => {
                format!(
                    "{:5.0} s  {name}: nothing was missed afterwards  {verdict}",
                    self.at.as_secs_f64()
                )
            }
            Recovery::After(time) => format!(
                "{:5.0} s  {name}: {} after {:.1} s  {verdict}",
                self.at.as_secs_f64(),
                self.slowest,
                time.as_secs_f64()
            ),
            Recovery::Never => {
                format!("{:5.0} s  {name}: no {}  {verdict}", self.at.as_secs_f64(), self.slowest)
            }
        }
    }
}

/// All that a soak has found.
pub(super) struct Findings<'a> {
    /// Minutes that it was to take, and took.
    pub(super) asked: u32,
    pub(super) minutes: f64,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) lives: Vec<Life>,
    pub(super) starts: BTreeMap<Id, u32>,
    pub(super) rows: Vec<Rows>,
    pub(super) tally: &'a Tally,
    pub(super) incidents: Vec<String>,
    pub(super) leftovers: Vec<String>,
}

impl Findings<'_> {
    /// Everything that is not as it should be.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> =
            self.outcomes.iter().filter(|outcome| !outcome.is_ok()).map(Outcome::line).collect();
        for life in self.lives.iter().filter(|life| life.id.is_ours()) {
            if let Some(what) = life.growth().and_then(|growth| growth.wrong()) {
                wrong.push(format!("{} {what}", life.id.name()));
            }
        }
        if self.asked >= JUDGES_MEMORY {
            for id in ALL.into_iter().filter(|id| id.is_ours()) {
                if !self.lives.iter().any(|life| life.id == id && life.growth().is_some()) {
                    wrong.push(format!("no life of {} was long enough to judge", id.name()));
                }
            }
        }
        for rows in &self.rows {
            wrong.extend(
                rows.wrong.iter().map(|what| format!("the file of {}: {what}", rows.id.name())),
            );
        }
        let least = u64::from(self.asked) * WHOLE_A_MINUTE;
        for (place, whole) in self.tally.done.iter().map(count).enumerate() {
            if whole < least {
                let place = place_name(place);
                wrong.push(format!("{whole} streams over {place} were whole, of {least} at least"));
            }
        }
        // While the engine is away many are told so. One that ends without a word is rare: with a gateway that was killed.
        let (whole, broken) = (self.whole(), count(&self.tally.broken));
        if 10 * broken > whole {
            wrong.push(format!(
                "{broken} streams ended with their connection, and {whole} were whole"
            ));
        }
        let stuck = self.tally.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.extend(stuck.iter().map(|what| format!("stuck: {what}")));
        wrong.extend(self.incidents.iter().cloned());
        wrong.extend(self.leftovers.iter().map(|what| format!("left behind: {what}")));
        wrong
    }

    /// Streams that were whole.
    fn whole(&self) -> u64 {
        self.tally.done.iter().map(count).sum()
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{:.1} minutes\n\n", self.minutes);
        text += &aligned(&self.faults());
        text.push('\n');
        text += &aligned(&self.memory());
        text.push('\n');
        for rows in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "rows of {}: {}, {} of them late; at most {:.2} s between two where nothing excuses more",
                rows.id.name(),
                rows.rows,
                rows.late,
                rows.longest
            );
        }
        let _ = writeln!(
            text,
            "streams: {} whole ({} over each place), {} told why not, {} ended with their connection, {} refused, {} stuck",
            self.whole(),
            self.tally.done.each_ref().map(|done| count(done).to_string()).join(", "),
            count(&self.tally.told),
            count(&self.tally.broken),
            count(&self.tally.refused),
            self.tally.stuck.lock().unwrap_or_else(PoisonError::into_inner).len()
        );
        let _ = writeln!(text, "left behind: {}\n", self.leftovers.len());
        let wrong = self.wrong();
        for what in &wrong {
            let _ = writeln!(text, "MISSED {what}");
        }
        text += if wrong.is_empty() { "clean\n" } else { "not clean\n" };
        text
    }

    /// A line for each kind of fault: how often, and how the worst one went.
    fn faults(&self) -> Vec<Vec<String>> {
        let mut kinds: BTreeMap<Fault, Vec<&Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            kinds.entry(outcome.fault).or_default().push(outcome);
        }
        let head = [
            "fault",
            "times",
            "first at s",
            "lasted s",
            "back after s: median",
            "most",
            "bound",
            "last back",
            "",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for (fault, outcomes) in kinds {
            let seconds = |outcome: &Outcome| match outcome.recovery {
                Recovery::After(time) => time.as_secs_f64(),
                Recovery::Never => f64::INFINITY,
            };
            let times: Vec<f64> = outcomes.iter().map(|outcome| seconds(outcome)).collect();
            let most = times.iter().copied().fold(f64::NAN, f64::max);
            let worst = outcomes.iter().find(|outcome| seconds(outcome) == most);
            let lasted = outcomes.iter().map(|outcome| outcome.lasted).max().unwrap_or_default();
            lines.push(vec![
                fault.name(),
                outcomes.len().to_string(),
                format!("{:.0}", outcomes.first().map_or(f64::NAN, |first| first.at.as_secs_f64())),
                format!("{:.1}", lasted.as_secs_f64()),
                format!("{:.1}", median(times)),
                format!("{most:.1}"),
                format!("{:.0}", BOUND.as_secs_f64()),
                worst.filter(|_| most > 0.0).map_or("-", |worst| worst.slowest).to_owned(),
                if outcomes.iter().all(|outcome| outcome.is_ok()) { "ok" } else { "MISSED" }
                    .to_owned(),
            ]);
        }
        lines
    }

    /// A line for each part: its longest warm time.
    fn memory(&self) -> Vec<Vec<String>> {
        let head = [
            "process",
            "starts",
            "warm s",
            "RSS when warm",
            "at the end, KB",
            "growth",
            "with 95 %",
            "bound",
            "descriptors",
            "",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for id in ALL {
            let lives = || self.lives.iter().filter(|life| life.id == id);
            let starts = self.starts.get(&id).copied().unwrap_or_default().to_string();
            let worst = lives().filter_map(Life::growth).max_by(|a, b| {
                let missed = |growth: &Growth| !growth.is_bounded();
                missed(a).cmp(&missed(b)).then(a.share.total_cmp(&b.share))
            });
            let most = format!("{:.0} %", MOST_GROWTH * 100.0);
            let bound = if id.is_ours() { most } else { "-".to_owned() };
            let mut line = vec![id.name().to_owned(), starts];
            match worst {
                Some(growth) => line.extend([
                    format!("{:.0}", growth.seconds),
                    format!("{:.0}", growth.warm_kb),
                    format!("{:.0}", growth.end_kb),
                    format!("{:+.2} %", growth.share * 100.0),
                    growth.interval.map(|end| format!("{:+.2}", end * 100.0)).join(" to "),
                    bound,
                    format!("{:+}", growth.descriptors),
                    match id.is_ours() {
                        false => "",
                        true if growth.is_in_doubt() => "in doubt",
                        true if growth.is_bounded() => "ok",
                        true => "MISSED",
                    }
                    .to_owned(),
                ]),
                None => {
                    let end = lives().filter_map(Life::newest).next_back().unwrap_or(f64::NAN);
                    let too_short = "too short to judge";
                    line.extend(["-", "-"].map(str::to_owned));
                    line.extend([
                        format!("{end:.0}"),
                        too_short.to_owned(),
                        "-".to_owned(),
                        bound,
                        "-".to_owned(),
                        String::new(),
                    ]);
                }
            }
            lines.push(line);
        }
        lines
    }
}

fn count(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn place_name(place: usize) -> String {
    if place == 0 { "loopback".to_owned() } else { format!("link {place} of {}", PLACES - 1) }
}

/// Columns under each other; figures to the right, words to the left.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            let is_word = column == 0 || column + 2 >= columns;
            if is_word { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(tally: &Tally) -> Findings<'_> {
        let outcome = |recovery| Outcome {
            fault: Fault::NatsKilled,
            at: Duration::from_secs(20),
            lasted: Duration::from_secs(4),
            slowest: "fleet",
            recovery,
        };
        let after = |ms| outcome(Recovery::After(Duration::from_millis(ms)));
        Findings {
            asked: 3,
            minutes: 3.0,
            outcomes: vec![after(0), after(2900)],
            lives: vec![Life::new(Id::Up)],
            starts: BTreeMap::from([(Id::Up, 2)]),
            rows: Vec::new(),
            tally,
            incidents: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    #[test]
    fn only_what_holds_in_everything_is_clean() {
        let tally = Tally::default();
        tally.done.iter().for_each(|done| done.store(15, Ordering::Relaxed));
        let clean = findings(&tally);
        assert_eq!(clean.wrong(), Vec::<String>::new());
        assert!(clean.text().ends_with("clean\n") && !clean.text().contains("MISSED"));
        let spoil: [fn(&mut Findings<'_>); 5] = [
            |findings| findings.outcomes[1].recovery = Recovery::After(Duration::from_millis(3100)),
            |findings| findings.outcomes[0].recovery = Recovery::Never,
            |findings| findings.incidents.push("up ended by itself".to_owned()),
            |findings| findings.leftovers.push("process 7".to_owned()),
            |findings| findings.tally.broken.store(7, Ordering::Relaxed),
        ];
        for spoil in spoil {
            let mut findings = findings(&tally);
            spoil(&mut findings);
            assert_eq!(findings.wrong().len(), 1, "{:?}", findings.wrong());
            assert!(findings.text().ends_with("not clean\n"));
        }
        tally.broken.store(0, Ordering::Relaxed);
        tally.done[2].store(14, Ordering::Relaxed);
        let few = "14 streams over link 2 of 3 were whole, of 15 at least";
        assert_eq!(findings(&tally).wrong(), [few]);
        tally.done.iter().for_each(|done| done.store(1000, Ordering::Relaxed));
        // Long enough, and yet nobody's memory was looked at.
        let unjudged = Findings { asked: JUDGES_MEMORY, ..findings(&tally) };
        assert_eq!(unjudged.wrong().len(), ALL.into_iter().filter(|id| id.is_ours()).count());
        tally.stuck.lock().expect("a list").push("a stream".to_owned());
        assert_eq!(findings(&tally).wrong(), ["stuck: a stream"]);
    }
}
