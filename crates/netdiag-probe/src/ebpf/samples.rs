//! Which RTT samples are new: the histograms in the kernel only grow, and this remembers how far they had grown.
//!
//! Invariant: a bucket's count is what the flow holds plus what it spilled. The two are read at different moments, so an
//! octave that spills in between shows twice, once; counting only what exceeds the highest count seen makes up for it at
//! the next reading.

use std::collections::{HashMap, HashSet};
use std::io;

use aya::maps::MapData;
use netdiag_telemetry::{RttSamples, give_back};

use super::batch::MapReader;
use super::records::{Flow, SPILLED_KEY_SIZE, SPILLED_SIZE, SpilledKey};
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
            let sum = flow.rtt_sum_us.saturating_sub(counted.sum_us);
            let measured = flow.rtt_count.wrapping_sub(counted.count);
            (counted.sum_us, counted.count) = (flow.rtt_sum_us, flow.rtt_count);
            let spilled = spilled.get(&flow.id).into_iter().flatten();
            let mut now = flow.buckets.clone();
            now.extend(spilled.flat_map(|(_, buckets)| buckets));
            now.sort_unstable();
            now.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 = if same { kept.1.wrapping_add(next.1) } else { kept.1 };
                same
            });
            let grown = counted.advance(&now);
            let sum = share_of(sum, &grown, measured);
            fresh.insert(flow.id, RttSamples::from_buckets(grown, sum));
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

/// The part of the sum of all samples `measured` that belongs to those `shown`: what `spilled` had no room for is in the
/// sum, and would raise the mean of the rest.
fn share_of(sum_us: u64, shown: &[(u16, u32)], measured: u32) -> u64 {
    let shown: u64 = shown.iter().map(|&(_, count)| u64::from(count)).sum();
    if shown >= u64::from(measured) {
        return sum_us;
    }
    (u128::from(sum_us) * u128::from(shown) / u128::from(measured)) as u64
}

impl Counted {
    /// Takes in the buckets as they are now, sorted, and returns by how much each grew.
    fn advance(&mut self, now: &[(u16, u32)]) -> Vec<(u16, u32)> {
        let mut grown = Vec::with_capacity(now.len());
        for &(bucket, count) in now {
            let place = self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket);
            let grew = match place {
                Ok(at) => {
                    let highest = &mut self.buckets[at].1;
                    let grew = count.wrapping_sub(*highest);
                    // The kernel's counts wrap. What seems to shrink showed twice the last time.
                    let grew = if grew < 1 << 31 { grew } else { 0 };
                    *highest = highest.wrapping_add(grew);
                    grew
                }
                Err(at) => {
                    self.buckets.insert(at, (bucket, count));
                    count
                }
            };
            grown.push((bucket, grew));
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_showed_twice_is_made_up_for() {
        let mut counted = Counted::default();
        assert_eq!(counted.advance(&[(5, 10), (7, 2)]), [(5, 10), (7, 2)]);
        // Bucket 5 spills while we read, so half of it is there twice; then the count is right again, and goes on.
        assert_eq!(counted.advance(&[(5, 17), (7, 2)]), [(5, 7), (7, 0)]);
        assert_eq!(counted.advance(&[(5, 13), (9, 1)]), [(5, 0), (9, 1)]);
        assert_eq!(counted.advance(&[(5, 20), (9, 1)]), [(5, 3), (9, 0)]);
    }

    #[test]
    fn lost_samples_leave_the_mean_as_it_is() {
        assert_eq!(share_of(1000, &[(5, 6), (6, 4)], 10), 1000);
        assert_eq!(share_of(1000, &[(5, 5)], 10), 500);
        assert_eq!(share_of(1000, &[], 10), 0);
        // Seen twice for once, made up for later.
        assert_eq!(share_of(1000, &[(5, 12)], 10), 1000);
        assert_eq!(share_of(0, &[], 0), 0);
    }

    #[test]
    fn counts_wrap_as_the_kernels_do() {
        let mut counted = Counted::default();
        counted.advance(&[(5, u32::MAX - 1)]);
        assert_eq!(counted.advance(&[(5, 3)]), [(5, 5)]);
        assert_eq!(counted.advance(&[(5, 4)]), [(5, 1)]);
    }
}
