//! The records of `bpf/netdiag.h` in Rust, read field by field from bytes.
//!
//! Reading by offset instead of by `repr(C)` cast keeps this free of `unsafe` and of alignment rules. The sizes are the
//! ones asserted in the header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netdiag_telemetry::{Counters, FlowKey};

/// `sizeof(struct nd_flow)`.
pub(crate) const FLOW_SIZE: usize = 192;
/// `ND_PASSED_OVER`.
const PASSED_OVER: u64 = u64::MAX;
/// Where `ways` starts in it; each way is a `u16` bucket and a `u16` count.
const WAYS: usize = 128;

/// `struct nd_flow`.
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
    /// The buckets that the flow holds itself, not empty: index and count.
    pub(crate) ways: Vec<(u16, u16)>,
}

impl Flow {
    /// Takes the record apart; `None` while the kernel is still filling it, or if the filters leave the socket out.
    pub(crate) fn parse(bytes: &[u8; FLOW_SIZE]) -> Option<Self> {
        let id = u64_at(bytes, 8);
        if id == 0 || id == PASSED_OVER {
            return None;
        }
        let end = |address: usize, port: usize| {
            let octets: [u8; 16] = array(bytes, address);
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), u16_at(bytes, port))
        };
        let word = |offset| u32_at(bytes, offset);
        let srtt_us = word(64) >> 3;
        let micros = |us: u32| (srtt_us > 0).then(|| Duration::from_micros(us.into()));
        let ways = bytes[WAYS..].as_chunks::<4>().0.iter();
        Some(Self {
            id,
            key: FlowKey::new(word(76), end(80, 112), end(96, 114)),
            counters: Counters {
                bytes_acked: u64_at(bytes, 48),
                segs_out: word(56),
                retrans_segs: word(60),
            },
            rtt_sum_us: u64_at(bytes, 32),
            rtt_count: word(40),
            srtt: micros(srtt_us),
            rttvar: micros(word(68) >> 2),
            cwnd: word(72),
            opened: bytes[116] != 0,
            closed: bytes[117] != 0,
            ways: ways
                .map(|way| (u16_at(way, 0), u16_at(way, 2)))
                .filter(|&(_, count)| count > 0)
                .collect(),
        })
    }
}

/// `struct nd_bucket_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketKey {
    pub(crate) id: u64,
    pub(crate) bucket: u32,
}

impl BucketKey {
    pub(crate) fn parse(bytes: &[u8; 16]) -> Self {
        Self { id: u64_at(bytes, 0), bucket: u32_at(bytes, 8) }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.bucket.to_ne_bytes());
        bytes
    }
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
        let mut bytes = [0u8; FLOW_SIZE];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(8, &7u64.to_ne_bytes());
        put(32, &150_000u64.to_ne_bytes());
        put(40, &3u32.to_ne_bytes());
        put(48, &1_000_000u64.to_ne_bytes());
        put(56, &500u32.to_ne_bytes());
        put(60, &3u32.to_ne_bytes());
        put(64, &(50_000u32 << 3).to_ne_bytes());
        put(68, &(1_000u32 << 2).to_ne_bytes());
        put(72, &10u32.to_ne_bytes());
        put(76, &99u32.to_ne_bytes());
        put(80 + 10, &[0xff, 0xff, 192, 0, 2, 1]);
        put(96 + 10, &[0xff, 0xff, 192, 0, 2, 2]);
        put(112, &8000u16.to_ne_bytes());
        put(114, &4000u16.to_ne_bytes());
        put(116, &[1, 0]);
        put(128 + 4, &[&200u16.to_ne_bytes()[..], &3u16.to_ne_bytes()].concat());
        let flow = Flow::parse(&bytes).expect("filled");
        assert_eq!(flow.key.to_string(), "192.0.2.1:8000 → 192.0.2.2:4000");
        assert_eq!((flow.id, flow.key.netns), (7, 99));
        assert_eq!(
            flow.counters,
            Counters { bytes_acked: 1_000_000, segs_out: 500, retrans_segs: 3 }
        );
        assert_eq!((flow.rtt_sum_us, flow.rtt_count, flow.ways), (150_000, 3, vec![(200, 3)]));
        assert_eq!(flow.srtt, Some(Duration::from_millis(50)));
        assert_eq!(flow.rttvar, Some(Duration::from_millis(1)));
        assert_eq!((flow.cwnd, flow.opened, flow.closed), (10, true, false));
        assert!(Flow::parse(&[0; FLOW_SIZE]).is_none(), "not filled yet");
    }
}
