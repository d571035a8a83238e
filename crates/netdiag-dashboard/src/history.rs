//! What was measured, in bounded memory: every interval of the last hour or so, and before that the extremes of ever longer
//! buckets.
//!
//! Averages would hide what the dashboard is for, so a bucket keeps two points: one of its minima and one of its maxima. A
//! spike of one interval is as high in the view of a week as it was when it came.
//!
//! Points are kept in chunks that never change once they are full. A chunk's form on the wire is written when somebody first
//! asks and then shared by all, so a thousand viewers who read slowly hold one history and not a thousand.
//!
//! Invariants: times ascend; memory is bounded whatever is pushed; no extreme is lost before its tier's end.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use netdiag_pacer::{Hint, State};
use netdiag_telemetry::LinkSample;

use crate::wire;

/// Points in a chunk: about a minute at the usual two per second, some 25 kB on the wire.
const CHUNK: usize = 128;

/// What a tier keeps: buckets this wide (`None`: points as they come), and so many points of them.
const TIERS: [(Option<f64>, usize); 3] = [
    // An hour at two points per second.
    (None, 7_296),
    // A day of ten seconds, two points each.
    (Some(10.0), 17_280),
    // A week of two minutes.
    (Some(120.0), 10_112),
];

/// A step back of the clock up to which points are put close behind each other; beyond, a new history begins. Recordings of
/// the original family have whole seconds, so several rows may share one.
const SMALL_STEP_BACK: f64 = 2.0;

/// The time between points that claim the same moment, seconds.
const CLOSE: f64 = 0.001;

/// Values of a point.
pub(crate) const VALUES: usize = 11;

/// One interval as the charts show it. NaN is "not measured".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// End of the interval, Unix seconds.
    pub(crate) t: f64,
    /// In the order of [`wire::COLUMNS`].
    pub(crate) values: [f64; VALUES],
    pub(crate) state: State,
}

impl Point {
    /// The interval `sample` of the host, and what was recommended at its end.
    pub fn new(sample: &LinkSample, hint: &Hint) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let rtt = |of: fn(&netdiag_telemetry::RttSummary) -> Duration| {
            sample.rtt.as_ref().map_or(f64::NAN, |rtt| ms(of(rtt)))
        };
        let count = |count: Option<u32>| count.map_or(f64::NAN, f64::from);
        Self {
            t: sample.timestamp.as_secs_f64(),
            values: [
                rtt(|rtt| rtt.min),
                rtt(|rtt| rtt.avg),
                rtt(|rtt| rtt.p95),
                sample.retrans_segs as f64,
                hint.health,
                f64::from(u8::from(hint.anomaly)),
                hint.current_tps.get(),
                hint.target_tps.get(),
                sample.throughput_bps.unwrap_or(f64::NAN),
                count(sample.flows),
                count(sample.stalled_flows),
            ],
            state: hint.state,
        }
    }
}

/// The history of one host.
#[derive(Debug)]
pub(crate) struct History {
    tiers: [Tier; TIERS.len()],
    /// Points pushed so far: the number of the next one.
    pushed: u64,
    last: f64,
}

/// Points of one resolution, the oldest first.
#[derive(Debug)]
struct Tier {
    width: Option<f64>,
    capacity: usize,
    full: VecDeque<Arc<Chunk>>,
    open: Vec<Point>,
}

/// A part of the history.
#[derive(Debug)]
pub(crate) enum Piece {
    Full(Arc<Chunk>),
    Open(Vec<Point>),
}

/// Points that do not change any more, and their form on the wire once somebody has asked for it.
#[derive(Debug)]
pub(crate) struct Chunk {
    points: Vec<Point>,
    event: OnceLock<Bytes>,
}

impl History {
    pub(crate) fn new() -> Self {
        let tier = |(width, capacity)| Tier {
            width,
            capacity,
            full: VecDeque::new(),
            open: Vec::with_capacity(CHUNK),
        };
        Self { tiers: TIERS.map(tier), pushed: 0, last: f64::NEG_INFINITY }
    }

    /// Takes in a point. False if the clock has jumped back so far that what was before does not belong to it: then there is
    /// only this point.
    pub(crate) fn push(&mut self, mut point: Point) -> bool {
        let fits = point.t > self.last - SMALL_STEP_BACK;
        if !fits {
            let pushed = self.pushed;
            *self = Self { pushed, ..Self::new() };
        }
        point.t = point.t.max(self.last + CLOSE);
        self.last = point.t;
        self.pushed += 1;
        let mut down = vec![point];
        for tier in &mut self.tiers {
            down = tier.push(&down);
            if down.is_empty() {
                break;
            }
        }
        fits
    }

    /// The number of the next point.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Everything, the oldest first. Cheap: what it looks like on the wire is written when it is asked for.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for tier in self.tiers.iter().rev() {
            pieces.extend(tier.full.iter().map(|chunk| Piece::Full(Arc::clone(chunk))));
            if !tier.open.is_empty() {
                pieces.push(Piece::Open(tier.open.clone()));
            }
        }
        pieces
    }

    /// The points with these numbers, as far as they are still there one by one.
    pub(crate) fn recent(&self, numbers: Range<u64>) -> Vec<Point> {
        let tier = &self.tiers[0];
        let oldest = self.pushed - tier.len() as u64;
        let skip = usize::try_from(numbers.start.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let take = usize::try_from(numbers.end.saturating_sub(numbers.start.max(oldest)));
        tier.points().skip(skip).take(take.unwrap_or(usize::MAX)).copied().collect()
    }

    #[cfg(test)]
    fn points(&self) -> Vec<Point> {
        self.tiers.iter().rev().flat_map(Tier::points).copied().collect()
    }
}

impl Tier {
    /// Takes in points, and gives back those that there is no room for any more.
    fn push(&mut self, points: &[Point]) -> Vec<Point> {
        let mut gone = Vec::new();
        let folded;
        let points = match self.width {
            None => points,
            Some(width) => {
                folded = fold(points, width);
                &folded
            }
        };
        for &point in points {
            self.open.push(point);
            if self.open.len() == CHUNK {
                let points = std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK));
                self.full.push_back(Arc::new(Chunk { points, event: OnceLock::new() }));
            }
        }
        while self.len() > self.capacity {
            let Some(oldest) = self.full.pop_front() else { break };
            gone.extend_from_slice(&oldest.points);
        }
        gone
    }

    fn len(&self) -> usize {
        self.full.len() * CHUNK + self.open.len()
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.full.iter().flat_map(|chunk| &chunk.points).chain(&self.open)
    }
}

impl Piece {
    /// As an event.
    pub(crate) fn event(&self) -> Bytes {
        match self {
            Piece::Full(chunk) => chunk.event.get_or_init(|| wire::rows(&chunk.points)).clone(),
            Piece::Open(points) => wire::rows(points),
        }
    }
}

/// Two points for each bucket of `width` seconds: its minima at the time of its first point, its maxima at that of its last.
fn fold(points: &[Point], width: f64) -> Vec<Point> {
    let bucket = |point: &Point| (point.t / width).floor();
    let mut folded = Vec::new();
    for points in points.chunk_by(|a, b| bucket(a) == bucket(b)) {
        let [first, .., last] = points else {
            folded.extend_from_slice(points);
            continue;
        };
        // Of a number and NaN these take the number.
        let over = |pick: fn(f64, f64) -> f64| {
            std::array::from_fn(|value| {
                points.iter().map(|point| point.values[value]).fold(f64::NAN, pick)
            })
        };
        folded.push(Point { values: over(f64::min), ..*first });
        folded.push(Point { values: over(f64::max), ..*last });
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(t: f64, value: f64) -> Point {
        Point { t, values: [value; VALUES], state: State::Clear }
    }

    fn highest(points: &[Point]) -> f64 {
        points.iter().map(|point| point.values[2]).fold(f64::NAN, f64::max)
    }

    #[test]
    fn a_spike_stays_as_high_as_it_was() {
        let mut history = History::new();
        for number in 0..400_000_u32 {
            let value = if number == 20_000 { 900.0 } else { 20.0 };
            history.push(point(f64::from(number) * 0.5, value));
        }
        // It is more than two days old by now, in the widest buckets.
        let points = history.points();
        let spike = points.iter().find(|point| point.values[2] == 900.0).expect("the spike");
        assert!((spike.t - 10_000.0).abs() < 120.0, "{}", spike.t);
        assert_eq!(highest(&points), 900.0);
        // The last hour is whole.
        assert!(history.recent(400_000 - 7_168..400_000).len() == 7_168);
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::new();
        let most: usize = TIERS.iter().map(|&(_, capacity)| capacity + CHUNK).sum();
        for number in 0..3_000_000_u32 {
            history.push(point(f64::from(number), f64::from(number % 7)));
        }
        assert!(history.points().len() <= most, "{}", history.points().len());
    }

    #[test]
    fn what_is_not_measured_stays_so_and_hides_nothing() {
        let folded = fold(&[point(1.0, f64::NAN), point(2.0, 5.0), point(3.0, 4.0)], 10.0);
        assert_eq!(folded.iter().map(|point| point.values[0]).collect::<Vec<_>>(), [4.0, 5.0]);
        let folded = fold(&[point(1.0, f64::NAN), point(2.0, f64::NAN)], 10.0);
        assert!(folded.iter().all(|point| point.values[0].is_nan()));
        // A bucket of one point has one point.
        assert_eq!(fold(&[point(1.0, 3.0), point(11.0, 4.0)], 10.0).len(), 2);
    }

    #[test]
    fn recent_points_are_found_by_number() {
        let mut history = History::new();
        for number in 0..300_u32 {
            history.push(point(number.into(), number.into()));
        }
        let check = |numbers: Range<u64>, expected: &[f64]| {
            let found: Vec<f64> = history.recent(numbers).iter().map(|point| point.t).collect();
            assert_eq!(found, expected);
        };
        check(297..300, &[297.0, 298.0, 299.0]);
        check(0..2, &[0.0, 1.0]);
        check(299..299, &[]);
        check(300..400, &[]);
    }

    #[test]
    fn a_clock_that_jumps_back_begins_anew_and_one_that_stands_does_not() {
        let mut history = History::new();
        assert!(history.push(point(100.0, 1.0)));
        assert!(history.push(point(100.0, 2.0)));
        assert!(history.push(point(99.0, 3.0)));
        assert_eq!(history.points().len(), 3);
        assert!(!history.push(point(10.0, 4.0)));
        assert_eq!(history.points(), [point(10.0, 4.0)]);
        assert_eq!(history.pushed(), 4);
    }

    proptest! {
        #[test]
        fn times_ascend_and_extremes_remain(steps in prop::collection::vec((-1.0_f64..40.0, 0.0_f64..9.0), 1..2000)) {
            let mut history = History::new();
            let mut t = 1e9;
            for &(step, value) in &steps {
                t += step;
                history.push(point(t, value));
            }
            let points = history.points();
            prop_assert!(points.windows(2).all(|pair| pair[0].t < pair[1].t));
            let expected = steps.iter().map(|&(_, value)| value).fold(f64::NAN, f64::max);
            prop_assert_eq!(highest(&points), expected);
        }
    }
}
