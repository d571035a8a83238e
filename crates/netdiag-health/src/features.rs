//! From intervals to features: what the forest and the rules look at.
//!
//! | feature | is | robust by |
//! | --- | --- | --- |
//! | `rtt_ratio` | ln of the recent p95 RTT over the link's own baseline | the lower median of the recent intervals |
//! | `rtt_spread` | ln of p95 RTT over the smallest, within an interval | the same |
//! | `retrans_rate` | segments retransmitted of those sent | leaving out the worst interval, and a prior |
//! | `rtt_slope` | growth of ln p95 RTT per second | the median of all pairwise slopes (Theil–Sen) |
//!
//! The baseline is a low quantile of the link's own p95, so that a long clean path is a healthy one. p95 is compared with p95,
//! because the smallest round trip leaves out the delayed ACKs that every p95 has in it.
//!
//! Round trips have a window of their own, and losses and stalls another, so that an interval that has only the one pushes
//! nothing out of the other. Time stands still while nothing is sent: an idle link shows nothing, so its baseline does not age.
//! After a while of it the recent intervals are forgotten, and the link is presumed healthy.
//!
//! Invariants: a single interval, however bad, moves no feature past what the intervals around it show; a window is so many
//! seconds, whatever the interval, and memory is bounded; of two last intervals after the same past, the one with the
//! longer p95 has no smaller ratio, and the one with more retransmissions or stalls no smaller rate or share.

mod recents;

use std::time::Duration;

use netdiag_telemetry::LinkSample;

use recents::{FEWEST, Join, MOST, Recents};

use crate::quantile::{RollingQuantile, quantile_of_sorted};

/// Number of features.
pub const FEATURES: usize = 4;

/// Their names, in the order of [`Features::to_row`] and of a model file.
pub const FEATURE_NAMES: [&str; FEATURES] =
    ["rtt_ratio", "rtt_spread", "retrans_rate", "rtt_slope"];

/// What the baseline is taken from. Long enough that a disturbance of minutes does not become the norm, short enough that a
/// path that has moved for good is accepted within an answer or two.
const BASELINE: Duration = Duration::from_secs(300);

/// The quantile that is the baseline: low, so that a link that is bad half of the time is still measured by what it can do;
/// not the lowest, which a single lucky interval would set.
const BASELINE_QUANTILE: f64 = 0.1;

/// And the one that ends the usual range.
const USUAL_QUANTILE: f64 = 0.9;

/// Added to both RTTs of a ratio: on a LAN half a millisecond is scheduling, and no token waits for it. Three times
/// the RTT is told from 1 ms up and, not being worth it, not below 0.3 ms.
const RTT_FLOOR: Duration = Duration::from_micros(500);

/// Segments without loss assumed beside the counted ones: one lost of two is then 4.5 %, three of a hundred 2.5 %.
const PRIOR_SEGMENTS: f64 = 20.0;

/// Segments per second assumed where the input does not count them (files of the original family), while something comes back.
const ASSUMED_SEGMENTS_PER_SECOND: f64 = 100.0;

/// Silence after which the recent intervals are forgotten: longer than a pause within an answer, shorter than one between
/// questions.
const IDLE_MEMORY: Duration = Duration::from_secs(5);

/// The longest interval: beyond all windows, and within what the baseline's clock can tell apart.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long a link is remembered that had retransmissions and no answer when it fell silent: a sender waits for up to two minutes
/// before the next (`TCP_RTO_MAX` of the kernel's `tcp.h`).
const UNANSWERED_MEMORY: Duration = Duration::from_secs(125);

/// Fewest points that have a slope: of five, one moves the median of slopes little (its breakdown point is 29 %).
const SLOPE_POINTS: usize = 5;

/// What one interval showed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// Smallest and 95th percentile of the RTT samples; `None` without samples.
    pub rtt: Option<RttRange>,
    /// Segments retransmitted.
    pub retrans_segs: u64,
    /// Segments sent, retransmissions included; `None` if not counted.
    pub segs_out: Option<u64>,
    /// Share of the flows with something to deliver that stall; anything outside 0..=1 is taken as its nearest end.
    pub stalled: f64,
}

/// The RTT samples of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttRange {
    /// Smallest.
    pub min: Duration,
    /// 95th percentile; a value below `min` is taken as `min`.
    pub p95: Duration,
}

impl From<&LinkSample> for Observation {
    fn from(sample: &LinkSample) -> Self {
        let stalled = f64::from(sample.stalled_flows.unwrap_or_default());
        let flows = f64::from(sample.flows.unwrap_or_default().max(1));
        Self {
            rtt: sample.rtt.map(|rtt| RttRange { min: rtt.min, p95: rtt.p95 }),
            retrans_segs: sample.retrans_segs,
            segs_out: sample.segs_out,
            stalled: (stalled / flows).min(1.0),
        }
    }
}

/// The features of a link at one moment. All finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// ln of recent p95 RTT over the baseline; 0 at the baseline, 1.1 at three times.
    pub rtt_ratio: f64,
    /// ln of p95 RTT over the smallest; 0 without spread.
    pub rtt_spread: f64,
    /// Retransmitted share of the segments sent, 0..=1.
    pub retrans_rate: f64,
    /// Growth of ln p95 RTT, per second; 0 where intervals are too long for five of them to be recent.
    pub rtt_slope: f64,
}

impl Features {
    /// In the order of [`FEATURE_NAMES`], as a forest takes them.
    pub fn to_row(self) -> [f32; FEATURES] {
        [self.rtt_ratio, self.rtt_spread, self.retrans_rate, self.rtt_slope]
            .map(|value| value as f32)
    }

    /// The inverse of [`to_row`](Self::to_row), to the accuracy of a row.
    pub(crate) fn from_row(row: [f32; FEATURES]) -> Self {
        let [rtt_ratio, rtt_spread, retrans_rate, rtt_slope] = row.map(f64::from);
        Self { rtt_ratio, rtt_spread, retrans_rate, rtt_slope }
    }
}

/// The recent intervals in plain figures, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Lower median of their p95 RTT; `None` before the first round trip.
    pub p95_rtt: Option<Duration>,
    /// The p95 RTT that this link has when it is well; `None` before the first round trip.
    pub usual_rtt: Option<Duration>,
    /// Segments retransmitted.
    pub retrans_segs: u64,
    /// Segments sent; `None` if they are not counted.
    pub segs_out: Option<u64>,
}

/// What the tracker says after an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) features: Features,
    /// Width of the link's usual range above its baseline, in `rtt_ratio`'s unit.
    pub(crate) usual: f64,
    pub(crate) recent: Recent,
    /// Share of flows that stall, lower median of the recent intervals.
    pub(crate) stalled: f64,
    /// Whether the last interval showed nothing.
    pub(crate) idle: bool,
}

/// The memory from which features are taken.
#[derive(Clone, Debug)]
pub(crate) struct FeatureTracker {
    now: Duration,
    round_trips: Recents<RoundTrip>,
    losses: Recents<Loss>,
    /// ln of p95 RTT with its floor, by the clock of `round_trips`.
    baseline: RollingQuantile,
    idle_for: Duration,
    /// The last interval that was not idle had retransmissions and no round trip.
    unanswered: bool,
}

/// ln of p95 RTT, and of it over the smallest, both with their floor.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    p95: f64,
    spread: f64,
}

impl Join for RoundTrip {
    fn join(&mut self, later: &Self) {
        self.p95 = self.p95.max(later.p95);
        self.spread = self.spread.max(later.spread);
    }
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    retrans_segs: u64,
    segs_out: Option<u64>,
    /// Segments taken to be sent where they are not counted.
    assumed_segs: f64,
    stalled: f64,
}

impl Join for Loss {
    fn join(&mut self, later: &Self) {
        self.retrans_segs = self.retrans_segs.saturating_add(later.retrans_segs);
        let segs = self.segs_out.zip(later.segs_out);
        self.segs_out = segs.map(|(before, after)| before.saturating_add(after));
        self.assumed_segs += later.assumed_segs;
        self.stalled = self.stalled.max(later.stalled);
    }
}

impl FeatureTracker {
    pub(crate) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            round_trips: Recents::default(),
            losses: Recents::default(),
            baseline: RollingQuantile::new(BASELINE),
            idle_for: Duration::ZERO,
            unanswered: false,
        }
    }

    /// Takes in an interval that lasted `elapsed`. The baseline that it is held against is that of the intervals before.
    pub(crate) fn observe(&mut self, seen: &Observation, elapsed: Duration) -> View {
        let elapsed = elapsed.min(LONGEST);
        self.now = self.now.saturating_add(elapsed);
        self.round_trips.forget(self.now);
        let (round_trip, loss) = (round_trip(seen), loss(seen, elapsed));
        // No round trip, no loss, and nobody waits: nothing to judge the path by.
        if round_trip.is_none() && loss.retrans_segs == 0 && loss.stalled <= 0.0 {
            self.rest(elapsed);
            return self.view(self.harm());
        }
        self.idle_for = Duration::ZERO;
        self.unanswered = round_trip.is_none() && loss.retrans_segs > 0;
        // What was lost before is no better for one more loss that pushes it out.
        let before = if round_trip.is_none() { self.harm() } else { Harm::default() };
        if !self.unanswered {
            self.losses.forget(self.now);
        }
        self.losses.push(self.now, elapsed, loss);
        let Some(round_trip) = round_trip else {
            return self.view(self.harm().or_worse(before));
        };
        self.round_trips.push(self.now, elapsed, round_trip);
        let view = self.view(self.harm());
        self.baseline.push(self.round_trips.clock(), round_trip.p95);
        view
    }

    /// Nothing was sent for so long.
    fn rest(&mut self, elapsed: Duration) {
        self.idle_for = self.idle_for.saturating_add(elapsed);
        let memory = if self.unanswered { UNANSWERED_MEMORY } else { IDLE_MEMORY };
        if self.idle_for >= IDLE_MEMORY {
            self.round_trips.clear();
        }
        if self.idle_for >= memory {
            self.losses.clear();
            self.unanswered = false;
        }
        if !self.unanswered {
            self.losses.forget(self.now);
        }
    }

    fn harm(&self) -> Harm {
        Harm {
            retrans_rate: retrans_rate(self.losses.iter()),
            stalled: lower_median(self.losses.iter().map(|loss| loss.stalled)),
        }
    }

    fn view(&self, harm: Harm) -> View {
        let round_trips = || self.round_trips.iter();
        let recent = lower_median_of_some(round_trips().map(|seen| seen.p95));
        // Until there is something to compare with, a link is what it is.
        let baseline = self.low_quantile(BASELINE_QUANTILE).or(recent);
        let usual = match (self.baseline.quantile(USUAL_QUANTILE), baseline) {
            (Some(high), Some(low)) => high - low,
            _ => 0.0,
        };
        let base = baseline.unwrap_or(0.0);
        let rtt_ratio = lower_median(round_trips().map(|seen| seen.p95 - base));
        let losses = || self.losses.iter();
        View {
            features: Features {
                rtt_ratio,
                rtt_spread: lower_median(round_trips().map(|seen| seen.spread)),
                retrans_rate: harm.retrans_rate,
                rtt_slope: theil_sen(&self.round_trips.timed(|seen| seen.p95)),
            },
            usual: usual.max(0.0),
            recent: Recent {
                p95_rtt: baseline.and_then(|_| rtt_of(base + rtt_ratio)),
                usual_rtt: baseline.and_then(rtt_of),
                retrans_segs: losses().fold(0, |segs, loss| segs.saturating_add(loss.retrans_segs)),
                segs_out: losses()
                    .try_fold(0, |segs: u64, loss| Some(segs.saturating_add(loss.segs_out?))),
            },
            stalled: harm.stalled,
            idle: !self.idle_for.is_zero() || self.round_trips.is_empty() && self.losses.is_empty(),
        }
    }

    /// A quantile of the baseline, but no lower than its second lowest value, which may be the only lucky one; `None` before
    /// there are three.
    fn low_quantile(&self, q: f64) -> Option<f64> {
        let steps = self.baseline.len().checked_sub(1).filter(|&steps| steps + 1 >= FEWEST)?;
        self.baseline.quantile(q.max(1.0 / steps as f64))
    }
}

/// What recent losses and stalls come to, each 0..=1.
#[derive(Clone, Copy, Debug, Default)]
struct Harm {
    retrans_rate: f64,
    stalled: f64,
}

impl Harm {
    fn or_worse(self, other: Self) -> Self {
        Self {
            retrans_rate: self.retrans_rate.max(other.retrans_rate),
            stalled: self.stalled.max(other.stalled),
        }
    }
}

fn round_trip(seen: &Observation) -> Option<RoundTrip> {
    // In the precision in which the baseline is kept, so that a link at its baseline is exactly that.
    let ln = |rtt: Duration| f64::from(rtt.saturating_add(RTT_FLOOR).as_secs_f64().ln() as f32);
    let rtt = seen.rtt?;
    let p95 = ln(rtt.p95.max(rtt.min));
    Some(RoundTrip { p95, spread: p95 - ln(rtt.min) })
}

fn loss(seen: &Observation, elapsed: Duration) -> Loss {
    // Where nothing comes back, nothing is sent but what is lost, and the prior stands in for that.
    let assumed = if seen.rtt.is_some() { ASSUMED_SEGMENTS_PER_SECOND } else { 0.0 };
    Loss {
        retrans_segs: seen.retrans_segs,
        segs_out: seen.segs_out,
        assumed_segs: assumed * elapsed.as_secs_f64(),
        stalled: if seen.stalled.is_nan() { 0.0 } else { seen.stalled.clamp(0.0, 1.0) },
    }
}

/// The inverse of what a [`RoundTrip`] keeps.
fn rtt_of(ln: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ln.exp()).ok().map(|rtt| rtt.saturating_sub(RTT_FLOOR))
}

/// The lower median; of fewer than three values as if zeros stood in for the missing ones, so that one value alone is outvoted.
fn lower_median(values: impl Iterator<Item = f64>) -> f64 {
    let (mut kept, count) = collect(values);
    let count = count.max(FEWEST);
    *kept[..count].select_nth_unstable_by((count - 1) / 2, f64::total_cmp).1
}

/// The lower median of as many as there are.
fn lower_median_of_some(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut kept, count) = collect(values);
    let middle = count.checked_sub(1)? / 2;
    Some(*kept[..count].select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Up to [`MOST`] values, and how many they are.
fn collect(values: impl Iterator<Item = f64>) -> ([f64; MOST], usize) {
    let mut kept = [0.0; MOST];
    let mut count = 0;
    for (place, value) in kept.iter_mut().zip(values) {
        *place = value;
        count += 1;
    }
    (kept, count)
}

/// Pooled over all intervals but the one with the most retransmissions.
fn retrans_rate<'a>(losses: impl Iterator<Item = &'a Loss> + Clone) -> f64 {
    let retrans = || losses.clone().map(|loss| loss.retrans_segs as f64);
    let segs =
        losses.clone().map(|loss| loss.segs_out.map_or(loss.assumed_segs, |segs| segs as f64));
    let counted = retrans().sum::<f64>() - retrans().fold(0.0, f64::max);
    // Counts that two sources took at different moments may disagree.
    (counted / (segs.sum::<f64>() + PRIOR_SEGMENTS)).min(1.0)
}

/// Median of the slopes between all pairs of points (Theil 1950, Sen 1968), which a single spike does not move.
fn theil_sen(points: &[(f64, f64)]) -> f64 {
    if points.len() < SLOPE_POINTS {
        return 0.0;
    }
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (i, a) in points.iter().enumerate() {
        slopes.extend(points[i + 1..].iter().map(|b| (b.1 - a.1) / (b.0 - a.0).max(f64::EPSILON)));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    quantile_of_sorted(&slopes, 0.5).unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
