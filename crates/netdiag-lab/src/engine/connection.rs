//! A client's connection, and which tokens its bytes carry.
//!
//! Whether a token reached the client is known to one witness only, our kernel: it counts the bytes that the client's
//! kernel has acknowledged. To read that count as tokens, each event's end is looked for among the bytes that our kernel
//! takes: an SSE event ends with an empty line, and nothing else in our responses has one (JSON escapes line feeds,
//! headers end with CR LF CR LF). That holds whatever the HTTP library does in between: headers, chunk sizes, buffers.
//!
//! A closed connection is not done: the kernel goes on delivering what it has. The socket is kept until that is
//! acknowledged, or cannot be any more, so that no token's fate is guessed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::account::{Account, Place};

/// How long a closed connection may go on delivering. A client that has vanished never acknowledges; the kernel's own
/// limit is a quarter of an hour (`tcp_retries2`), within which nothing but a client long gone would come back.
const LINGER: Duration = Duration::from_secs(60);

/// Between two looks at a connection that lingers: about one round trip.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `TCP_CLOSE` of `include/net/tcp_states.h`: nothing more will be acknowledged.
const TCP_CLOSE: u8 = 7;

/// The account of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    /// A second handle to the socket, which outlives the one that is read and written.
    socket: std::net::TcpStream,
    state: Mutex<State>,
}

/// Tokens that become one's own by the end of an event; none for an event that carries none.
type Cargo = Option<(Arc<Account>, u64)>;

#[derive(Debug, Default)]
struct State {
    /// Bytes that our kernel has taken.
    written: u64,
    after_line_feed: bool,
    /// Of events in the HTTP library's buffer, in order.
    buffered: VecDeque<Cargo>,
    /// Of events in the kernel, with the count of bytes at which each ends.
    sent: VecDeque<(u64, Arc<Account>, u64)>,
}

impl Connection {
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Announces the next event to be written, with the buffered tokens of `account` that it carries.
    pub(crate) fn expect(&self, cargo: Cargo) {
        self.lock().buffered.push_back(cargo);
    }

    /// Asks the kernel what has been acknowledged. Whether nothing is on the way any more.
    pub(crate) fn refresh(&self) -> bool {
        let Ok(info) = netdiag_tcpinfo::read(&self.socket) else { return false };
        let acked = info.bytes_acked.unwrap_or_default();
        let mut state = self.lock();
        let arrived = state.sent.partition_point(|(end, ..)| *end <= acked);
        for (_, account, tokens) in state.sent.drain(..arrived) {
            account.shift(Place::Kernel, Place::Acked, tokens);
        }
        if info.state == TCP_CLOSE {
            state.give_up();
        }
        state.sent.is_empty()
    }

    /// Counts what our kernel has taken.
    fn wrote(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let start = state.written;
        state.written += bytes.len() as u64;
        for (end, byte) in (start + 1..).zip(bytes) {
            let ends_event = *byte == b'\n' && state.after_line_feed;
            state.after_line_feed = *byte == b'\n' && !ends_event;
            if ends_event && let Some(Some((account, tokens))) = state.buffered.pop_front() {
                account.shift(Place::Buffered, Place::Kernel, tokens);
                state.sent.push_back((end, account, tokens));
            }
        }
    }

    /// Nothing more will be written.
    fn close(&self) {
        // As closing would, had this not a second handle. A socket that is gone already needs none.
        let _ = self.socket.shutdown(Shutdown::Both);
        for (account, tokens) in self.lock().buffered.drain(..).flatten() {
            account.shift(Place::Buffered, Place::Wasted, tokens);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_up(&mut self) {
        for (_, account, tokens) in self.sent.drain(..) {
            account.shift(Place::Kernel, Place::Wasted, tokens);
        }
    }
}

/// Waits until everything is acknowledged or lost, and gives the connection's place to another then.
async fn linger(connection: Arc<Connection>, _place: Option<OwnedSemaphorePermit>) {
    let end = tokio::time::Instant::now() + LINGER;
    while !connection.refresh() {
        if tokio::time::Instant::now() >= end {
            connection.lock().give_up();
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The socket as the HTTP library sees it.
#[derive(Debug)]
pub(crate) struct Counted {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Its place among those that may be open.
    place: Option<OwnedSemaphorePermit>,
}

impl Counted {
    /// Takes over an accepted socket. Tokens leave one by one: Nagle's algorithm is off.
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        let connection = Connection { peer, socket, state: Mutex::default() };
        let (stream, connection) = (TcpStream::from_std(stream)?, Arc::new(connection));
        Ok(Self { stream, connection, place: Some(place) })
    }

    pub(crate) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connection.close();
        // Without a runtime the program is about to end, and what is on the way stays so.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(linger(Arc::clone(&self.connection), self.place.take()));
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let taken = slice.len().min(left);
            self.connection.wrote(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
