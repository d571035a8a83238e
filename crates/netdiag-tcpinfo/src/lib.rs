//! The kernel's `struct tcp_info` (`include/uapi/linux/tcp.h`), whatever its length.
//!
//! The structure only ever grows at its end, so its length says which kernel wrote it: a field beyond the end is `None`,
//! never zero. The bytes come from a socket ([`read`], `getsockopt(TCP_INFO)`) or from a netlink `INET_DIAG_INFO`
//! attribute ([`TcpInfo::parse`]); both are the same structure in host byte order. [`snapshot`] is a socket as the pacer sees it.
//!
//! Invariant: no field is read past the length the kernel reported.

mod snapshot;
mod socket;
mod tune;

use std::time::Duration;

use netdiag_telemetry::{Bytes, Counters, Liveness};

pub use snapshot::{key, snapshot, snapshot_as};
pub use socket::{Queues, queues, read};
pub use tune::{longest_retry, restore_longest_retry, set_longest_retry, set_notsent_lowat};

/// The length of the structure since Linux 2.6.38 up to `tcpi_total_retrans`: the least that is accepted.
const SHORTEST: usize = 104;

/// Bit of `tcpi_options`.
const TCPI_OPT_SACK: u8 = 2;

/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: u8 = 7;

/// The bytes are too short to be a `struct tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("struct tcp_info has {0} bytes, expected at least {SHORTEST}")]
pub struct TooShort(pub usize);

/// The fields this project uses, in the kernel's order and with its names less the prefix `tcpi_`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// TCP state (`TCP_ESTABLISHED` = 1, …).
    pub state: u8,
    /// Exponential backoffs of the retransmission timer.
    pub backoff: u8,
    /// Selective acknowledgements were negotiated (`TCPI_OPT_SACK`); RACK needs them.
    pub sack: bool,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Sending maximum segment size, bytes.
    pub snd_mss: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Time since data was last sent.
    pub last_data_sent: Duration,
    /// Time since an ACK last arrived.
    pub last_ack_recv: Duration,
    /// Smoothed RTT; zero before the first measurement.
    pub rtt: Duration,
    /// RTT variation.
    pub rttvar: Duration,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Segments retransmitted, cumulative.
    pub total_retrans: u32,
    /// Bytes acknowledged, cumulative (Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Segments sent, cumulative (4.2).
    pub segs_out: Option<u32>,
    /// Segments received, cumulative (4.2).
    pub segs_in: Option<u32>,
    /// Bytes queued and not yet sent (4.6).
    pub notsent_bytes: Option<u32>,
    /// Minimal RTT over the kernel's window of five minutes (4.6).
    pub min_rtt: Option<Duration>,
    /// Segments sent with data in them, retransmissions included, cumulative (4.6).
    pub data_segs_out: Option<u32>,
    /// Recent rate of delivery, bytes/s (4.9).
    pub delivery_rate: Option<u64>,
    /// Time with data outstanding, cumulative (4.10).
    pub busy_time: Option<Duration>,
    /// Part of it limited by the receive window (4.10).
    pub rwnd_limited: Option<Duration>,
    /// Part of it limited by the send buffer (4.10).
    pub sndbuf_limited: Option<Duration>,
    /// Segments delivered, cumulative (4.18).
    pub delivered: Option<u32>,
    /// Bytes sent, retransmissions included, cumulative (4.19).
    pub bytes_sent: Option<u64>,
    /// Bytes retransmitted, cumulative (4.19).
    pub bytes_retrans: Option<u64>,
    /// The peer's receive window, bytes (5.4).
    pub snd_wnd: Option<u32>,
}

impl TcpInfo {
    /// Reads the structure from the bytes that the kernel wrote, as long as they are.
    pub fn parse(bytes: &[u8]) -> Result<Self, TooShort> {
        if bytes.len() < SHORTEST {
            return Err(TooShort(bytes.len()));
        }
        let at = |offset| u32_at(bytes, offset);
        let long = |offset| u64_at(bytes, offset);
        let millis = |offset| Duration::from_millis(at(offset).unwrap_or_default().into());
        let micros = |offset| Duration::from_micros(at(offset).unwrap_or_default().into());
        Ok(Self {
            state: bytes[0],
            backoff: bytes[4],
            sack: bytes[5] & TCPI_OPT_SACK != 0,
            rto: micros(8),
            snd_mss: at(16).unwrap_or_default(),
            unacked: at(24).unwrap_or_default(),
            last_data_sent: millis(44),
            last_ack_recv: millis(56),
            rtt: micros(68),
            rttvar: micros(72),
            snd_cwnd: at(80).unwrap_or_default(),
            total_retrans: at(100).unwrap_or_default(),
            bytes_acked: long(120),
            segs_out: at(136),
            segs_in: at(140),
            notsent_bytes: at(144),
            // All ones means "never measured" (tcp_min_rtt() before the first sample).
            min_rtt: at(148)
                .filter(|&us| us != u32::MAX)
                .map(|us| Duration::from_micros(us.into())),
            data_segs_out: at(156),
            delivery_rate: long(160),
            busy_time: long(168).map(Duration::from_micros),
            rwnd_limited: long(176).map(Duration::from_micros),
            sndbuf_limited: long(184).map(Duration::from_micros),
            delivered: at(192),
            bytes_sent: long(200),
            bytes_retrans: long(208),
            snd_wnd: at(228),
        })
    }

    /// The cumulative counters; zero where the kernel is too old to keep one.
    pub fn counters(&self) -> Counters {
        Counters {
            bytes_acked: self.bytes_acked.unwrap_or_default(),
            segs_out: self.segs_out.unwrap_or_default(),
            retrans_segs: self.total_retrans,
        }
    }

    /// Whether the flow moves and who holds it back. How many bytes wait, the structure does not say.
    pub fn liveness(&self) -> Liveness {
        Liveness {
            unacked_segs: self.unacked,
            notsent: Bytes(self.notsent_bytes.unwrap_or_default().into()),
            queued: None,
            data_segs: self.data_segs_out,
            backoff: self.backoff,
            last_ack_age: self.last_ack_recv,
            busy: self.busy_time.unwrap_or_default(),
            rwnd_limited: self.rwnd_limited.unwrap_or_default(),
            sndbuf_limited: self.sndbuf_limited.unwrap_or_default(),
        }
    }

    /// The connection is over: reset, given up, or closed by both ends.
    pub fn is_closed(&self) -> bool {
        self.state == TCP_CLOSE
    }

    /// Smoothed RTT, `None` before the first measurement.
    pub fn srtt(&self) -> Option<Duration> {
        (!self.rtt.is_zero()).then_some(self.rtt)
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure of `len` bytes whose every 32-bit word holds its own offset.
    fn numbered(len: usize) -> Vec<u8> {
        (0..len as u32).step_by(4).flat_map(u32::to_ne_bytes).take(len).collect()
    }

    #[test]
    fn fields_stand_at_the_offsets_of_the_uapi_header() {
        let info = TcpInfo::parse(&numbered(248)).expect("long enough");
        assert_eq!(info.unacked, 24);
        assert_eq!(info.last_ack_recv, Duration::from_millis(56));
        assert_eq!(info.rtt, Duration::from_micros(68));
        assert_eq!(info.snd_cwnd, 80);
        assert_eq!(info.total_retrans, 100);
        assert_eq!(info.segs_out, Some(136));
        assert_eq!(info.notsent_bytes, Some(144));
        assert_eq!(info.data_segs_out, Some(156));
        assert_eq!(info.delivered, Some(192));
        assert_eq!(info.snd_wnd, Some(228));
        let bytes_acked = u64::from_ne_bytes(numbered(248)[120..128].try_into().expect("8 bytes"));
        assert_eq!(info.bytes_acked, Some(bytes_acked));
    }

    #[test]
    fn what_an_older_kernel_lacks_is_absent_not_zero() {
        let info = TcpInfo::parse(&numbered(SHORTEST)).expect("shortest");
        assert_eq!((info.bytes_acked, info.segs_out, info.min_rtt), (None, None, None));
        // Half a field is no field.
        assert_eq!(TcpInfo::parse(&numbered(146)).expect("long enough").notsent_bytes, None);
        assert_eq!(TcpInfo::parse(&numbered(103)), Err(TooShort(103)));
    }
}
