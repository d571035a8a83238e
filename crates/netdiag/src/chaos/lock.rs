//! One run per interface: a socket in the abstract namespace, which the kernel has per network namespace and which is gone
//! with its process, so that not even SIGKILL leaves one behind.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Held as long as a run may change the interface.
#[derive(Debug)]
pub(crate) struct Lock {
    _listener: UnixListener,
}

/// Another process has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its ID, where the kernel tells it.
    pub(crate) pid: Option<i32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process that cannot be told from here"),
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

/// Who has the lock, if anybody. Waits for nobody: whoever can see the socket can connect to it, and nobody accepts.
pub(crate) fn holder(index: u32) -> io::Result<Option<Holder>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new_abstract_name(name(index).as_bytes())?) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        // Somebody listens, and others have connected until its queue was full.
        Err(Errno::AGAIN) => return Ok(Some(Holder { pid: None })),
        Err(error) => return Err(error.into()),
    }
    // The kernel remembers who began to listen. 0 stands for a process of another PID namespace.
    let pid = getsockopt(&socket, PeerCredentials)?.pid();
    Ok(Some(Holder { pid: Some(pid).filter(|&pid| pid > 0) }))
}

/// By index, because interfaces can be renamed.
fn name(index: u32) -> String {
    format!("netdiag-chaos-{index}")
}

fn address(index: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name(index))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::net::{bind, listen};

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

    #[test]
    fn who_connects_to_it_holds_up_nobody() {
        // Another one that no interface has.
        let index = u32::MAX - 1;
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let listener = listener.expect("a socket");
        let name = SocketAddrUnix::new_abstract_name(name(index).as_bytes()).expect("a name");
        bind(&listener, &name).expect("free");
        listen(&listener, 0).expect("listens");
        // A queue of none has room for one.
        let _full = UnixStream::connect_addr(&address(index).expect("a name")).expect("room");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let _ = tell.send((holder(index).ok(), take(index).ok().map(|taken| taken.err())));
        });
        let held = Some(Holder { pid: None });
        let told = told.recv_timeout(Duration::from_secs(20)).expect("not held up");
        assert_eq!(told, (Some(held), Some(held)));
    }
}
