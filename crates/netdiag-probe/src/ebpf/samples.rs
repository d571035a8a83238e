//! Which RTT samples are new: the histograms in the kernel only grow, and this remembers how far they had grown.
//!
//! Invariant: a bucket's count is what the flow holds plus what it spilled. The two are read at different moments, so an octave that
//! spills in between shows twice. The flow says how many samples it has taken: where there seem to be more, what it holds of octaves that
//! have spilled waits for the next reading, with its share of the sum.

use std::collections::{HashMap, HashSet};
use std::io;

use aya::maps::MapData;
use netdiag_telemetry::{RttSamples, give_back};

use super::batch::MapReader;
use super::records::{Flow, SPILLED_KEY_SIZE, SPILLED_SIZE, SpilledKey, octave_of};
use crate::ProbeError;

/// What spilled, by flow.
type Spilled = HashMap<u64, Vec<(SpilledKey, Vec<(u16, u32)>)>>;

/// All flows' samples so far.
pub(super) struct SampleCounter {
    spilled: MapReader<SPILLED_KEY_SIZE, SPILLED_SIZE>,
    counted: HashMap<u64, Counted>,
    readings: u32,
}

/// One flow's samples so far.
#[derive(Default)]
struct Counted {
    sum_us: u64,
    count: u32,
    /// Highest count seen per bucket, sorted by bucket.
    buckets: Vec<(u16, u32)>,
    /// Samples that wait for the next reading, and their sum.
    waiting: u32,
    waiting_us: u64,
    /// The reading in which the flow was last there.
    reading: u32,
}

impl SampleCounter {
    pub(super) fn try_new(spilled: MapData) -> io::Result<Self> {
        Ok(Self { spilled: MapReader::try_new(spilled)?, counted: HashMap::new(), readings: 0 })
    }

    /// The samples that are new since the last call, by flow.
    pub(super) fn advance(
        &mut self,
        flows: &[Flow],
    ) -> Result<HashMap<u64, RttSamples>, ProbeError> {
        self.readings = self.readings.wrapping_add(1);
        let mut spilled = Spilled::new();
        self.spilled
            .for_each(|key, counts| {
                let key = SpilledKey::parse(key);
                let buckets = key.buckets(counts).collect();
                spilled.entry(key.id).or_default().push((key, buckets));
            })
            .map_err(|source| ProbeError::Map { map: "spilled", source })?;

        let mut fresh = HashMap::new();
        for flow in flows {
            let counted = self.counted.entry(flow.id).or_default();
            counted.reading = self.readings;
            if flow.rtt_count == counted.count {
                continue;
            }
            let spilled = spilled.get(&flow.id).map(Vec::as_slice).unwrap_or_default();
            fresh.insert(flow.id, counted.take(flow, spilled));
        }
        self.forget(flows, &spilled);
        Ok(fresh)
    }

    /// Drops what belongs to flows that are gone.
    fn forget(&mut self, flows: &[Flow], spilled: &Spilled) {
        let closed: HashSet<u64> =
            flows.iter().filter(|flow| flow.closed).map(|flow| flow.id).collect();
        // A flow whose closing record was lost is missing without having closed. One that spilled before it was ever
        // read is in `spilled` alone, for now.
        let readings = self.readings;
        let lost = |id: &u64, counted: &HashMap<u64, Counted>| {
            counted.get(id).is_some_and(|counted| counted.reading != readings)
        };
        for (id, octaves) in spilled {
            if closed.contains(id) || lost(id, &self.counted) {
                for (key, _) in octaves {
                    // Gone already is as good as removed.
                    let _ = self.spilled.delete(&key.to_bytes());
                }
            }
        }
        self.counted.retain(|id, counted| counted.reading == readings && !closed.contains(id));
        give_back(&mut self.counted);
    }
}

/// The sum of those `shown`, where that of all `measured` is known: what `spilled` had no room for is in the sum, and would raise the mean
/// of the rest; what came while we read is not.
fn share_of(sum_us: u64, shown: &[(u16, u32)], measured: u32) -> u64 {
    let shown: u64 = shown.iter().map(|&(_, count)| u64::from(count)).sum();
    let share = (u128::from(sum_us) * u128::from(shown)).checked_div(u128::from(measured));
    share.unwrap_or_default() as u64
}

impl Counted {
    /// The samples of a flow that are new, where it has taken some.
    fn take(&mut self, flow: &Flow, spilled: &[(SpilledKey, Vec<(u16, u32)>)]) -> RttSamples {
        let measured = flow.rtt_count.wrapping_sub(self.count).saturating_add(self.waiting);
        let sum = flow.rtt_sum_us.saturating_sub(self.sum_us).saturating_add(self.waiting_us);
        (self.count, self.sum_us) = (flow.rtt_count, flow.rtt_sum_us);
        let count = |samples: &[(u16, u32)]| samples.iter().map(|&(_, count)| count).sum::<u32>();
        let there = spilled.iter().flat_map(|(_, buckets)| buckets);
        let mut now = added(flow.buckets.iter().chain(there.clone()));
        let is_twice = count(&self.grown(&now)) > measured;
        if is_twice {
            let stays = |&&(bucket, _): &&(u16, u32)| {
                spilled.iter().all(|(key, _)| key.octave != octave_of(bucket))
            };
            now = added(flow.buckets.iter().filter(stays).chain(there));
        }
        let grown = self.grown(&now);
        self.note(&grown);
        let shown = share_of(sum, &grown, measured);
        // What is missing otherwise was lost.
        (self.waiting, self.waiting_us) = if is_twice {
            (measured.saturating_sub(count(&grown)), sum.saturating_sub(shown))
        } else {
            (0, 0)
        };
        RttSamples::from_buckets(grown, shown)
    }

    /// By how much each bucket grew. The kernel's counts wrap; what seems to shrink waits.
    fn grown(&self, now: &[(u16, u32)]) -> Vec<(u16, u32)> {
        let grew = |&(bucket, count): &(u16, u32)| {
            let grew = count.wrapping_sub(self.highest(bucket).map_or(0, |at| self.buckets[at].1));
            (bucket, if grew < 1 << 31 { grew } else { 0 })
        };
        now.iter().map(grew).collect()
    }

    /// Takes in how much each bucket grew.
    fn note(&mut self, grown: &[(u16, u32)]) {
        for &(bucket, grew) in grown {
            match self.highest(bucket) {
                Ok(at) => self.buckets[at].1 = self.buckets[at].1.wrapping_add(grew),
                Err(at) => self.buckets.insert(at, (bucket, grew)),
            }
        }
    }

    /// Where a bucket's count is, or would be.
    fn highest(&self, bucket: u16) -> Result<usize, usize> {
        self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket)
    }
}

/// Counts by bucket, sorted, each bucket once.
fn added<'a>(counts: impl Iterator<Item = &'a (u16, u32)>) -> Vec<(u16, u32)> {
    let mut added: Vec<(u16, u32)> = counts.copied().collect();
    added.sort_unstable();
    added.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 = if same { kept.1.wrapping_add(next.1) } else { kept.1 };
        same
    });
    added
}

#[cfg(test)]
mod tests {
    use super::super::records::DETAIL_SIZE;
    use super::*;

    /// A flow that has taken `count` samples of together `sum_us`, and holds these.
    fn flow(count: u32, sum_us: u64, held: &[(u16, u32)]) -> Flow {
        let mut detail = [0; DETAIL_SIZE];
        detail[0] = 1;
        let flow = Flow::parse_closed(&detail).expect("a flow");
        Flow { rtt_count: count, rtt_sum_us: sum_us, buckets: held.to_vec(), ..flow }
    }

    fn spilled(buckets: &[(u16, u32)]) -> Vec<(SpilledKey, Vec<(u16, u32)>)> {
        vec![(SpilledKey { id: 1, octave: octave_of(buckets[0].0) }, buckets.to_vec())]
    }

    #[test]
    fn what_spills_between_two_readings_counts_once() {
        let mut counted = Counted::default();
        // Buckets 165 and 166 are of one octave, 200 is of another.
        let samples = counted.take(&flow(12, 1200, &[(165, 10), (200, 2)]), &[]);
        assert_eq!((samples.count(), mean(&samples)), (12, 100));
        // It spills after we have read the flow, and before we read what has spilled.
        let held = flow(15, 1500, &[(165, 12), (200, 3)]);
        let samples = counted.take(&held, &spilled(&[(165, 12)]));
        assert_eq!((samples.count(), mean(&samples)), (3, 100));
        // It holds the octave again.
        let held = flow(20, 2000, &[(165, 4), (166, 1), (200, 3)]);
        let samples = counted.take(&held, &spilled(&[(165, 12)]));
        assert_eq!((samples.count(), mean(&samples)), (5, 100));
        // And spills once more, with some that were there before, and one that came meanwhile.
        let held = flow(22, 2200, &[(165, 5), (166, 1), (200, 4)]);
        let samples = counted.take(&held, &spilled(&[(165, 18), (166, 1)]));
        assert_eq!((samples.count(), mean(&samples)), (3, 100));
        let held = flow(25, 2500, &[(165, 2), (200, 4)]);
        let samples = counted.take(&held, &spilled(&[(165, 18), (166, 1)]));
        assert_eq!((samples.count(), mean(&samples)), (2, 100));
    }

    #[test]
    fn what_waits_for_the_next_reading_keeps_its_share_of_the_sum() {
        let mut counted = Counted::default();
        counted.take(&flow(10, 1000, &[(165, 4)]), &spilled(&[(200, 6)]));
        // Both octaves have spilled before; one of them spills while we read, and what is new of the other waits.
        let both = [spilled(&[(165, 8)]), spilled(&[(200, 6)])].concat();
        let samples = counted.take(&flow(18, 1800, &[(165, 8), (200, 4)]), &both);
        assert_eq!((samples.count(), mean(&samples)), (4, 100));
        let samples = counted.take(&flow(19, 1900, &[(200, 5)]), &both);
        assert_eq!((samples.count(), mean(&samples)), (5, 100));
    }

    fn mean(samples: &RttSamples) -> u128 {
        samples.summary().expect("samples").avg.as_micros()
    }

    #[test]
    fn lost_samples_leave_the_mean_as_it_is() {
        assert_eq!(share_of(1000, &[(5, 6), (6, 4)], 10), 1000);
        assert_eq!(share_of(1000, &[(5, 5)], 10), 500);
        assert_eq!(share_of(1000, &[], 10), 0);
        assert_eq!(share_of(1000, &[(5, 12)], 10), 1200);
        assert_eq!(share_of(0, &[], 0), 0);
    }

    #[test]
    fn counts_wrap_as_the_kernels_do() {
        let mut counted = Counted::default();
        counted.note(&[(5, u32::MAX - 1)]);
        assert_eq!(counted.grown(&[(5, 3)]), [(5, 5)]);
        counted.note(&[(5, 5)]);
        assert_eq!(counted.grown(&[(5, 4)]), [(5, 1)]);
    }
}
