//! A socket as a [`FlowSnapshot`]: for servers that pace the connections they hold, without a probe.
//!
//! Unlike a probe's dump this says how many bytes wait (`SIOCOUTQ`), and costs three system calls; whose connection it is does not
//! change, so [`key`] is asked once and [`snapshot_as`] again and again.
//!
//! Invariant: the three calls are no single instant, and nothing is computed across them but maxima: a token that is written in
//! between is seen in one and not in another, never as less than nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use netdiag_telemetry::{FlowKey, FlowSnapshot, RttSamples};
use rustix::net::{SocketAddrAny, getpeername, getsockname};

use crate::{queues, read};

/// Which connection a connected TCP socket is, over IPv4 or IPv6.
///
/// The namespace is that of the calling thread, which is where nearly every socket was made: the kernel tells a socket's own
/// (`SIOCGSKNS`) only to those with `CAP_NET_ADMIN`. It is 0, which no namespace has, where `/proc` is not there.
///
/// # Errors
///
/// Not a socket, not connected (any more), or not over IP.
pub fn key(socket: impl AsFd) -> io::Result<FlowKey> {
    let local = ip_address(getsockname(&socket)?)?;
    let peer = getpeername(&socket)?.ok_or(io::ErrorKind::NotConnected)?;
    let netns = std::fs::metadata("/proc/thread-self/ns/net").map(|file| file.ino());
    let netns = netns.ok().and_then(|inode| u32::try_from(inode).ok()).unwrap_or_default();
    Ok(FlowKey::new(netns, local, ip_address(peer)?))
}

/// A connected TCP socket as it is now. RTT samples are a probe's to give: there are none.
///
/// # Errors
///
/// Those of [`key`], and whatever is not TCP.
pub fn snapshot(socket: impl AsFd) -> io::Result<FlowSnapshot> {
    let socket = socket.as_fd();
    snapshot_as(key(socket)?, socket)
}

/// The same of a socket whose key is known.
///
/// # Errors
///
/// Not a TCP socket.
pub fn snapshot_as(key: FlowKey, socket: impl AsFd) -> io::Result<FlowSnapshot> {
    let socket = socket.as_fd();
    let info = read(socket)?;
    let queues = queues(socket)?;
    let mut liveness = info.liveness();
    liveness.queued = Some(queues.unacked);
    // Kernels before 4.6 say it by the ioctl only.
    liveness.notsent = queues.notsent.min(queues.unacked);
    Ok(FlowSnapshot {
        key,
        opened: None,
        closed: info.is_closed(),
        counters: info.counters(),
        rtt: RttSamples::default(),
        srtt: info.srtt(),
        rttvar: info.srtt().map(|_| info.rttvar),
        cwnd: info.snd_cwnd,
        liveness: Some(liveness),
    })
}

fn ip_address(address: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(address).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "the socket's address is not of IPv4 or IPv6")
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    use netdiag_telemetry::Bytes;

    use super::*;
    use crate::set_notsent_lowat;

    fn pair(listen: &str) -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(listen)?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    /// Asks until the kernel says what is waited for: an ACK needs its moment.
    fn until(socket: &TcpStream, is_so: impl Fn(&FlowSnapshot) -> bool) -> FlowSnapshot {
        let began = Instant::now();
        let key = key(socket).expect("connected");
        loop {
            let seen = snapshot_as(key, socket).expect("a TCP socket");
            if is_so(&seen) || began.elapsed() > Duration::from_secs(5) {
                return seen;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn both_families_have_keys_and_counters() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok((mut client, mut server)) = pair(listen) else {
                println!("skipped: a flow over {listen} (no such address here)");
                continue;
            };
            server.write_all(&[7; 1000]).expect("write");
            client.read_exact(&mut [0; 1000]).expect("read");
            let seen = until(&server, |seen| seen.counters.bytes_acked >= 1000);
            assert_eq!(seen.key.local, client.peer_addr().expect("address"));
            assert_eq!(seen.key.peer, client.local_addr().expect("address"));
            assert_ne!(seen.key.netns, 0);
            assert_eq!(seen.counters.bytes_acked, 1000);
            assert!(seen.srtt.is_some() && !seen.closed, "{seen:?}");
            let live = seen.liveness.expect("asked");
            assert_eq!((live.queued, live.notsent), (Some(Bytes(0)), Bytes(0)));
        }
    }

    #[test]
    fn bytes_that_wait_are_counted_and_no_more_are_taken_than_was_set() {
        const MOST: u64 = 16 << 10;
        let (client, mut server) = pair("127.0.0.1:0").expect("loopback");
        server.set_nonblocking(true).expect("non-blocking");
        set_notsent_lowat(&server, Bytes(MOST)).expect("supported since 3.12");
        let block = [0u8; 4096];
        while server.write(&block).is_ok_and(|written| written > 0) {}
        let seen = snapshot(&server).expect("connected");
        let live = seen.liveness.expect("asked");
        assert!(live.notsent >= Bytes(MOST), "{live:?}");
        // Less than what a write adds, and the kernel's own granularity.
        assert!(live.notsent < Bytes(MOST + (64 << 10)), "{live:?}");
        assert!(live.queued >= Some(live.notsent), "{live:?}");
        drop(client);
        // Reset, as it has not read its data. Whoever knows the key still gets an answer.
        let began = Instant::now();
        while snapshot(&server).is_ok() && began.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert!(snapshot_as(seen.key, &server).expect("still TCP").closed);
        assert!(set_notsent_lowat(&server, Bytes(u64::MAX)).is_err());
    }

    #[test]
    fn what_is_no_connection_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        udp.connect("127.0.0.1:9").expect("an address");
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(snapshot(&listener).is_err());
        assert!(snapshot(&udp).is_err());
        assert!(snapshot(&unix).is_err());
        assert!(set_notsent_lowat(&udp, Bytes(1)).is_err());
    }
}
