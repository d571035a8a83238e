//! The body of an engine's answer, read from the socket by whoever passes it on.
//!
//! hyper keeps buffers for as long as a connection has an answer: 8 KiB to read into, 8 KiB to write from, and a channel of some 12 KB
//! between its two halves. A stream waits nearly all of its life for the next token, so here nothing is kept while nothing comes:
//! what has come is read into the stack and copied out, as long as it is.
//!
//! Invariant: a body that breaks off never looks like one that has ended.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::frames::{Fault, Frames};
use super::gate::{Gate, Progress, Sending};
use super::wire::Socket;
use super::{Link, drive};

/// Bytes that are read at once: what one record of TLS has, and more than the events of a step of any engine.
const READ: usize = 16 * 1024;

/// hyper's half of a connection.
pub(super) type Connection = http1::Connection<TokioIo<Gate>, Sending>;

/// The body of an engine's answer, with the link that it comes by.
pub(crate) struct Answer(Way);

enum Way {
    Taken(Taken),
    Left(Box<Left>),
}

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Break {
    #[error(transparent)]
    Frames(#[from] Fault),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

/// Taken out of hyper's hands behind its head.
struct Taken {
    /// `None` once it was given back.
    socket: Option<Socket>,
    frames: Frames,
    /// Came with the head.
    ahead: Bytes,
    trailers: Option<Box<HeaderMap>>,
    can_be_reused: bool,
}

/// Left with hyper, because it still sends the request: some engines refuse a request before they have read it. Afterwards nobody
/// could say what of either is on the way, so the connection ends with it.
struct Left {
    incoming: Incoming,
    /// `None` once it has ended.
    connection: Option<Connection>,
    /// Without it hyper would end the connection.
    _sender: http1::SendRequest<Sending>,
}

impl Answer {
    /// The body behind this head. `connection` is `None` if it has ended.
    pub(super) fn new(
        head: &Parts,
        incoming: Incoming,
        connection: Option<Connection>,
        progress: &Arc<Progress>,
        sender: http1::SendRequest<Sending>,
    ) -> Self {
        let connection = match connection {
            Some(connection) if progress.is_sent() => connection,
            connection => {
                progress.open();
                return Self(Way::Left(Box::new(Left { incoming, connection, _sender: sender })));
            }
        };
        let parts = connection.into_parts();
        let (socket, mut ahead) = parts.io.into_inner().into_parts();
        if !parts.read_buf.is_empty() {
            // The gate lets no more through than a head; should hyper find less in it, that comes first.
            ahead = [parts.read_buf, ahead].concat().into();
        }
        let frames = frames(&incoming, &head.headers);
        let can_be_reused = keeps_open(head);
        let taken = Taken { socket: Some(socket), frames, ahead, trailers: None, can_be_reused };
        Self(Way::Taken(taken))
    }

    /// The next piece. An error means that the engine has broken off.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        match &mut self.0 {
            Way::Taken(taken) => taken.poll_frame(context),
            Way::Left(left) => {
                drive(&mut left.connection, context);
                let frame = ready!(Pin::new(&mut left.incoming).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(Break::from)))
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0 {
            Way::Taken(taken) => taken.frames.is_over() && taken.trailers.is_none(),
            Way::Left(left) => left.incoming.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Way::Taken(taken) => {
                taken.frames.left().map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Way::Left(left) => left.incoming.size_hint(),
        }
    }

    /// The link, for another request, if this answer has been read to its end and is the last that came. Otherwise it is closed with
    /// the answer.
    pub(crate) fn take_link(&mut self) -> Option<Link> {
        let Way::Taken(taken) = &mut self.0 else { return None };
        let is_read = taken.frames.is_over() && taken.ahead.is_empty() && taken.can_be_reused;
        Link::rested(taken.socket.take().filter(|_| is_read)?)
    }
}

impl Taken {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        loop {
            if let Some(fault) = self.frames.fault() {
                return Poll::Ready(Some(Err(fault.into())));
            }
            if self.frames.is_over() {
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
            }
            let data = match ready!(self.poll_read(context)) {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    /// The data in what comes next, which may be frames alone.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut room);
        if self.ahead.is_empty() {
            let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(Bytes::new())) };
            ready!(Pin::new(socket).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                self.frames.close();
                return Poll::Ready(Ok(Bytes::new()));
            }
        } else {
            buffer.put_slice(&self.ahead.split_to(self.ahead.len().min(READ)));
        }
        let came = buffer.filled_mut();
        let mut trailers = None;
        let taken = self.frames.take(came, &mut trailers);
        self.trailers = trailers.map(Box::new);
        // Nobody has asked for what is behind the end.
        self.can_be_reused &= taken.used == came.len();
        Poll::Ready(Ok(Bytes::copy_from_slice(&came[..taken.data])))
    }
}

/// How the body comes whose head hyper has read.
fn frames(incoming: &Incoming, headers: &HeaderMap) -> Frames {
    if incoming.is_end_stream() {
        // Answers to HEAD, and those of a status that has no body, whatever length they tell.
        return Frames::length(0);
    }
    match incoming.size_hint().exact() {
        Some(length) => Frames::length(length),
        None if is_chunked(headers) => Frames::chunks(),
        None => Frames::until_closed(),
    }
}

/// Whether the last coding is `chunked` (RFC 9112 §6.3). hyper has refused one in HTTP/1.0. As hyper reads it, which takes a value that
/// is not all visible ASCII for no coding: two rules for one body would let an engine end it twice.
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|codings| codings.to_str().ok()?.rsplit(',').next());
    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// Whether the engine takes another request on the connection. One of HTTP/1.0 may, but would have to be asked in HTTP/1.0.
fn keeps_open(head: &Parts) -> bool {
    let closes = |value: &HeaderValue| {
        let mut options = value.as_bytes().split(|&byte| byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    // Who gives two lengths may mean the other (RFC 9112 §6.3).
    let is_double = head.headers.contains_key(header::TRANSFER_ENCODING)
        && head.headers.contains_key(header::CONTENT_LENGTH);
    head.version == hyper::Version::HTTP_11
        && !is_double
        && !head.headers.get_all(header::CONNECTION).iter().any(closes)
}

#[cfg(test)]
mod tests;
