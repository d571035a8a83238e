//! The records of `bpf/netdiag.h` in Rust, read field by field from bytes.
//!
//! Reading by offset instead of by `repr(C)` cast keeps this free of `unsafe` and of alignment rules. The sizes are the
//! ones asserted in the header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netdiag_telemetry::{BUCKETS, Counters, FlowKey, bucket_of};

/// `sizeof(struct nd_flow)`.
pub(crate) const FLOW_SIZE: usize = 64;
/// `sizeof(struct nd_detail)`.
pub(crate) const DETAIL_SIZE: usize = 384;
/// `sizeof(struct nd_spilled_key)`.
pub(crate) const SPILLED_KEY_SIZE: usize = 16;
/// `sizeof(struct nd_spilled)`.
pub(crate) const SPILLED_SIZE: usize = 128;

/// Where `stale` is in `struct nd_flow`.
pub(crate) const STALE: usize = 29;
/// `passed_over` in it.
const PASSED_OVER: usize = 30;
/// `samples` in it, to the end.
const SAMPLES: usize = 32;
/// `ND_TAKEN`.
const TAKEN: u32 = 1 << 31;
/// `held` in `struct nd_detail`: for each place the octave in it plus one, or 0.
const HELD: usize = 48;
/// `octaves` in it, to the end: for each place the counts of an octave's buckets.
const OCTAVES: usize = 128;
/// Buckets per octave, `1 << ND_SUB_BITS`.
const OCTAVE: usize = 32;

/// A flow: `struct nd_detail`, and what its `struct nd_flow` has not counted yet.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) id: u64,
    pub(crate) key: FlowKey,
    pub(crate) counters: Counters,
    pub(crate) rtt_sum_us: u64,
    pub(crate) rtt_count: u32,
    pub(crate) srtt: Option<Duration>,
    pub(crate) rttvar: Option<Duration>,
    pub(crate) cwnd: u32,
    pub(crate) opened: bool,
    pub(crate) closed: bool,
    /// The samples that the flow holds itself, not empty: bucket and count. A bucket may be there twice.
    pub(crate) buckets: Vec<(u16, u32)>,
}

impl Flow {
    /// Takes an open flow apart; `None` while the kernel is still filling it, or if the filters leave the socket out.
    pub(crate) fn parse(flow: &[u8; FLOW_SIZE], detail: &[u8; DETAIL_SIZE]) -> Option<Self> {
        if flow[PASSED_OVER] != 0 {
            return None;
        }
        let mut parsed = Self::parse_closed(detail)?;
        for sample in flow[SAMPLES..].as_chunks::<4>().0 {
            let sample = u32::from_ne_bytes(*sample);
            if sample & TAKEN != 0 {
                let us = u64::from(sample & !TAKEN);
                parsed.rtt_sum_us += us;
                parsed.rtt_count = parsed.rtt_count.wrapping_add(1);
                parsed.buckets.push((bucket_of(us), 1));
            }
        }
        Some(parsed)
    }

    /// Takes the record of a closed flow apart, in which every sample is counted.
    pub(crate) fn parse_closed(detail: &[u8; DETAIL_SIZE]) -> Option<Self> {
        let id = u64_at(detail, 0);
        if id == 0 {
            return None;
        }
        let end = |address: usize, port: usize| {
            let octets: [u8; 16] = array(detail, address);
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), u16_at(detail, port))
        };
        let word = |offset| u32_at(detail, offset);
        let srtt_us = word(36) >> 3;
        let micros = |us: u32| (srtt_us > 0).then(|| Duration::from_micros(us.into()));
        let octaves = detail[OCTAVES..].as_chunks::<{ 2 * OCTAVE }>().0;
        let buckets = octaves.iter().zip(&detail[HELD..]).flat_map(|(octave, &held)| {
            let counts = octave.as_chunks::<2>().0.iter().map(|&count| u16::from_ne_bytes(count));
            octave_buckets(u32::from(held).wrapping_sub(1), counts.map(u32::from))
        });
        Some(Self {
            id,
            key: FlowKey::new(word(56), end(64, 60), end(80, 62)),
            counters: Counters {
                bytes_acked: u64_at(detail, 16),
                segs_out: word(28),
                retrans_segs: word(32),
            },
            rtt_sum_us: u64_at(detail, 8),
            rtt_count: word(24),
            srtt: micros(srtt_us),
            rttvar: micros(word(40) >> 2),
            cwnd: word(44),
            opened: detail[52] != 0,
            closed: detail[53] != 0,
            buckets: buckets.collect(),
        })
    }
}

/// An octave of a flow that had to make room: `struct nd_spilled_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpilledKey {
    pub(crate) id: u64,
    pub(crate) octave: u32,
}

impl SpilledKey {
    pub(crate) fn parse(bytes: &[u8; SPILLED_KEY_SIZE]) -> Self {
        Self { id: u64_at(bytes, 0), octave: u32_at(bytes, 8) }
    }

    pub(crate) fn to_bytes(self) -> [u8; SPILLED_KEY_SIZE] {
        let mut bytes = [0; SPILLED_KEY_SIZE];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.octave.to_ne_bytes());
        bytes
    }

    /// The buckets in `struct nd_spilled` that are not empty.
    pub(crate) fn buckets(self, spilled: &[u8; SPILLED_SIZE]) -> impl Iterator<Item = (u16, u32)> {
        let counts = spilled.as_chunks::<4>().0.iter().map(|&count| u32::from_ne_bytes(count));
        octave_buckets(self.octave, counts)
    }
}

/// The octave that a bucket is in.
pub(crate) fn octave_of(bucket: u16) -> u32 {
    u32::from(bucket) / OCTAVE as u32
}

/// The buckets of an octave that are not empty; none for an octave that does not exist.
fn octave_buckets(
    octave: u32,
    counts: impl Iterator<Item = u32>,
) -> impl Iterator<Item = (u16, u32)> {
    let first = usize::try_from(octave).unwrap_or(usize::MAX).saturating_mul(OCTAVE);
    (first..BUCKETS).zip(counts).map(|(bucket, count)| (bucket as u16, count)).filter(|b| b.1 > 0)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes(array(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(array(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(array(bytes, offset))
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[offset..offset + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_header_puts_them() {
        let mut flow = [0u8; FLOW_SIZE];
        flow[SAMPLES..SAMPLES + 8].copy_from_slice(
            &[(TAKEN | 50_000).to_ne_bytes(), (TAKEN | 10).to_ne_bytes()].concat(),
        );
        let mut bytes = [0u8; DETAIL_SIZE];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &7u64.to_ne_bytes());
        put(8, &150_000u64.to_ne_bytes());
        put(16, &1_000_000u64.to_ne_bytes());
        put(24, &3u32.to_ne_bytes());
        put(28, &500u32.to_ne_bytes());
        put(32, &4u32.to_ne_bytes());
        put(36, &(50_000u32 << 3).to_ne_bytes());
        put(40, &(1_000u32 << 2).to_ne_bytes());
        put(44, &10u32.to_ne_bytes());
        put(48, &[0, 0, 7, 0]);
        put(52, &[1, 0]);
        put(56, &99u32.to_ne_bytes());
        put(60, &8000u16.to_ne_bytes());
        put(62, &4000u16.to_ne_bytes());
        put(64 + 10, &[0xff, 0xff, 192, 0, 2, 1]);
        put(80 + 10, &[0xff, 0xff, 192, 0, 2, 2]);
        put(128 + 2 * 64 + 2 * 5, &3u16.to_ne_bytes());
        let parsed = Flow::parse(&flow, &bytes).expect("filled");
        assert_eq!(parsed.key.to_string(), "192.0.2.1:8000 → 192.0.2.2:4000");
        assert_eq!((parsed.id, parsed.key.netns), (7, 99));
        assert_eq!(
            parsed.counters,
            Counters { bytes_acked: 1_000_000, segs_out: 500, retrans_segs: 4 }
        );
        assert_eq!((parsed.rtt_sum_us, parsed.rtt_count), (200_010, 5));
        assert_eq!(parsed.buckets, vec![(6 * 32 + 5, 3), (bucket_of(50_000), 1), (10, 1)]);
        assert_eq!(parsed.srtt, Some(Duration::from_millis(50)));
        assert_eq!(parsed.rttvar, Some(Duration::from_millis(1)));
        assert_eq!((parsed.cwnd, parsed.opened, parsed.closed), (10, true, false));
        let closed = Flow::parse_closed(&bytes).expect("filled");
        assert_eq!((closed.rtt_count, closed.buckets), (3, vec![(6 * 32 + 5, 3)]));
        flow[PASSED_OVER] = 1;
        assert!(Flow::parse(&flow, &bytes).is_none(), "left out");
        assert!(Flow::parse(&[0; FLOW_SIZE], &[0; DETAIL_SIZE]).is_none(), "not filled yet");
    }

    #[test]
    fn spilled_octaves_are_buckets_as_well() {
        let key = SpilledKey { id: 3, octave: 22 };
        assert_eq!(SpilledKey::parse(&key.to_bytes()), key);
        let mut counts = [0; SPILLED_SIZE];
        counts[4 * 31..].copy_from_slice(&70_000u32.to_ne_bytes());
        let last = BUCKETS as u16 - 1;
        assert_eq!(key.buckets(&counts).collect::<Vec<_>>(), [(last, 70_000)]);
        let beyond = SpilledKey { id: 3, octave: u32::MAX };
        assert_eq!(beyond.buckets(&counts).count(), 0);
    }
}
