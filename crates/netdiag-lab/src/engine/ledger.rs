//! Where each token is: generated, handed to the socket, acknowledged by the client's kernel.
//!
//! Only the kernel knows what the client has, and it counts bytes. So the socket is wrapped: as events leave, the number of the byte
//! that ends each is noted, and an event is acknowledged once the kernel's `bytes_acked` has passed that number. An event ends
//! with an empty line, which neither a header nor a chunk's frame contains.
//!
//! The wrapper keeps a descriptor of its own, so that the kernel can be asked after the connection has ended.
//!
//! Invariant: `generated = acked + in flight + wasted`, for every request at every moment.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// `TCP_CLOSE` of the kernel's `tcp_states.h`: nothing will be acknowledged any more.
const CLOSED: u8 = 7;

/// What one request has come to.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) generated: AtomicU64,
    acked: AtomicU64,
}

/// Tokens of requests, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// By the engine.
    pub generated: u64,
    /// Acknowledged by clients' kernels.
    pub acked: u64,
    /// Not yet, and the connection is still there.
    pub in_flight: u64,
    /// Never: the connection has ended.
    pub wasted: u64,
}

/// A connection, for as long as its tokens matter.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    socket: OwnedFd,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Bytes written to the socket.
    written: u64,
    /// The last of them was a line feed.
    line_feed: bool,
    /// Numbers of the bytes that end events not yet acknowledged.
    ends: VecDeque<u64>,
    /// Whose tokens are in those events and in the ones that are still to be written, and how many.
    contents: VecDeque<(Arc<Account>, u64)>,
    /// Everybody who was answered here.
    accounts: Vec<Arc<Account>>,
}

impl Connection {
    /// Of a socket that was just accepted.
    pub(crate) fn new(socket: &TcpStream) -> io::Result<Arc<Self>> {
        let (peer, socket) = (socket.peer_addr()?, socket.as_fd().try_clone_to_owned()?);
        Ok(Arc::new(Self { peer, socket, book: Mutex::default() }))
    }

    /// An account for a request that is answered here.
    pub(crate) fn open_account(&self) -> Arc<Account> {
        let account = Arc::new(Account::default());
        self.book().accounts.push(Arc::clone(&account));
        account
    }

    /// Says whose tokens, and how many, are in the next event. To be called in the order in which events are sent.
    pub(crate) fn announce(&self, account: &Arc<Account>, tokens: u64) {
        self.book().contents.push_back((Arc::clone(account), tokens));
    }

    fn note(&self, written: &[u8]) {
        let mut book = self.book();
        for (index, byte) in written.iter().enumerate() {
            let line_feed = *byte == b'\n';
            if line_feed && book.line_feed {
                let end = book.written + index as u64 + 1;
                book.ends.push_back(end);
            }
            // Three in a row end one event.
            book.line_feed = line_feed && !book.line_feed;
        }
        book.written += written.len() as u64;
    }

    /// Asks the kernel how things stand.
    pub(crate) fn counts(&self) -> TokenCounts {
        let info = netdiag_tcpinfo::read(&self.socket);
        let mut book = self.book();
        let acked = info.as_ref().map_or(0, |info| info.counters().bytes_acked);
        while book.ends.front().is_some_and(|end| *end <= acked) {
            book.ends.pop_front();
            if let Some((account, tokens)) = book.contents.pop_front() {
                account.acked.fetch_add(tokens, Ordering::Relaxed);
            }
        }
        let sum = |of: fn(&Account) -> &AtomicU64| -> u64 {
            book.accounts.iter().map(|account| of(account).load(Ordering::Relaxed)).sum()
        };
        // Read first: what is generated meanwhile is not missing then.
        let acked = sum(|account| &account.acked);
        let generated = sum(|account| &account.generated);
        let open = generated - acked;
        let is_closed = info.map_or(true, |info| info.state == CLOSED);
        let (in_flight, wasted) = if is_closed { (0, open) } else { (open, 0) };
        TokenCounts { generated, acked, in_flight, wasted }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::AddAssign for TokenCounts {
    fn add_assign(&mut self, other: Self) {
        self.generated += other.generated;
        self.acked += other.acked;
        self.in_flight += other.in_flight;
        self.wasted += other.wasted;
    }
}

/// A socket whose bytes are noted as they leave.
#[derive(Debug)]
pub(crate) struct NotedSocket {
    socket: TcpStream,
    connection: Arc<Connection>,
}

impl NotedSocket {
    pub(crate) fn new(socket: TcpStream, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }
}

impl Drop for NotedSocket {
    fn drop(&mut self) {
        // The connection's own descriptor would keep it open otherwise. It may have ended already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl AsyncRead for NotedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

// Not vectored, so that there is one place where bytes leave.
impl AsyncWrite for NotedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, buffer);
        if let Poll::Ready(Ok(count)) = written {
            self.connection.note(&buffer[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
