//! Reading a socket's own state: `TCP_INFO` and the two send-queue ioctls.
//!
//! Each call is one system call on a borrowed descriptor; nothing is kept.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use netdiag_telemetry::Bytes;

use crate::TcpInfo;

/// Longer than any `struct tcp_info` so far (248 bytes in Linux 6.18), so that a newer kernel's is read as far as we
/// know it.
const BUFFER: usize = 512;

/// `SIOCOUTQNSD` of `include/uapi/linux/sockios.h`; the libc crate lacks it.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// The send queue of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Bytes written by the application and not yet acknowledged (`SIOCOUTQ`).
    pub unacked: Bytes,
    /// Part of them not yet sent (`SIOCOUTQNSD`).
    pub notsent: Bytes,
}

/// Reads `TCP_INFO` of a connected TCP socket.
pub fn read(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut buffer = [0u8; BUFFER];
    let mut length = BUFFER as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `buffer` and the written size into `length`; both live for
    // the whole call, and the descriptor is borrowed for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            buffer.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let written = &buffer[..(length as usize).min(BUFFER)];
    TcpInfo::parse(written).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads how much waits in the send queue of a TCP socket.
pub fn queues(socket: impl AsFd) -> io::Result<Queues> {
    let fd = socket.as_fd();
    let read = |request: libc::Ioctl| {
        let mut bytes: libc::c_int = 0;
        const { assert!(size_of::<libc::c_int>() == 4) };
        // SAFETY: both requests write one int through the pointer, which outlives the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), request, &mut bytes) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Bytes(u64::try_from(bytes).unwrap_or_default()))
    };
    Ok(Queues { unacked: read(libc::TIOCOUTQ)?, notsent: read(SIOCOUTQNSD)? })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_real_socket_reports_what_was_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut client = TcpStream::connect(address).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        server.write_all(&[7; 1000]).expect("write");
        client.read_exact(&mut [0; 1000]).expect("read");
        // Loopback acknowledges within the peer's read; poll until the ACK has been processed.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let info = loop {
            let info = read(&server).expect("TCP_INFO");
            if info.bytes_acked >= Some(1000) || std::time::Instant::now() > deadline {
                break info;
            }
            std::thread::yield_now();
        };
        assert_eq!(info.state, 1, "established");
        assert_eq!(info.bytes_acked, Some(1000));
        assert_eq!(info.counters().retrans_segs, 0);
        assert!(info.srtt().is_some());
        let queues = queues(&server).expect("queues");
        assert_eq!((queues.unacked, queues.notsent), (Bytes(0), Bytes(0)));
    }

    #[test]
    fn a_reader_that_does_not_read_shows_in_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        server.set_nonblocking(true).expect("non-blocking");
        let block = vec![0u8; 1 << 20];
        while server.write(&block).is_ok_and(|written| written > 0) {}
        let queues = queues(&server).expect("queues");
        assert!(queues.notsent > Bytes(0), "{queues:?}");
        assert!(queues.unacked >= queues.notsent, "{queues:?}");
        drop(client);
    }

    #[test]
    fn something_else_than_a_tcp_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").expect("open");
        assert!(read(&file).is_err());
        assert!(queues(&file).is_err());
    }
}
