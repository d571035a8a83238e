//! The unprivileged source: netlink `sock_diag` dumps of every TCP socket with its `TCP_INFO`.
//!
//! A dump costs about a microsecond per socket and needs no privilege in one's own network namespace. It sees sockets in
//! every state, also those the eBPF hooks never pass (CLOSE_WAIT, FIN_WAIT), and what only a dump shows: unacknowledged
//! and unsent data, backoff, who limits the sender. What it cannot see is a flow that opens and closes between two dumps.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netdiag_tcpinfo::TcpInfo;
use netdiag_telemetry::{Bytes, FlowKey};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// Room for one datagram of a dump; the kernel fills at most 32 KiB (`netlink_dump()`).
const BUFFER: usize = 64 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const NETLINK_HEADER: usize = 16;
const DIAG_MESSAGE: usize = 72;

/// States with a connection behind them (`include/net/tcp_states.h`), as a bit set: ESTABLISHED, FIN_WAIT1, FIN_WAIT2,
/// CLOSE_WAIT, LAST_ACK, CLOSING. Listeners are left out because they reuse the fields of `tcp_info` for their queues.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// One socket of a dump.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: FlowKey,
    /// The kernel's name for this socket, never used twice.
    pub(crate) cookie: u64,
    pub(crate) info: TcpInfo,
    /// Bytes written and not acknowledged (`idiag_wqueue`).
    pub(crate) queued: Bytes,
}

/// Every connected TCP socket of the calling thread's network namespace, whose inode is `netns`.
pub(crate) fn dump(netns: u32) -> io::Result<Vec<Entry>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    let mut buffer = vec![0u8; BUFFER];
    let mut entries = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        match dump_family(&socket, family, netns, &mut buffer, &mut entries) {
            // A kernel without IPv6 has no handler for its sockets, and none of them.
            Err(error)
                if family == libc::AF_INET6 as u8 && error.raw_os_error() == Some(libc::ENOENT) => {
            }
            result => result?,
        }
    }
    Ok(entries)
}

fn dump_family(
    socket: &Socket,
    family: u8,
    netns: u32,
    buffer: &mut [u8],
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    socket.send(&request(family), 0)?;
    loop {
        let mut free = &mut *buffer;
        let length = socket.recv(&mut free, 0)?;
        if parse_datagram(&buffer[..length.min(BUFFER)], netns, entries)? {
            return Ok(());
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(family: u8) -> Vec<u8> {
    const LENGTH: usize = NETLINK_HEADER + 56;
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend((LENGTH as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]); // sequence number, port id
    bytes.extend([family, libc::IPPROTO_TCP as u8, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(CONNECTED.to_ne_bytes());
    bytes.resize(LENGTH, 0); // any address, any port
    bytes
}

/// Takes the sockets out of one datagram. Returns whether it ends the dump.
fn parse_datagram(mut bytes: &[u8], netns: u32, entries: &mut Vec<Entry>) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<NETLINK_HEADER>() {
        let length = u32_at(header, 0) as usize;
        if length < NETLINK_HEADER || length > bytes.len() {
            return Err(malformed("a netlink message is longer than its datagram"));
        }
        let payload = &bytes[NETLINK_HEADER..length];
        match u16_at(header, 4) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR if payload.len() >= 4 => {
                let errno = u32_at(payload, 0) as i32;
                return Err(io::Error::from_raw_os_error(-errno));
            }
            SOCK_DIAG_BY_FAMILY => entries.extend(parse_socket(payload, netns)),
            _ => {}
        }
        bytes = &bytes[aligned(length).min(bytes.len())..];
    }
    Ok(false)
}

/// `struct inet_diag_msg` and its attributes; `None` for a socket without `TCP_INFO`.
fn parse_socket(payload: &[u8], netns: u32) -> Option<Entry> {
    let message = payload.first_chunk::<DIAG_MESSAGE>()?;
    let family = message[0];
    let port = |offset: usize| u16::from_be_bytes([message[offset], message[offset + 1]]);
    let address = |offset: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = *message[offset..].first_chunk()?;
        Some(match i32::from(family) {
            libc::AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            _ => Ipv6Addr::from(bytes).into(),
        })
    };
    let local = SocketAddr::new(address(8)?, port(4));
    let peer = SocketAddr::new(address(24)?, port(6));
    let cookie = u64::from(u32_at(message, 44)) | u64::from(u32_at(message, 48)) << 32;
    let info = attribute(&payload[DIAG_MESSAGE..], INET_DIAG_INFO)?;
    let info = TcpInfo::parse(info).ok()?;
    let queued = Bytes(u32_at(message, 60).into());
    Some(Entry { key: FlowKey::new(netns, local, peer), cookie, info, queued })
}

/// The value of the first netlink attribute of type `wanted`.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16_at(header, 0));
        let value = bytes.get(4..length)?;
        if u16_at(header, 2) == wanted {
            return Some(value);
        }
        bytes = bytes.get(aligned(length)..)?;
    }
}

/// Netlink messages and attributes start at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;
    use crate::netns;

    #[test]
    fn own_connections_are_found_in_both_families() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                println!("skipped: {bind} (no such address on this machine)");
                continue;
            };
            let client =
                TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
            let netns = netns::own_inode().expect("namespace");
            let key = FlowKey::new(
                netns,
                client.local_addr().expect("local"),
                client.peer_addr().expect("peer"),
            );
            let entries = dump(netns).expect("dump");
            let ours = entries.iter().find(|entry| entry.key == key).expect("our connection");
            assert_ne!(ours.cookie, 0);
            assert_eq!(ours.info.state, 1);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_datagram(&bytes, 1, &mut Vec::new());
        }

        #[test]
        fn arbitrary_sockets_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 16..600)) {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            let _ = parse_datagram(&bytes, 1, &mut Vec::new());
        }
    }
}
