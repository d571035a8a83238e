//! The records of `bpf/netdiag.h` in Rust, read field by field from bytes.
//!
//! Reading by offset instead of by `repr(C)` cast keeps this free of `unsafe` and of alignment rules. The sizes are the
//! ones asserted in the header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netdiag_telemetry::{Counters, FlowKey};

/// `struct nd_flow`.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) id: u64,
    pub(crate) key: FlowKey,
    pub(crate) counters: Counters,
    pub(crate) srtt: Option<Duration>,
    pub(crate) rttvar: Option<Duration>,
    pub(crate) cwnd: u32,
    pub(crate) opened: bool,
    pub(crate) closed: bool,
}

impl Flow {
    pub(crate) fn from_bytes(bytes: &[u8; 88]) -> Self {
        let end = |address: usize, port: usize| {
            let octets: [u8; 16] = array(bytes, address);
            SocketAddr::new(
                IpAddr::V6(Ipv6Addr::from(octets)),
                u16::from_ne_bytes(array(bytes, port)),
            )
        };
        let word = |offset| u32::from_ne_bytes(array(bytes, offset));
        let srtt_us = word(60) >> 3;
        let micros = |us: u32| (srtt_us > 0).then(|| Duration::from_micros(us.into()));
        Self {
            id: u64::from_ne_bytes(array(bytes, 0)),
            key: FlowKey::new(word(44), end(8, 40), end(24, 42)),
            counters: Counters {
                bytes_acked: u64::from_ne_bytes(array(bytes, 48)),
                segs_out: word(72),
                retrans_segs: word(76),
            },
            srtt: micros(srtt_us),
            rttvar: micros(word(64) >> 2),
            cwnd: word(68),
            opened: bytes[80] != 0,
            closed: bytes[81] != 0,
        }
    }
}

/// `struct nd_bucket_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BucketKey {
    pub(crate) id: u64,
    pub(crate) bucket: u32,
}

impl BucketKey {
    pub(crate) fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self {
            id: u64::from_ne_bytes(array(bytes, 0)),
            bucket: u32::from_ne_bytes(array(bytes, 8)),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.bucket.to_ne_bytes());
        bytes
    }
}

/// `struct nd_bucket`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) sum_us: u64,
    pub(crate) count: u32,
}

impl Bucket {
    pub(crate) fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self {
            sum_us: u64::from_ne_bytes(array(bytes, 0)),
            count: u32::from_ne_bytes(array(bytes, 8)),
        }
    }
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
        let mut bytes = [0u8; 88];
        bytes[0..8].copy_from_slice(&7u64.to_ne_bytes());
        bytes[8 + 10..8 + 16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        bytes[24 + 10..24 + 16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 2]);
        bytes[40..42].copy_from_slice(&8000u16.to_ne_bytes());
        bytes[42..44].copy_from_slice(&4000u16.to_ne_bytes());
        bytes[44..48].copy_from_slice(&99u32.to_ne_bytes());
        bytes[48..56].copy_from_slice(&1_000_000u64.to_ne_bytes());
        bytes[60..64].copy_from_slice(&(50_000u32 << 3).to_ne_bytes());
        bytes[64..68].copy_from_slice(&(1_000u32 << 2).to_ne_bytes());
        bytes[68..72].copy_from_slice(&10u32.to_ne_bytes());
        bytes[72..76].copy_from_slice(&500u32.to_ne_bytes());
        bytes[76..80].copy_from_slice(&3u32.to_ne_bytes());
        bytes[80] = 1;
        let flow = Flow::from_bytes(&bytes);
        assert_eq!(flow.key.to_string(), "192.0.2.1:8000 → 192.0.2.2:4000");
        assert_eq!((flow.id, flow.key.netns), (7, 99));
        assert_eq!(
            flow.counters,
            Counters { bytes_acked: 1_000_000, segs_out: 500, retrans_segs: 3 }
        );
        assert_eq!(flow.srtt, Some(Duration::from_millis(50)));
        assert_eq!(flow.rttvar, Some(Duration::from_millis(1)));
        assert_eq!((flow.cwnd, flow.opened, flow.closed), (10, true, false));
    }
}
