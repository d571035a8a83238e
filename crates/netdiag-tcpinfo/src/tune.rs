//! What a server may ask of the kernel for its own connections, so that less waits there and silences end sooner.
//!
//! Invariant: an option that this kernel lacks is an error and changes nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netdiag_telemetry::Bytes;
use rustix::net::sockopt::{set_tcp_user_timeout, tcp_user_timeout};

/// `TCP_RTO_MAX_MS` of `include/uapi/linux/tcp.h`, since Linux 6.15; the libc crate lacks it.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// How long the kernel tries with its own settings (`tcp_retries2` = 15, backing off from 200 ms up to 120 s).
const KERNELS_PATIENCE: Duration = Duration::from_millis(924_600);

/// Has the kernel take no more than `most` bytes beyond those that it has sent (`TCP_NOTSENT_LOWAT`): a socket is writable only while
/// fewer wait. What waits in a server can still be dropped or put off, what waits in the kernel cannot.
///
/// # Errors
///
/// Not a TCP socket, or more than 2 GiB.
pub fn set_notsent_lowat(socket: impl AsFd, most: Bytes) -> io::Result<()> {
    set(socket, libc::TCP_NOTSENT_LOWAT, most.0)
}

/// Has the kernel try again after `most` at the latest while nothing is acknowledged (`TCP_RTO_MAX_MS`, Linux 6.15): 1 s to 120 s,
/// which is its own.
///
/// Its timer doubles with every try, so that a link which comes back after a silence is found out up to as much later as the silence
/// was long. With a second it is found out within that. It costs a packet a second for each connection that is silent.
///
/// The kernel counts tries, and would give a connection up after 14 s of these; so where the socket has no `TCP_USER_TIMEOUT` it is given
/// one of 924.6 s, which is what the kernel's own settings come to. It also ends a connection whose reader has kept its window
/// shut for so long.
///
/// It is for silences alone: take it back with [`restore_longest_retry`] when data is acknowledged again, and before the socket is closed.
///
/// # Errors
///
/// Not a TCP socket, an older kernel (`ENOPROTOOPT`), or a time out of the range.
pub fn set_longest_retry(socket: impl AsFd, most: Duration) -> io::Result<()> {
    let socket = socket.as_fd();
    let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    set(socket, TCP_RTO_MAX_MS, millis)?;
    if tcp_user_timeout(socket)? == 0 {
        let patience = u32::try_from(KERNELS_PATIENCE.as_millis()).unwrap_or(u32::MAX);
        set_tcp_user_timeout(socket, patience)?;
    }
    Ok(())
}

/// The longest pause between two tries that is in force on a socket (`TCP_RTO_MAX_MS`): that of `net.ipv4.tcp_rto_max_ms`, 120 s as a
/// rule, unless it was set.
///
/// # Errors
///
/// Not a TCP socket, or an older kernel (`ENOPROTOOPT`).
pub fn longest_retry(socket: impl AsFd) -> io::Result<Duration> {
    let mut millis: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, an int's, through the first pointer and an int through the second; both outlive
    // the call, and the descriptor is borrowed for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw mut millis).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(Duration::from_millis(u64::try_from(millis).unwrap_or_default()))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes [`set_longest_retry`] back: `before` is what [`longest_retry`] said before.
///
/// Of a socket that nobody holds any more the kernel forgets what waits to be sent as soon as the pauses between its probes of a shut
/// window have grown to the longest (`tcp_probe_timer`: the client is taken for dead, and `tcp_orphan_retries` leaves it no try). With a
/// second of it that is after a second and a half, and without a reset: the client, who has missed the end of its stream, would wait for
/// it for ever. Pauses grow with every probe of a window that stays shut (`icsk_backoff`), at a probe a second within ten seconds to what
/// the kernel's own pace takes over three minutes for, and only an open window takes them back; so a shut window is no silence
/// to set it in.
///
/// # Errors
///
/// Not a TCP socket, an older kernel (`ENOPROTOOPT`), or a time out of the range.
pub fn restore_longest_retry(socket: impl AsFd, before: Duration) -> io::Result<()> {
    let socket = socket.as_fd();
    set(socket, TCP_RTO_MAX_MS, u64::try_from(before.as_millis()).unwrap_or(u64::MAX))?;
    if Duration::from_millis(tcp_user_timeout(socket)?.into()) == KERNELS_PATIENCE {
        set_tcp_user_timeout(socket, 0)?;
    }
    Ok(())
}

fn set(socket: impl AsFd, option: libc::c_int, value: u64) -> io::Result<()> {
    let value = libc::c_int::try_from(value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    // SAFETY: the kernel reads one int through the pointer, which outlives the call; the descriptor is borrowed for it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn retries_are_bounded_and_a_connection_is_not_given_up_sooner() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        assert!(set_longest_retry(&udp, Duration::from_secs(1)).is_err());
        let second = Duration::from_secs(1);
        let before = longest_retry(&socket);
        match set_longest_retry(&socket, second) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                assert_eq!(tcp_user_timeout(&socket).expect("since 2.6.37"), 0);
                println!("skipped: bounded retries (needs Linux 6.15: {error})");
                return;
            }
            result => result.expect("in the range"),
        }
        assert_eq!(tcp_user_timeout(&socket).expect("since 2.6.37"), 924_600);
        let before = before.expect("what can be set can be asked for");
        assert_eq!(longest_retry(&socket).expect("TCP"), second);
        restore_longest_retry(&socket, before).expect("TCP");
        assert_eq!(longest_retry(&socket).expect("TCP"), before);
        assert_eq!(tcp_user_timeout(&socket).expect("since 2.6.37"), 0);
        // Whoever has set a time of their own keeps it.
        set_tcp_user_timeout(&socket, 30_000).expect("a time");
        set_longest_retry(&socket, Duration::from_secs(2)).expect("in the range");
        restore_longest_retry(&socket, before).expect("TCP");
        assert_eq!(tcp_user_timeout(&socket).expect("since 2.6.37"), 30_000);
        for out in [Duration::ZERO, Duration::from_secs(121), Duration::MAX] {
            assert!(set_longest_retry(&socket, out).is_err(), "{out:?}");
        }
    }
}
