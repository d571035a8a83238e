//! What each process weighs, second by second, and whether it grows.
//!
//! Growth is that of a robust line: the median of the slopes between all pairs of samples (Theil and Sen), which a third of outliers do
//! not move, times the length of the warm time, relative to the median at its beginning. A single look at both ends would find whatever a
//! burst of connections happens to occupy. Each life of a process is judged by itself, since a new one begins with nothing.
//!
//! What a process is made to remember is no growth: the dashboard's history fills for an hour, and is what it is from then on, so for
//! who has one the line is judged less [`HISTORY_KB`].

use std::time::{Duration, Instant};

use super::parts::Id;

/// How much of what it weighs a process may grow by.
pub(super) const MOST_GROWTH: f64 = 0.01;

/// What a dashboard's history takes in a second, KB: two points of 104 bytes, and of 128 points a form on the wire of some 25 kB.
const HISTORY_KB: f64 = 0.6;

/// Descriptors more than at the beginning of the warm time: a connection or two may be new.
pub(super) const MOST_DESCRIPTORS: usize = 8;

/// A life is judged by no less than this.
const LEAST: Duration = Duration::from_secs(120);

/// One look at a process.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    rss_kb: f64,
    descriptors: usize,
    is_warm: bool,
}

/// A process from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) id: Id,
    samples: Vec<Sample>,
}

/// What is said of a life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) seconds: f64,
    pub(super) warm_kb: f64,
    pub(super) end_kb: f64,
    /// Of what it weighed when warm.
    pub(super) share: f64,
    /// Fewest in the last third less fewest in the first.
    pub(super) descriptors: i64,
}

impl Life {
    pub(super) fn new(id: Id) -> Self {
        Self { id, samples: Vec::new() }
    }

    pub(super) fn note(&mut self, (rss_kb, descriptors): (f64, usize), is_warm: bool) {
        self.samples.push(Sample { at: Instant::now(), rss_kb, descriptors, is_warm });
    }

    /// The last look at it, KB.
    pub(super) fn newest(&self) -> Option<f64> {
        self.samples.last().map(|sample| sample.rss_kb)
    }

    /// All looks at it as lines of CSV: its name, seconds since `begun`, KB, descriptors.
    pub(super) fn lines(&self, begun: Instant) -> impl Iterator<Item = String> {
        self.samples.iter().map(move |sample| {
            let at = sample.at.saturating_duration_since(begun).as_secs_f64();
            let Sample { rss_kb, descriptors, .. } = sample;
            format!("{},{at:.1},{rss_kb:.0},{descriptors}\n", self.id.name())
        })
    }

    /// How it grew while it was warm; `None` where that was too short.
    pub(super) fn growth(&self) -> Option<Growth> {
        let warm: Vec<Sample> =
            self.samples.iter().filter(|sample| sample.is_warm).copied().collect();
        let first = warm.first()?.at;
        let length = warm.last()?.at - first;
        if length < LEAST {
            return None;
        }
        let points: Vec<(f64, f64)> =
            warm.iter().map(|sample| ((sample.at - first).as_secs_f64(), sample.rss_kb)).collect();
        let tenth = (warm.len() / 10).max(1);
        let level =
            |samples: &[Sample]| median(samples.iter().map(|sample| sample.rss_kb).collect());
        let (warm_kb, end_kb) = (level(&warm[..tenth])?, level(&warm[warm.len() - tenth..])?);
        let third = warm.len() / 3;
        let fewest = |samples: &[Sample]| {
            samples.iter().map(|sample| sample.descriptors as i64).min().unwrap_or_default()
        };
        let descriptors = fewest(&warm[warm.len() - third..]) - fewest(&warm[..third]);
        let seconds = length.as_secs_f64();
        let history = if self.id.has_history() { HISTORY_KB } else { 0.0 };
        Some(Growth {
            seconds,
            warm_kb,
            end_kb,
            share: (slope(&points)? - history) * seconds / warm_kb,
            descriptors,
        })
    }
}

impl Growth {
    pub(super) fn is_bounded(&self) -> bool {
        self.share < MOST_GROWTH && self.descriptors <= MOST_DESCRIPTORS as i64
    }
}

/// The median of the slopes of all pairs (Sen 1968).
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, &(x, y)) in points.iter().enumerate() {
        for &(x_before, y_before) in &points[..index] {
            if x > x_before {
                slopes.push((y - y_before) / (x - x_before));
            }
        }
    }
    median(slopes)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(seconds: u64, rss_kb: impl Fn(u64) -> f64, warm_from: u64) -> Life {
        life_of(Id::Agent, seconds, rss_kb, warm_from)
    }

    fn life_of(id: Id, seconds: u64, rss_kb: impl Fn(u64) -> f64, warm_from: u64) -> Life {
        let zero = Instant::now();
        let sample = |second: u64| Sample {
            at: zero + Duration::from_secs(second),
            rss_kb: rss_kb(second),
            descriptors: 20 + (second % 7) as usize,
            is_warm: second >= warm_from,
        };
        Life { id, samples: (0..=seconds).map(sample).collect() }
    }

    #[test]
    fn a_leak_is_found_and_bursts_are_not() {
        let check = |rss_kb: fn(u64) -> f64, is_bounded: bool| {
            let growth = life(500, rss_kb, 100).growth().expect("long enough");
            assert_eq!(growth.is_bounded(), is_bounded, "{growth:?}");
        };
        check(|_| 50_000.0, true);
        // A page each second is 1600 KB in 400 s: 3 %.
        check(|second| 50_000.0 + 4.0 * second as f64, false);
        // One in six seconds is 0.5 %.
        check(|second| 50_000.0 + 4.0 * (second / 6) as f64, true);
        // What is used while connections are many, and given back.
        check(|second| if second % 50 < 10 { 70_000.0 } else { 50_000.0 }, true);
        // What is filled before the process is warm.
        check(|second| 50_000.0 + 100.0 * second.min(99) as f64, true);
        check(|second| 50_000.0 - second as f64, true);
    }

    #[test]
    fn a_history_that_fills_is_no_leak() {
        let check = |kb_per_second: f64, is_bounded: bool| {
            let rss_kb = |second: u64| 15_000.0 + kb_per_second * second as f64;
            let growth = life_of(Id::Dashboard, 500, rss_kb, 100).growth().expect("long enough");
            assert_eq!(growth.is_bounded(), is_bounded, "{growth:?}");
            let other = life(500, rss_kb, 100).growth().expect("long enough");
            assert!(!other.is_bounded(), "{other:?}");
        };
        check(0.6, true);
        check(1.2, false);
    }

    #[test]
    fn what_is_too_short_is_not_judged() {
        assert_eq!(life(200, |_| 1.0, 100).growth(), None);
        assert_eq!(Life::new(Id::Up).growth(), None);
    }

    #[test]
    fn descriptors_that_are_never_given_back_are_found() {
        let mut life = life(500, |_| 1.0, 0);
        for (second, sample) in life.samples.iter_mut().enumerate() {
            sample.descriptors += second / 20;
        }
        let growth = life.growth().expect("long enough");
        assert!(growth.descriptors > 8 && !growth.is_bounded(), "{growth:?}");
    }
}
