//! One TCP connection as a source saw it at one instant.
//!
//! Counters are cumulative, as the kernel keeps them: whoever reads two snapshots takes the difference, and a
//! snapshot that is lost costs resolution, never data. Only RTT samples are per snapshot, because a histogram of
//! all time would drown the present.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::RttSamples;
use crate::units::Bytes;

/// Which connection: the network namespace it lives in and its two ends, seen from the sending host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// Inode of the network namespace (`/proc/PID/ns/net`).
    pub netns: u32,
    /// Our end.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
}

impl FlowKey {
    /// A key with both addresses in [`canonical`] form, so that `::ffff:192.0.2.1` and `192.0.2.1` are one peer.
    pub fn new(netns: u32, local: SocketAddr, peer: SocketAddr) -> Self {
        Self { netns, local: canonical(local), peer: canonical(peer) }
    }

    /// Whether the connection never leaves this host: either end is a loopback address, or both ends are the same
    /// address.
    pub fn is_loopback(&self) -> bool {
        self.peer.ip().is_loopback()
            || self.local.ip().is_loopback()
            || self.peer.ip() == self.local.ip()
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.local, self.peer)
    }
}

/// An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) as the IPv4 address it is; anything else unchanged.
/// A dual-stack listener shows its IPv4 clients in the mapped form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a sample or a hint speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All matching flows together.
    Host,
    /// All flows to one remote address.
    Peer(IpAddr),
    /// One flow.
    Stream(FlowKey),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Host => f.write_str("host"),
            Scope::Peer(address) => write!(f, "peer {address}"),
            Scope::Stream(key) => write!(f, "stream {}", key.peer),
        }
    }
}

/// One flow at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSnapshot {
    /// Which connection.
    pub key: FlowKey,
    /// A token unique to this connection if the source saw it being opened, else `None`. A value that differs from the
    /// last one under the same key means that the ports were reused: a new connection, counted from zero.
    pub opened: Option<u64>,
    /// The connection is over and this is its last snapshot; the counters are final.
    pub closed: bool,
    /// Cumulative counters.
    pub counters: Counters,
    /// RTT samples since the previous snapshot of this flow.
    pub rtt: RttSamples,
    /// Smoothed RTT (`srtt`, RFC 6298 §2); `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// RTT variation (`mdev`, RFC 6298 §2).
    pub rttvar: Option<Duration>,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// The state that only a socket dump gives; `None` where the flow's namespace could not be entered.
    pub liveness: Option<Liveness>,
}

/// The counters the kernel keeps per connection, all cumulative. The 32-bit ones wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes acknowledged by the peer (`tcpi_bytes_acked`, RFC 4898 tcpEStatsAppHCThruOctetsAcked).
    pub bytes_acked: u64,
    /// Segments sent, retransmissions included (`tcpi_segs_out`).
    pub segs_out: u32,
    /// Segments retransmitted (`tcpi_total_retrans`).
    pub retrans_segs: u32,
}

impl Counters {
    /// These counters, or `before` where those are higher.
    pub(crate) fn at_least(self, before: &Self) -> Self {
        let later = |now: u32, before: u32| before.wrapping_add(grown(before, now));
        Self {
            bytes_acked: self.bytes_acked.max(before.bytes_acked),
            segs_out: later(self.segs_out, before.segs_out),
            retrans_segs: later(self.retrans_segs, before.retrans_segs),
        }
    }
}

/// Growth of a 32-bit counter that wraps. A step back by more than half the range is a wrap; a smaller one cannot come
/// from the kernel and counts as nothing.
pub(crate) fn grown(before: u32, now: u32) -> u32 {
    let delta = now.wrapping_sub(before);
    if delta > u32::MAX / 2 { 0 } else { delta }
}

/// Whether the flow is moving and who holds it back (`struct tcp_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Segments sent and not yet acknowledged (`tcpi_unacked`).
    pub unacked_segs: u32,
    /// Bytes written by the application and not yet sent (`tcpi_notsent_bytes`).
    pub notsent: Bytes,
    /// Bytes written by the application and not yet acknowledged (`SIOCOUTQ`, `idiag_wqueue`); `None` where the source knows
    /// no more than segments.
    pub queued: Option<Bytes>,
    /// Segments sent with data in them, retransmissions included, cumulative (`tcpi_data_segs_out`, Linux 4.6). The 32 bits wrap.
    pub data_segs: Option<u32>,
    /// Exponential backoffs of the retransmission timer since the last ACK (`tcpi_backoff`).
    pub backoff: u8,
    /// Time since the last ACK arrived (`tcpi_last_ack_recv`); large on a flow that was merely idle.
    pub last_ack_age: Duration,
    /// Time with data outstanding (`tcpi_busy_time`), cumulative.
    pub busy: Duration,
    /// Part of `busy` limited by the peer's receive window (`tcpi_rwnd_limited`), cumulative.
    pub rwnd_limited: Duration,
    /// Part of `busy` limited by our send buffer (`tcpi_sndbuf_limited`), cumulative.
    pub sndbuf_limited: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_their_ipv4_selves() {
        let local: SocketAddr = "[::ffff:192.0.2.1]:80".parse().expect("address");
        let peer: SocketAddr = "[2001:db8::1]:4000".parse().expect("address");
        let key = FlowKey::new(1, local, peer);
        assert_eq!(key.local, "192.0.2.1:80".parse().expect("address"));
        assert_eq!(key.peer, peer);
    }

    #[test]
    fn loopback_is_recognised_by_address_or_by_equal_ends() {
        let check = |local: &str, peer: &str, expected| {
            let key =
                FlowKey::new(1, local.parse().expect("address"), peer.parse().expect("address"));
            assert_eq!(key.is_loopback(), expected, "{key}");
        };
        check("127.0.0.1:1", "127.0.0.1:2", true);
        check("[::1]:1", "[::1]:2", true);
        check("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2", true);
        check("192.0.2.7:1", "192.0.2.7:2", true);
        check("192.0.2.7:1", "192.0.2.8:2", false);
    }
}
