//! What stands between hyper and an engine's socket while a request is sent: it lets heads through, one at a time, and nothing behind
//! them.
//!
//! hyper reads as much as it gets, and begins with a body before anybody has asked for it. Where its decoder then is within that body
//! nobody can see; so it is not let begin. A head ends with the first empty line, for httparse as for us, so hyper has exactly what
//! it needs to say what the answer is. Of interim answers (1xx) it says nothing and reads on; then the next head is let through.
//!
//! Invariant: hyper is given no byte behind the end of a head, unless the gate was opened.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Socket;
use crate::request_body::{BodyFault, RequestBody};

/// How far the sending of a request is.
const SENDING: u8 = 0;
/// hyper has all of it.
const ENDED: u8 = 1;
/// The socket has all of it.
const SENT: u8 = 2;

/// The next head may pass.
const HEAD: u8 = 0;
/// One has passed.
const SHUT: u8 = 1;
/// All may pass.
const OPEN: u8 = 2;

/// What the gate, the request on its way through, and whoever drives hyper know of each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    request: AtomicU8,
    gate: AtomicU8,
}

impl Progress {
    /// Whether all of the request is with the socket.
    pub(super) fn is_sent(&self) -> bool {
        self.request.load(Ordering::Relaxed) == SENT
    }

    /// Lets the next head through, if one has passed that was no answer.
    pub(super) fn pass_another(&self) -> bool {
        self.gate.compare_exchange(SHUT, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Lets everything through.
    pub(super) fn open(&self) {
        self.gate.store(OPEN, Ordering::Relaxed);
    }

    fn turn(&self, from: u8, to: u8) {
        // Elsewhere it is a step behind, or ahead.
        let _ = self.request.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The gate, with the socket behind it.
pub(super) struct Gate {
    socket: Socket,
    progress: Arc<Progress>,
    has_written: bool,
    line: Line,
    /// Read, and behind the head.
    ahead: Bytes,
}

impl Gate {
    pub(super) fn new(socket: Socket, progress: Arc<Progress>) -> Self {
        let (has_written, line) = (false, Line::None);
        Self { socket, progress, has_written, line, ahead: Bytes::new() }
    }

    /// The socket, and what was read from it and did not pass.
    pub(super) fn into_parts(self) -> (Socket, Bytes) {
        (self.socket, self.ahead)
    }

    /// How many of these bytes may pass. Behind the end of a head the gate is shut.
    fn passes(&mut self, gate: u8, bytes: &[u8]) -> usize {
        let end = if gate == HEAD { self.line.end_of_head(bytes) } else { None };
        let Some(end) = end else { return bytes.len() };
        self.line = Line::None;
        self.progress.gate.store(SHUT, Ordering::Relaxed);
        end
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let gate = this.progress.gate.load(Ordering::Relaxed);
        if gate == SHUT {
            // Nobody has to be woken: whoever drives hyper has seen that a head has passed.
            return Poll::Pending;
        }
        if this.ahead.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
            let length = this.passes(gate, &buffer.filled()[before..]);
            let (_, surplus) = buffer.filled()[before..].split_at(length);
            this.ahead = Bytes::copy_from_slice(surplus);
            buffer.set_filled(before + length);
        } else {
            let came = this.ahead.slice(..this.ahead.len().min(buffer.remaining()));
            let length = this.passes(gate, &came);
            buffer.put_slice(&this.ahead.split_to(length));
        }
        Poll::Ready(Ok(()))
    }
}

/// Where in a head the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Before it: empty lines there are passed over, by httparse as well.
    None,
    Within,
    /// At the beginning of one.
    Start,
    /// Behind a CR that is its first byte.
    Cr,
}

impl Line {
    /// How many of these bytes belong to the head, if it ends with one of them.
    fn end_of_head(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::None, b'\r' | b'\n') => Self::None,
                (Self::Start | Self::Cr, b'\n') => return Some(at + 1),
                (Self::Start, b'\r') => Self::Cr,
                (_, b'\n') => Self::Start,
                _ => Self::Within,
            };
        }
        None
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper asks for it when it has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        if self.has_written {
            self.progress.turn(ENDED, SENT);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// A request's body, of which is known when hyper has all of it.
pub(super) struct Sending {
    body: RequestBody,
    progress: Arc<Progress>,
}

impl Sending {
    pub(super) fn new(body: RequestBody, progress: Arc<Progress>) -> Self {
        let sending = Self { body, progress };
        sending.look();
        sending
    }

    pub(super) fn into_body(self) -> RequestBody {
        self.body
    }

    /// hyper sends as much as the length says and asks for no more. A body of HTTP/2 may say only then that it has ended.
    fn look(&self) {
        if self.body.is_end_stream() || self.body.size_hint().exact() == Some(0) {
            self.progress.turn(SENDING, ENDED);
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.progress.turn(SENDING, ENDED),
            Some(Ok(_)) => self.look(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_with_an_empty_line_however_they_come() {
        let check = |head: &str, expected: Option<usize>| {
            let head = head.as_bytes();
            assert_eq!(Line::None.end_of_head(head), expected, "{head:?}");
            let mut line = Line::None;
            let by_bytes = (0..head.len()).find(|&at| line.end_of_head(&head[at..=at]).is_some());
            assert_eq!(by_bytes.map(|at| at + 1), expected, "{head:?}");
        };
        check("HTTP/1.1 200 OK\r\na: b\r\n\r\nrest", Some(25));
        check("HTTP/1.1 200 OK\na: b\n\nrest", Some(22));
        check("\r\n\nHTTP/1.1 200 OK\r\n\n\n", Some(21));
        check("HTTP/1.1 200 OK\r\na: b\r\n\r", None);
        check("HTTP/1.1 200 OK\r\n\rx\r\n\r\n", Some(23));
        check("\r\n\r\n\r\n", None);
    }
}
