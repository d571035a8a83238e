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
    /// What came for the bucket that is not over yet.
    bucket: Vec<Point>,
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
            bucket: Vec::new(),
        };
        Self { tiers: TIERS.map(tier), pushed: 0, last: f64::NEG_INFINITY }
    }

    /// Takes in a point. False if the clock has jumped back so far that points of the time after it had to go: what was sent of
    /// them is no longer what is kept.
    pub(crate) fn push(&mut self, mut point: Point) -> bool {
        let fits = point.t > self.last - SMALL_STEP_BACK;
        if !fits {
            self.last = f64::NEG_INFINITY;
            for tier in self.tiers.iter_mut().rev() {
                self.last = tier.keep_before(point.t).unwrap_or(self.last);
            }
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
            let open: Vec<Point> =
                tier.open.iter().copied().chain(fold(&tier.bucket, tier.width)).collect();
            if !open.is_empty() {
                pieces.push(Piece::Open(open));
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
        let tiers = self.tiers.iter().rev();
        tiers
            .flat_map(|tier| tier.points().copied().chain(fold(&tier.bucket, tier.width)))
            .collect()
    }
}

impl Tier {
    /// Takes in points, and gives back those that there is no room for any more.
    fn push(&mut self, points: &[Point]) -> Vec<Point> {
        let mut gone = Vec::new();
        for &point in points {
            match self.width {
                None => self.keep(point),
                Some(width) => {
                    let number = |point: &Point| (point.t / width).floor();
                    if self.bucket.first().is_some_and(|first| number(first) != number(&point)) {
                        let bucket = std::mem::take(&mut self.bucket);
                        fold(&bucket, self.width).into_iter().for_each(|point| self.keep(point));
                    }
                    self.bucket.push(point);
                    // However fast points come, the bucket that is not over is a chunk at most.
                    if self.bucket.len() == CHUNK {
                        self.bucket = fold(&self.bucket, self.width);
                    }
                }
            }
        }
        while self.len() > self.capacity {
            let Some(oldest) = self.full.pop_front() else { break };
            gone.extend_from_slice(&oldest.points);
        }
        gone
    }

    fn keep(&mut self, point: Point) {
        self.open.push(point);
        if self.open.len() == CHUNK {
            let points = std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK));
            self.full.push_back(Arc::new(Chunk { points, event: OnceLock::new() }));
        }
    }

    /// Forgets all points from `t` on, and says when the last of the others was.
    fn keep_before(&mut self, t: f64) -> Option<f64> {
        let before = |point: &Point| point.t < t;
        let points: Vec<Point> = self.points().copied().filter(before).collect();
        self.bucket.retain(before);
        self.full.clear();
        self.open.clear();
        points.into_iter().for_each(|point| self.keep(point));
        self.bucket.last().or(self.points().last()).map(|point| point.t)
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

/// The two points of a bucket: its minima at the time of its first point, its maxima at that of its last, both in its worst
/// state. Points that are no bucket's stay as they are.
fn fold(points: &[Point], width: Option<f64>) -> Vec<Point> {
    let (Some(_), [first, .., last]) = (width, points) else { return points.to_vec() };
    // Of a number and NaN these take the number.
    let over = |pick: fn(f64, f64) -> f64| {
        std::array::from_fn(|value| {
            points.iter().map(|point| point.values[value]).fold(f64::NAN, pick)
        })
    };
    let states = points.iter().map(|point| point.state);
    let state = states.max_by_key(|&state| severity(state)).unwrap_or(first.state);
    vec![
        Point { values: over(f64::min), state, ..*first },
        Point { values: over(f64::max), state, ..*last },
    ]
}

/// Which state of a bucket is told: the one that somebody would look for.
fn severity(state: State) -> u8 {
    match state {
        State::Idle => 0,
        State::Clear => 1,
        State::Stale => 2,
        State::Reader => 3,
        State::Constrained => 4,
        State::Stalled => 5,
    }
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
        assert!((spike.t - 10_000.0).abs() <= 120.0, "{}", spike.t);
        assert_eq!(highest(&points), 900.0);
        // The last hour is whole.
        assert!(history.recent(400_000 - 7_168..400_000).len() == 7_168);
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::new();
        let most: usize = TIERS.iter().map(|&(_, capacity)| capacity + CHUNK).sum();
        for number in 0..3_000_000_u32 {
            history.push(point(1.7e9 + f64::from(number), f64::from(number) / 1234.5));
        }
        let points = history.points().len();
        assert!(points <= most, "{points}");
        // And once somebody has looked: what docs/operate.md says.
        let events: usize = history.pieces().iter().map(|piece| piece.event().len()).sum();
        let bytes = points * size_of::<Point>() + events;
        assert!((5_000_000..=10_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_not_measured_stays_so_and_hides_nothing() {
        let width = Some(10.0);
        let folded = fold(&[point(1.0, f64::NAN), point(2.0, 5.0), point(3.0, 4.0)], width);
        assert_eq!(folded.iter().map(|point| point.values[0]).collect::<Vec<_>>(), [4.0, 5.0]);
        assert_eq!(folded.iter().map(|point| point.t).collect::<Vec<_>>(), [1.0, 3.0]);
        let folded = fold(&[point(1.0, f64::NAN), point(2.0, f64::NAN)], width);
        assert!(folded.iter().all(|point| point.values[0].is_nan()));
        // A bucket of one point has one point, and the worst state is that of the bucket.
        assert_eq!(fold(&[point(1.0, 3.0)], width).len(), 1);
        let stalled = Point { state: State::Stalled, ..point(2.0, 1.0) };
        let folded = fold(&[point(1.0, 1.0), stalled, point(3.0, 1.0)], width);
        assert!(folded.iter().all(|point| point.state == State::Stalled));
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

    #[test]
    fn a_jump_takes_what_comes_after_it_and_no_more() {
        let mut history = History::new();
        for number in 0..20_000_u32 {
            history.push(point(f64::from(number), f64::from(number)));
        }
        assert!(!history.push(point(1_000.0, 0.5)));
        let points = history.points();
        assert_eq!(points.last(), Some(&point(1_000.0, 0.5)));
        assert!(points.windows(2).all(|pair| pair[0].t < pair[1].t));
        assert_eq!(points.first().map(|point| point.t), Some(0.0));
        assert!(points.len() > 150, "{}", points.len());
        assert!(history.push(point(1_001.0, 0.5)));
    }

    #[test]
    fn a_bucket_has_two_points_however_they_come() {
        let mut history = History::new();
        for number in 0..200_000_u32 {
            history.push(point(f64::from(number) * 0.5, f64::from(number % 7)));
        }
        let middle: Vec<f64> = history.tiers[1].points().map(|point| point.t).collect();
        let full = middle.chunk_by(|a, b| (a / 10.0).floor() == (b / 10.0).floor());
        assert!(full.clone().count() > 1000);
        assert!(full.skip(1).all(|bucket| bucket.len() <= 2));
    }

    proptest! {
        #[test]
        fn times_ascend_and_extremes_remain(steps in prop::collection::vec((0.0_f64..40.0, 1.0_f64..9.0), 1..2000)) {
            let mut history = History::new();
            // So small that most points end in the widest buckets.
            for (tier, capacity) in history.tiers.iter_mut().zip([CHUNK, CHUNK, 100 * CHUNK]) {
                tier.capacity = capacity;
            }
            let mut t = 1e9;
            for &(step, value) in &steps {
                t += step;
                history.push(point(t, value));
            }
            let points = history.points();
            prop_assert!(points.windows(2).all(|pair| pair[0].t < pair[1].t));
            let over = |pick: fn(f64, f64) -> f64| {
                let pushed = steps.iter().map(|&(_, value)| value).fold(f64::NAN, pick);
                let kept = points.iter().map(|point| point.values[2]).fold(f64::NAN, pick);
                (pushed, kept)
            };
            for (pushed, kept) in [over(f64::min), over(f64::max)] {
                prop_assert_eq!(pushed, kept);
            }
        }
    }
}
