//! One run per interface: a socket in the abstract namespace, which the kernel has per network namespace and which is gone
//! with its process, so that not even SIGKILL leaves one behind.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// Held as long as a run may change the interface.
#[derive(Debug)]
pub(crate) struct Lock {
    _listener: UnixListener,
}

/// Another process has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its ID, where it can be seen from here.
    pub(crate) pid: Option<i32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process that cannot be seen from here"),
        }
    }
}

/// Takes the lock of the interface with this index, unless somebody has it; the outer error is the system's.
pub(crate) fn take(index: u32) -> io::Result<Result<Lock, Holder>> {
    loop {
        match UnixListener::bind_addr(&address(index)?) {
            Ok(listener) => return Ok(Ok(Lock { _listener: listener })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        // Whoever had it may have ended in this moment.
        if let Some(holder) = holder(index)? {
            return Ok(Err(holder));
        }
    }
}

/// Who has the lock, if anybody.
pub(crate) fn holder(index: u32) -> io::Result<Option<Holder>> {
    let stream = match UnixStream::connect_addr(&address(index)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    // The kernel remembers who began to listen. 0 stands for a process of another PID namespace.
    let pid = getsockopt(&stream, PeerCredentials)?.pid();
    Ok(Some(Holder { pid: Some(pid).filter(|&pid| pid > 0) }))
}

/// By index, because interfaces can be renamed.
fn address(index: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("netdiag-chaos-{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_holder_at_a_time() {
        // No interface has this index.
        let index = u32::MAX;
        assert_eq!(holder(index).expect("a socket"), None);
        let lock = take(index).expect("a socket").expect("the lock");
        let pid = i32::try_from(std::process::id()).ok();
        assert_eq!(holder(index).expect("a socket"), Some(Holder { pid }));
        assert_eq!(take(index).expect("a socket").err(), Some(Holder { pid }));
        drop(lock);
        assert!(take(index).expect("a socket").is_ok());
    }
}
