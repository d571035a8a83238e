//! A client's socket, shared between the HTTP library that reads and writes it and whoever asks the kernel about it.
//!
//! Shared by reference: the kernel's truth about each is one `getsockopt` away, under TLS and HTTP/2 as well. Only a stream that is paced
//! has a second descriptor, its pacer's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use netdiag_http::Visitor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::framing::Watch;
use crate::lane::Lane;

/// Time that a client is given to take the end of an answer that it did not wait for (see [`Client::linger`]).
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that may wait unsent in the kernel: some ten packets of events, so that an ACK always finds something to send.
const UNSENT: u32 = 16 * 1024;

/// Bytes that the kernel may hold of a stream that may be resumed, acknowledged or not: Linux doubles it, because it counts what it
/// needs itself as well. So much on its way within a round trip of 300 ms is ten times what the fastest engines write.
const UNACKED: usize = 48 * 1024;

/// How HTTP/2 begins; no method of HTTP/1 does.
const PREFACE: &[u8; 3] = b"PRI";

/// Bytes that are read and thrown away meanwhile: no more than one more window.
const LINGER_BYTES: usize = 4 << 20;

/// A client's connection.
pub(crate) struct Client {
    socket: TcpStream,
    /// The other end, as it may be shown. Whoever needs it as it is asks the socket.
    peer: SocketAddr,
    /// How often it may ask, on all of its connections.
    pub(crate) visitor: Visitor,
    tls: bool,
    /// The kernel takes no more for now.
    clogged: AtomicBool,
    /// Answers on it that are no event streams.
    strangers: AtomicUsize,
    /// It speaks HTTP/2.
    multiplexed: AtomicBool,
    /// What paces it, while a stream goes out on it.
    lane: Mutex<Weak<Lane>>,
    /// Its requests.
    pub(crate) watch: Arc<Watch>,
    changed: Notify,
}

impl Client {
    /// Takes over an accepted socket. Events leave one by one: Nagle's algorithm is off.
    pub(crate) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        visitor: Visitor,
        tls: bool,
    ) -> Arc<Self> {
        // Fails on a socket that is gone already, which its first read will tell.
        let _ = socket.set_nodelay(true);
        Arc::new(Self {
            socket,
            peer,
            visitor,
            tls,
            clogged: AtomicBool::new(false),
            strangers: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
            lane: Mutex::default(),
            watch: Arc::default(),
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

    /// Whether bytes are sent on it that belong to no event stream.
    pub(crate) fn has_strangers(&self) -> bool {
        self.strangers.load(Ordering::Relaxed) > 0
    }

    /// Whether it may carry several answers at a time.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lane(&self) -> MutexGuard<'_, Weak<Lane>> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Lets the kernel hold no more than may be lost with the connection and had again from us.
    pub(crate) fn keep_little_unacked(&self) {
        // Without it a stream whose connection broke may be too far back to be resumed, which its client is told.
        let _ = socket2::SockRef::from(&self.socket).set_send_buffer_size(UNACKED);
    }

    /// Whether what comes first can be no HTTP/2 (RFC 9113 §3.4). Waits for it, and leaves it where it is. Under TLS it is neither known
    /// nor waited for: what has come with the end of the handshake was read with it, and the socket may have nothing more.
    pub(crate) async fn begins_as_http1(&self) -> bool {
        if self.tls {
            return false;
        }
        let mut first = [0; PREFACE.len()];
        let came = match self.socket.peek(&mut first).await {
            // The end shows to whoever reads.
            Ok(0) | Err(_) => return false,
            Ok(came) => came,
        };
        first[..came] != PREFACE[..came]
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Asking {
        self.watch.begin();
        self.changed.notify_one();
        Asking { client: Arc::clone(self), is_stranger: false }
    }

    /// Waits until there has been no request for so long. hyper has such limits for HTTP/1 only, and none before it knows
    /// which version it is. Whose last answer has not all been taken by the kernel is not idle; that has a limit of its own there
    /// ([`netdiag_http::Limits::send_time`]).
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.watch.is_busy() {
                changed.await;
            } else if timeout(limit, changed).await.is_err() && !self.is_clogged() {
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
pub(crate) struct Asking {
    client: Arc<Client>,
    is_stranger: bool,
}

impl Asking {
    pub(crate) fn peer(&self) -> SocketAddr {
        self.client.peer
    }

    /// Its answer is no event stream.
    pub(crate) fn into_stranger(mut self) -> Self {
        self.is_stranger = true;
        self.client.strangers.fetch_add(1, Ordering::Relaxed);
        self
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_stranger {
            self.client.strangers.fetch_sub(1, Ordering::Relaxed);
        }
        self.client.watch.end();
        self.client.changed.notify_one();
    }
}

/// The socket as the HTTP library sees it.
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
