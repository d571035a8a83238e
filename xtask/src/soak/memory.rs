//! What each process weighs, second by second, and whether it grows.
//!
//! Each round has every fault once, so a process is compared round by round: the median of a round's looks is free of what single faults
//! make it take and give back. Growth is that of a robust line through the rounds (Theil 1950, Sen 1968): the median of the slopes between
//! all pairs, times the length of the warm time, relative to the first rounds. It is one if it reaches [`MOST_GROWTH`] and the slope's
//! 95 % interval lies above zero. If the interval does not, it is in doubt, and said to be; an interval so wide that [`RESOLVED`] more or
//! less would be in doubt is a miss as well. (95 % if rounds were independent: what a process keeps from one to the next makes it less.)
//! Each life of a process is judged by itself, since a new one begins with nothing.

use std::time::Instant;

use super::parts::Id;
use crate::median::median;
use crate::process::Memory;

/// How much of what it weighs a process may grow by: what is asked of a soak.
pub(super) const MOST_GROWTH: f64 = 0.01;

/// Half the width that the interval of what may be a growth may have: the gateway's, whose rounds differ by some 1.5 %, has 2 % in half an
/// hour.
const RESOLVED: f64 = 0.03;

/// Descriptors more than at the beginning of the warm time: a few connections may be new, and a fault that kept one would keep more, since
/// each comes ten times.
pub(super) const MOST_DESCRIPTORS: i64 = 8;

/// A life is judged by no fewer rounds than this: all six slopes of four are less than 95 %.
pub(super) const LEAST_ROUNDS: usize = 5;

/// Standard deviations of the normal distribution within which 95 % lie.
const Z_95: f64 = 1.96;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    rss_kb: f64,
    /// Of that, what it has allocated.
    anonymous_kb: f64,
    descriptors: usize,
    /// Which round of faults it was, where the process is warm.
    round: Option<usize>,
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
    /// Within what the share is with 95 %.
    pub(super) interval: [f64; 2],
    /// Fewest in the last third less fewest in the first.
    pub(super) descriptors: i64,
}

impl Life {
    pub(super) fn new(id: Id) -> Self {
        Self { id, samples: Vec::new() }
    }

    pub(super) fn note(&mut self, (memory, descriptors): (Memory, usize), round: Option<usize>) {
        self.samples.push(Sample {
            at: Instant::now(),
            rss_kb: memory.resident as f64 / 1024.0,
            anonymous_kb: memory.anonymous as f64 / 1024.0,
            descriptors,
            round,
        });
    }

    /// The last look at it, KB.
    pub(super) fn newest(&self) -> Option<f64> {
        self.samples.last().map(|sample| sample.rss_kb)
    }

    /// All looks at it as lines of CSV: its name, seconds since `begun`, KB, those of them allocated, descriptors, its round or nothing.
    pub(super) fn lines(&self, begun: Instant) -> impl Iterator<Item = String> {
        self.samples.iter().map(move |sample| {
            let at = sample.at.saturating_duration_since(begun).as_secs_f64();
            let Sample { rss_kb, anonymous_kb, descriptors, round, .. } = sample;
            let round = round.map(|round| round.to_string()).unwrap_or_default();
            format!(
                "{},{at:.1},{rss_kb:.0},{anonymous_kb:.0},{descriptors},{round}\n",
                self.id.name()
            )
        })
    }

    /// How it grew while it was warm; `None` where that was too short.
    pub(super) fn growth(&self) -> Option<Growth> {
        let warm: Vec<Sample> =
            self.samples.iter().filter(|sample| sample.round.is_some()).copied().collect();
        let begun = warm.first()?.at;
        let point = |round: &[Sample]| {
            let kb = median(round.iter().map(|sample| sample.rss_kb));
            ((round[round.len() / 2].at - begun).as_secs_f64(), kb)
        };
        let rounds: Vec<(f64, f64)> = warm.chunk_by(|a, b| a.round == b.round).map(point).collect();
        if rounds.len() < LEAST_ROUNDS {
            return None;
        }
        let fifth = rounds.len() / 5;
        let level = |rounds: &[(f64, f64)]| median(rounds.iter().map(|&(_, kb)| kb));
        let (warm_kb, end_kb) = (level(&rounds[..fifth]), level(&rounds[rounds.len() - fifth..]));
        let third = warm.len() / 3;
        let fewest = |samples: &[Sample]| {
            samples.iter().map(|sample| sample.descriptors as i64).min().unwrap_or_default()
        };
        let descriptors = fewest(&warm[warm.len() - third..]) - fewest(&warm[..third]);
        let seconds = (warm.last()?.at - begun).as_secs_f64();
        let [low, share, high] = line(&rounds)?.map(|slope| slope * seconds / warm_kb);
        Some(Growth { seconds, warm_kb, end_kb, share, interval: [low, high], descriptors })
    }
}

impl Growth {
    pub(super) fn is_bounded(&self) -> bool {
        self.wrong().is_none()
    }

    /// A growth that may be none.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.share >= MOST_GROWTH && self.is_bounded()
    }

    /// What is not as it should be.
    pub(super) fn wrong(&self) -> Option<String> {
        let Self { share, interval: [low, high], descriptors, seconds, .. } = *self;
        let percent = |share: f64| share * 100.0;
        if share >= MOST_GROWTH && low > 0.0 {
            return Some(format!("grew by {:.2} % in {seconds:.0} s", percent(share)));
        }
        if high >= MOST_GROWTH && (high - low) / 2.0 > RESOLVED {
            let (low, high) = (percent(low), percent(high));
            return Some(format!("grew by {low:.2} to {high:.2} % in {seconds:.0} s: take longer"));
        }
        (descriptors > MOST_DESCRIPTORS)
            .then(|| format!("kept {descriptors} descriptors in {seconds:.0} s"))
    }
}

/// The median of the slopes of all pairs between the ends of its 95 % interval, which are as many places apart as Kendall's S is wide,
/// whose variance is n (n - 1) (2 n + 5) / 18 (Sen 1968, in the form of Hollander & Wolfe 1973, 9.3).
fn line(points: &[(f64, f64)]) -> Option<[f64; 3]> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, &(x, y)) in points.iter().enumerate() {
        for &(x_before, y_before) in &points[..index] {
            slopes.push((y - y_before) / (x - x_before));
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let n = points.len() as f64;
    let far = Z_95 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let pairs = slopes.len() as f64;
    let low = (((pairs - far) / 2.0).round() - 1.0).max(0.0) as usize;
    let high = slopes.len().checked_sub(low + 1)?;
    Some([slopes[low], median(slopes.iter().copied()), slopes[high]])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROUND: u64 = 77;

    /// A life of two rounds to get warm, and of `rounds` more.
    fn life(rounds: u64, rss_kb: impl Fn(u64) -> f64) -> Life {
        let zero = Instant::now();
        let sample = |second: u64| Sample {
            at: zero + Duration::from_secs(second),
            rss_kb: rss_kb(second),
            anonymous_kb: 0.0,
            descriptors: 20 + (second % 7) as usize,
            round: (second / ROUND).checked_sub(2).map(|round| round as usize),
        };
        Life { id: Id::Agent, samples: (0..ROUND * (2 + rounds)).map(sample).collect() }
    }

    /// As much as the gateway's rounds differ: some 1.5 % either way, in an order that looks like growth.
    fn noise(second: u64) -> f64 {
        [0.0, 180.0, -240.0, 90.0, 260.0, -120.0, -300.0][(second / ROUND * 3 % 7) as usize]
    }

    #[test]
    fn a_leak_is_found_and_bursts_are_not() {
        let check = |rss_kb: fn(u64) -> f64, is_bounded: bool| {
            let growth = life(13, rss_kb).growth().expect("long enough");
            assert_eq!(growth.is_bounded(), is_bounded, "{growth:?}");
            growth
        };
        check(|_| 50_000.0, true);
        // A page in two seconds is 2000 KB in 1000 s: 4 %.
        check(|second| 50_000.0 + 2.0 * second as f64, false);
        // One in six seconds is 1.3 %.
        check(|second| 50_000.0 + 4.0 * (second / 6) as f64, false);
        // One in ten is 0.8 %.
        check(|second| 50_000.0 + 4.0 * (second / 10) as f64, true);
        // What is used while connections are many, and given back.
        check(|second| if second % 50 < 10 { 70_000.0 } else { 50_000.0 }, true);
        // What is filled before the process is warm.
        check(|second| 50_000.0 + 100.0 * second.min(150) as f64, true);
        check(|second| 50_000.0 - second as f64, true);
        // Rounds differ, and do not grow; and 3 % beside that.
        assert!(check(|second| 20_000.0 + noise(second), true).is_in_doubt());
        check(|second| 20_000.0 + noise(second) + 0.6 * second as f64, false);
        // They differ by more than can be looked through.
        check(|second| 20_000.0 + 10.0 * noise(second), false);
    }

    #[test]
    fn the_line_and_its_interval_are_sens() {
        // Of 10 slopes, 1 to 4, all: 1.96 * sqrt(5 * 4 * 15 / 18) = 8.0, and 10 - 8 is the first place and the last.
        let points = [(0.0, 0.0), (1.0, 1.0), (2.0, 3.0), (3.0, 6.0), (4.0, 10.0)];
        assert_eq!(line(&points), Some([1.0, 2.5, 4.0]));
        // Of 78 slopes, which here are the sums of 0 to 12, from the 23rd to the 56th.
        let points: Vec<(f64, f64)> = (0..13).map(f64::from).map(|x| (x, x * x)).collect();
        assert_eq!(line(&points), Some([9.0, 12.0, 15.0]));
    }

    #[test]
    fn what_is_too_short_is_not_judged() {
        assert_eq!(life(4, |_| 1.0).growth(), None);
        assert!(life(5, |_| 1.0).growth().is_some());
        assert_eq!(Life::new(Id::Up).growth(), None);
    }

    #[test]
    fn descriptors_that_are_never_given_back_are_found() {
        let mut life = life(13, |_| 1.0);
        for (second, sample) in life.samples.iter_mut().enumerate() {
            sample.descriptors += second / 40;
        }
        let growth = life.growth().expect("long enough");
        assert!(growth.descriptors > 8 && !growth.is_bounded(), "{growth:?}");
    }
}
