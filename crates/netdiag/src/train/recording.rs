//! A recording as training needs it: each interval with what was seen in it and the features that the live judgement makes of it.
//!
//! Invariants: features are those of the intervals up to their own, never of later ones; memory is some 150 bytes per row.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netdiag_health::{Features, Health, Model, Observation};

use crate::csv_file::{self, Labels, RowClock};
use crate::failure::UsageError;
use crate::plot::{ChartRow, time_notes};
use crate::terminal::{Progress, Unit};

/// Rows between two movements of the progress bar.
const STRIDE: usize = 4096;

/// A file, replayed.
#[derive(Debug)]
pub(crate) struct Recording {
    /// The file's name without its folder.
    pub(super) name: String,
    /// In the order of the file.
    pub(super) intervals: Vec<Interval>,
}

/// One row of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    /// Its end, time since the Unix epoch.
    pub(super) timestamp: Duration,
    elapsed: Duration,
    seen: Observation,
    pub(super) features: Features,
    /// It showed nothing to judge by, so nothing is learned from it.
    pub(super) idle: bool,
    /// Whether somebody marked it as bad; `None` in a file without labels.
    pub(super) label: Option<bool>,
}

/// What the live judgement with a model said after an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) health: f64,
    pub(super) anomaly_score: f64,
    /// The anomaly light.
    pub(super) anomaly: bool,
    /// The forest's own score of the features, −1..=0: the lower, the more unusual.
    pub(super) forest: f64,
}

impl Recording {
    /// Reads the file that `flag` named. One without rows, or with anything wrong in it, is the caller's mistake.
    pub(crate) fn read(flag: &str, path: &Path, progress: &Progress) -> Result<Self, UsageError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut recording = Self { name, intervals: Vec::new() };
        let (mut health, mut clock) = (Health::without_training(), RowClock::default());
        csv_file::read(flag, path, Labels::Read, progress, |row, label| {
            let (timestamp, elapsed) = (row.sample.timestamp, clock.elapsed(row));
            let seen = Observation::from(&row.sample);
            let assessment = health.observe(&seen, elapsed);
            recording.intervals.push(Interval {
                timestamp,
                elapsed,
                seen,
                features: assessment.features,
                idle: assessment.idle,
                label,
            });
        })?;
        Ok(recording)
    }

    /// Whether no interval showed anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.used().next().is_none()
    }

    /// From the first row to the last; nothing if they go back in time.
    pub(super) fn span(&self) -> Duration {
        span(&self.intervals)
    }

    /// The intervals that showed something.
    pub(super) fn used(&self) -> impl Iterator<Item = &Interval> {
        self.intervals.iter().filter(|interval| !interval.idle)
    }

    /// Where in the file the used interval of this number stands.
    pub(super) fn row_of_used(&self, number: usize) -> usize {
        let mut used = (0..self.intervals.len()).filter(|&row| !self.intervals[row].idle);
        used.nth(number).unwrap_or(self.intervals.len())
    }

    /// The live judgement with `model` from the first interval to the last.
    pub(super) fn judged_by(&self, model: &Arc<Model>, progress: &Progress) -> Vec<Judged> {
        progress.begin(&format!("judging {}", self.name), self.intervals.len() as u64, Unit::Rows);
        let mut health = Health::without_training();
        health.set_model(Arc::clone(model));
        let mut all = Vec::with_capacity(self.intervals.len());
        for intervals in self.intervals.chunks(STRIDE) {
            all.extend(intervals.iter().map(|interval| {
                let judged = health.observe(&interval.seen, interval.elapsed);
                Judged {
                    health: judged.health,
                    anomaly_score: judged.anomaly_score,
                    anomaly: judged.anomaly,
                    forest: model.score(&judged.features),
                }
            }));
            progress.advance(intervals.len() as u64);
        }
        all
    }

    /// What is odd about the file and no mistake.
    pub(super) fn notes(&self) -> Vec<String> {
        let name = &self.name;
        let timestamps = self.intervals.iter().map(|interval| interval.timestamp).collect();
        let mut notes = time_notes(name, timestamps);
        if self.intervals.iter().all(|interval| interval.seen.rtt.is_none()) {
            notes.push(format!(
                "no row of {name} has a round trip: losses and stalls are all there is"
            ));
        }
        notes
    }

    /// The recording as judged, to be drawn; for each used row, whether it is flagged.
    pub(super) fn chart_rows(&self, judged: &[Judged], flagged: &[bool]) -> Vec<ChartRow> {
        let start = self.intervals.first().map_or(Duration::ZERO, |first| first.timestamp);
        let mut flagged = flagged.iter();
        let row = |(interval, judged): (&Interval, &Judged)| ChartRow {
            seconds: interval.timestamp.saturating_sub(start).as_secs_f64(),
            p95_rtt_ms: interval.seen.rtt.map(|rtt| rtt.p95.as_secs_f64() * 1e3),
            rtt_ratio: interval.features.rtt_ratio.exp(),
            retrans_percent: interval.features.retrans_rate * 100.0,
            flagged: if interval.idle { None } else { flagged.next().copied() },
            health: judged.health,
            anomaly_score: judged.anomaly_score,
            anomaly: judged.anomaly,
        };
        self.intervals.iter().zip(judged).map(row).collect()
    }
}

/// From the first interval's end to the last one's.
pub(super) fn span(intervals: &[Interval]) -> Duration {
    match intervals {
        [first, .., last] => last.timestamp.saturating_sub(first.timestamp),
        _ => Duration::ZERO,
    }
}

/// When each interval ended, counted from the beginning of the first; a row that goes back in time takes none.
///
/// Not sums of [`Interval::elapsed`], which the judgement is spared anything beyond a minute of.
pub(super) fn ends(intervals: &[Interval]) -> Vec<Duration> {
    let mut end = intervals.first().map_or(Duration::ZERO, |first| first.elapsed);
    let later =
        intervals.windows(2).map(|pair| pair[1].timestamp.saturating_sub(pair[0].timestamp));
    let steps = std::iter::once(Duration::ZERO).chain(later);
    let ends = steps.take(intervals.len()).map(|step| {
        end = end.saturating_add(step);
        end
    });
    ends.collect()
}

/// The forest's scores of the used ones of these intervals.
pub(super) fn used_scores(intervals: &[Interval], judged: &[Judged]) -> Vec<f64> {
    let used = intervals.iter().zip(judged).filter(|(interval, _)| !interval.idle);
    used.map(|(_, judged)| judged.forest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_take_as_long_as_they_took() {
        let seconds = Duration::from_secs;
        let interval = |at: u64| Interval {
            timestamp: seconds(at),
            elapsed: seconds(1),
            seen: Observation::default(),
            features: Features::default(),
            idle: false,
            label: None,
        };
        let check = |at: &[u64], expected: &[u64]| {
            let intervals: Vec<Interval> = at.iter().map(|&at| interval(at)).collect();
            let expected: Vec<Duration> = expected.iter().map(|&end| seconds(end)).collect();
            assert_eq!(ends(&intervals), expected);
        };
        check(&[], &[]);
        check(&[500], &[1]);
        check(&[500, 740, 980], &[1, 241, 481]);
        check(&[500, 400, 410], &[1, 1, 11]);
    }
}
