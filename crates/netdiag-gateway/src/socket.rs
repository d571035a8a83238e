//! A client's socket, shared between the HTTP library that reads and writes it and whoever asks the kernel about it.
//!
//! Shared by reference and not by a second descriptor: five thousand streams have five thousand sockets, and the kernel's
//! truth about each is one `getsockopt` away, under TLS and HTTP/2 as well.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::framing::Told;

/// Time that a client is given to take the end of an answer that it did not wait for (see [`Client::linger`]).
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that may wait unsent in the kernel: some ten packets of events, so that an ACK always finds something to send.
const UNSENT: u32 = 16 * 1024;

/// How HTTP/2 begins; no method of HTTP/1 does.
const PREFACE: &[u8; 3] = b"PRI";

/// Bytes that are read and thrown away meanwhile: no more than one more window.
const LINGER_BYTES: usize = 4 << 20;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    peer: SocketAddr,
    tls: bool,
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// The kernel takes no more for now.
    clogged: AtomicBool,
    /// Of the request that is being read.
    pub(crate) framing: Told,
    changed: Notify,
}

impl Client {
    /// Takes over an accepted socket. Events leave one by one: Nagle's algorithm is off.
    pub(crate) fn new(socket: TcpStream, peer: SocketAddr, tls: bool) -> Arc<Self> {
        // Fails on a socket that is gone already, which its first read will tell.
        let _ = socket.set_nodelay(true);
        Arc::new(Self {
            socket,
            peer,
            tls,
            busy: AtomicUsize::new(0),
            clogged: AtomicBool::new(false),
            framing: Told::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether no more than one request is being answered on it.
    pub(crate) fn has_one_stream(&self) -> bool {
        self.busy.load(Ordering::Relaxed) <= 1
    }

    /// Whether a request is being answered on it.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Whether the kernel has taken no more when it was last given something.
    pub(crate) fn is_clogged(&self) -> bool {
        self.clogged.load(Ordering::Relaxed)
    }

    /// Keeps in mind whether the kernel took what it was given.
    fn took<T>(&self, written: Poll<T>) -> Poll<T> {
        self.clogged.store(written.is_pending(), Ordering::Relaxed);
        written
    }

    /// Lets the kernel call for more only when it has almost nothing unsent (`TCP_NOTSENT_LOWAT`): what waits there cannot be taken
    /// back, and hides from us how the path is.
    pub(crate) fn keep_little_unsent(&self) {
        // Without it the kernel's usual buffer fills before anything is noticed.
        let _ = socket2::SockRef::from(&self.socket).set_tcp_notsent_lowat(UNSENT);
    }

    /// Whether what comes first can be no HTTP/2 (RFC 9113 §3.4), nor anything under TLS. Waits for it, and leaves it where it is.
    pub(crate) async fn begins_as_http1(&self) -> bool {
        let mut first = [0; PREFACE.len()];
        let came = match self.socket.peek(&mut first).await {
            // The end shows to whoever reads.
            Ok(0) | Err(_) => return false,
            Ok(came) => came,
        };
        !self.tls && first[..came] != PREFACE[..came]
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Asking {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Asking(Arc::clone(self))
    }

    /// Waits until there has been no request for so long. hyper has such limits for HTTP/1 only, and none before it knows
    /// which version it is.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.busy.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if timeout(limit, changed).await.is_err() {
                return;
            }
        }
    }

    /// After the last answer: throws away what still comes, for a moment. A socket that is closed with unread bytes is reset
    /// by the kernel, and the answer, such as "too long", would be lost with it (RFC 9112 §9.6).
    pub(crate) async fn linger(&self) {
        let mut left = LINGER_BYTES;
        let mut bytes = vec![0; 16 * 1024];
        let drained = async {
            while left > 0 && self.socket.readable().await.is_ok() {
                match self.socket.try_read(&mut bytes) {
                    Ok(0) => return,
                    Ok(read) => left = left.saturating_sub(read),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        tokio::select! {
            () = drained => {}
            () = sleep(LINGER) => {}
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Asking(Arc<Client>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// The socket as the HTTP library sees it.
#[derive(Debug)]
pub(crate) struct ClientIo(pub(crate) Arc<Client>);

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &self.0.socket;
        loop {
            ready!(socket.poll_read_ready(context))?;
            match socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.took(write(&self.0.socket, context, |socket| socket.try_write(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.took(write(&self.0.socket, context, |socket| socket.try_write_vectored(slices)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&self.0.socket).shutdown(std::net::Shutdown::Write))
    }
}

fn write(
    socket: &TcpStream,
    context: &mut Context<'_>,
    attempt: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(context))?;
        match attempt(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
