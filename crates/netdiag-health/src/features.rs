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
//! Time stands still while nothing is sent: an idle link shows nothing, so nothing of it is recent and its baseline does not
//! age. After a while of it the recent intervals are forgotten, and the link is presumed healthy.
//!
//! Invariants: a single interval, however bad, moves no feature past what the intervals around it show; a window is so many
//! seconds, whatever the interval, and memory is bounded; of two last intervals after the same past, the one with the
//! longer p95 has no smaller ratio, and the one with more retransmissions no smaller rate.

use std::collections::VecDeque;
use std::time::Duration;

use netdiag_telemetry::LinkSample;

use crate::quantile::{RollingQuantile, quantile_of_sorted};

/// Number of features.
pub const FEATURES: usize = 4;

/// Their names, in the order of [`Features::to_row`] and of a model file.
pub const FEATURE_NAMES: [&str; FEATURES] =
    ["rtt_ratio", "rtt_spread", "retrans_rate", "rtt_slope"];

/// What counts as recent. A change must be told within three seconds; of the six intervals of half a second in them the lower
/// median needs four that agree, which is two seconds.
const RECENT: Duration = Duration::from_secs(3);

/// Fewest intervals that count as recent, however long they are: of three, one is outvoted.
const FEWEST: usize = 3;

/// Shorter intervals are joined up to this length. Any two neighbours are then longer than it, so that the recent ones are some
/// sixty at most,
const SHORTEST: Duration = Duration::from_millis(100);

/// and never more than this.
const MOST: usize = 64;

/// What the baseline is taken from. Long enough that a disturbance of minutes does not become the norm, short enough that a
/// path that has moved for good is accepted within an answer or two.
const BASELINE: Duration = Duration::from_secs(300);

/// The quantile that is the baseline: low, so that a link that is bad half of the time is still measured by what it can do;
/// not the lowest, which a single lucky interval would set.
const BASELINE_QUANTILE: f64 = 0.1;

/// And the one that ends the usual range.
const USUAL_QUANTILE: f64 = 0.9;

/// Added to both RTTs of a ratio: on a LAN half a millisecond is scheduling, and no token waits for it.
const RTT_FLOOR: Duration = Duration::from_micros(500);

/// Segments without loss assumed beside the counted ones: one lost of two is then 4.5 %, three of a hundred 2.5 %.
const PRIOR_SEGMENTS: f64 = 20.0;

/// Segments per second assumed where the input does not count them (files of the original family).
const ASSUMED_SEGMENTS_PER_SECOND: f64 = 100.0;

/// Silence after which the recent intervals are forgotten: longer than a pause within an answer, shorter than one between
/// questions.
const IDLE_MEMORY: Duration = Duration::from_secs(5);

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
    recent: VecDeque<Slot>,
    /// ln of p95 RTT with its floor.
    baseline: RollingQuantile,
    idle_for: Duration,
}

/// One interval, or several short ones.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    end: Duration,
    length: Duration,
    /// ln of p95 RTT, and of it over the smallest, both with their floor.
    rtt: Option<(f64, f64)>,
    retrans_segs: u64,
    segs_out: Option<u64>,
    stalled: f64,
}

impl Slot {
    /// Nothing to judge the path by: no round trip, no loss, and nobody waits.
    fn is_idle(&self) -> bool {
        self.rtt.is_none() && self.retrans_segs == 0 && self.stalled <= 0.0
    }

    fn join(&mut self, later: &Slot) {
        self.end = later.end;
        self.length += later.length;
        self.rtt = match (self.rtt, later.rtt) {
            (Some(a), Some(b)) => Some((a.0.max(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.retrans_segs = self.retrans_segs.saturating_add(later.retrans_segs);
        let segs = self.segs_out.zip(later.segs_out);
        self.segs_out = segs.map(|(before, after)| before.saturating_add(after));
        self.stalled = self.stalled.max(later.stalled);
    }
}

impl FeatureTracker {
    pub(crate) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            recent: VecDeque::new(),
            baseline: RollingQuantile::new(BASELINE),
            idle_for: Duration::ZERO,
        }
    }

    /// Takes in an interval that lasted `elapsed`. The baseline that it is held against is that of the intervals before.
    pub(crate) fn observe(&mut self, seen: &Observation, elapsed: Duration) -> View {
        let slot = slot(seen, self.now.saturating_add(elapsed), elapsed);
        if slot.is_idle() {
            self.idle_for = self.idle_for.saturating_add(elapsed);
            if self.idle_for >= IDLE_MEMORY {
                self.recent.clear();
            }
            return self.view(None);
        }
        self.idle_for = Duration::ZERO;
        self.now = slot.end;
        match self.recent.back_mut() {
            Some(last) if last.length.saturating_add(elapsed) <= SHORTEST => last.join(&slot),
            _ => self.recent.push_back(slot),
        }
        while let Some(oldest) = self.recent.front()
            && self.recent.len() > FEWEST
            && (self.now.saturating_sub(oldest.end) >= RECENT || self.recent.len() > MOST)
        {
            self.recent.pop_front();
        }
        let view = self.view(slot.rtt.map(|(p95, _)| p95));
        if let Some((p95, _)) = slot.rtt {
            self.baseline.push(self.now, p95);
        }
        view
    }

    /// `first` stands in for a baseline where there is none yet.
    fn view(&self, first: Option<f64>) -> View {
        let baseline = self.baseline.quantile(BASELINE_QUANTILE).or(first);
        let usual = match (self.baseline.quantile(USUAL_QUANTILE), baseline) {
            (Some(high), Some(low)) => high - low,
            _ => 0.0,
        };
        let slots = || self.recent.iter();
        let rtts = || slots().filter_map(|slot| slot.rtt);
        let base = baseline.unwrap_or(0.0);
        let rtt_ratio = lower_median(rtts().map(|(p95, _)| p95 - base));
        View {
            features: Features {
                rtt_ratio,
                rtt_spread: lower_median(rtts().map(|(_, spread)| spread)),
                retrans_rate: retrans_rate(slots()),
                rtt_slope: theil_sen(&self.recent),
            },
            usual,
            recent: Recent {
                p95_rtt: baseline.and_then(|_| rtt_of(base + rtt_ratio)),
                usual_rtt: baseline.and_then(rtt_of),
                retrans_segs: slots().fold(0, |segs, slot| segs.saturating_add(slot.retrans_segs)),
                segs_out: slots()
                    .try_fold(0, |segs: u64, slot| Some(segs.saturating_add(slot.segs_out?))),
            },
            stalled: lower_median(slots().map(|slot| slot.stalled)),
            idle: !self.idle_for.is_zero() || self.recent.is_empty(),
        }
    }
}

fn slot(seen: &Observation, end: Duration, elapsed: Duration) -> Slot {
    // In the precision in which the baseline is kept, so that a link at its baseline is exactly that.
    let ln = |rtt: Duration| f64::from(rtt.saturating_add(RTT_FLOOR).as_secs_f64().ln() as f32);
    Slot {
        end,
        length: elapsed,
        rtt: seen.rtt.map(|rtt| {
            let p95 = ln(rtt.p95.max(rtt.min));
            (p95, p95 - ln(rtt.min))
        }),
        retrans_segs: seen.retrans_segs,
        segs_out: seen.segs_out,
        stalled: if seen.stalled.is_nan() { 0.0 } else { seen.stalled.clamp(0.0, 1.0) },
    }
}

/// The inverse of what a [`Slot`] keeps of a round trip.
fn rtt_of(ln: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ln.exp()).ok().map(|rtt| rtt.saturating_sub(RTT_FLOOR))
}

/// The lower median; of fewer than three values as if zeros stood in for the missing ones, so that one value alone is outvoted.
fn lower_median(values: impl Iterator<Item = f64>) -> f64 {
    let mut kept = [0.0; MOST];
    let mut count = 0;
    for (place, value) in kept.iter_mut().zip(values) {
        *place = value;
        count += 1;
    }
    let count = count.max(FEWEST);
    *kept[..count].select_nth_unstable_by((count - 1) / 2, f64::total_cmp).1
}

/// Pooled over all intervals but the one with the most retransmissions.
fn retrans_rate<'a>(slots: impl Iterator<Item = &'a Slot> + Clone) -> f64 {
    let retrans = || slots.clone().map(|slot| slot.retrans_segs as f64);
    let segs = slots.clone().map(|slot| match slot.segs_out {
        Some(segs) => segs as f64,
        None => ASSUMED_SEGMENTS_PER_SECOND * slot.length.as_secs_f64(),
    });
    let counted = retrans().sum::<f64>() - retrans().fold(0.0, f64::max);
    // Counts that two sources took at different moments may disagree.
    (counted / (segs.sum::<f64>() + PRIOR_SEGMENTS)).min(1.0)
}

/// Median of the slopes between all pairs of intervals (Theil 1950, Sen 1968), which a single spike does not move.
fn theil_sen(slots: &VecDeque<Slot>) -> f64 {
    let mut points = Vec::with_capacity(slots.len());
    points.extend(slots.iter().filter_map(|slot| Some((slot.end.as_secs_f64(), slot.rtt?.0))));
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
