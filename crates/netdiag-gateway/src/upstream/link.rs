//! One connection to an engine, driven by whoever waits for its answer.
//!
//! hyper wants a client's connection polled by somebody; the usual way is a task of its own. Here it is polled by the very
//! body that passes the answer on. So there is nothing between the two that could hold tokens, and dropping the body
//! closes the engine's connection in the same moment: that is how an engine learns that its client is gone.
//!
//! Invariant: a link that is reused has had its whole answer read, and nobody has sent anything on it since.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::UpstreamUrl;
use crate::request_body::RequestBody;

/// Most bytes of an answer's head. Engines send hundreds; one that never ends its head must not fill memory.
const HEAD_BYTES: usize = 64 * 1024;

/// A connection to an engine, between two requests or in the middle of one.
pub(crate) struct Link {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<http1::Connection<TokioIo<Socket>, RequestBody>>,
    /// Whether it has carried a request before: then the engine may have closed it while this one was under way.
    reused: bool,
    idle_since: Instant,
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    /// The request, if nothing of it has been sent.
    pub(crate) request: Option<Request<RequestBody>>,
    pub(crate) error: hyper::Error,
}

impl Link {
    /// Connects; over TLS if there is a connector.
    pub(crate) async fn open(url: &UpstreamUrl, tls: Option<&TlsConnector>) -> io::Result<Self> {
        let stream = TcpStream::connect(url.address()).await?;
        stream.set_nodelay(true)?;
        let socket = match tls {
            None => Socket::Plain(stream),
            Some(tls) => {
                let name = ServerName::try_from(url.address().0.to_owned())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                Socket::Tls(Box::new(tls.connect(name, stream).await?))
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        let connection = Some(connection);
        Ok(Self { sender, connection, reused: false, idle_since: Instant::now() })
    }

    /// Whether the engine may have closed it while the request was under way, as it may close any idle connection.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Box<Unanswered>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(|context| {
            drive(connection, context);
            answer.as_mut().poll(context)
        })
        .await
        .map_err(|mut error| {
            let request = error.take_message();
            Box::new(Unanswered { request, error: error.into_error() })
        })
    }

    /// Whether another request can be sent. Looks at the socket: an engine that has hung up is noticed here.
    pub(crate) fn is_ready(&mut self) -> bool {
        // Nobody has to be woken: either it is ready now or it is dropped.
        let mut context = Context::from_waker(Waker::noop());
        drive(&mut self.connection, &mut context);
        self.connection.is_some() && self.sender.is_ready()
    }

    /// How long it has been idle.
    pub(crate) fn idle(&self) -> Duration {
        self.idle_since.elapsed()
    }

    fn rested(mut self) -> Option<Self> {
        let ready = self.is_ready();
        self.reused = true;
        self.idle_since = Instant::now();
        ready.then_some(self)
    }
}

fn drive(
    connection: &mut Option<http1::Connection<TokioIo<Socket>, RequestBody>>,
    context: &mut Context<'_>,
) {
    if let Some(driven) = connection
        && let Poll::Ready(ended) = Pin::new(driven).poll(context)
    {
        if let Err(error) = ended {
            tracing::debug!(%error, "connection to the engine ended");
        }
        // It is not to be polled again, and its socket has no more use.
        *connection = None;
    }
}

/// The body of an engine's answer, with the link that it comes by.
pub(crate) struct Answer {
    incoming: Incoming,
    /// `None` once it was given back.
    link: Option<Link>,
    ended: bool,
}

impl Answer {
    pub(crate) fn new(incoming: Incoming, link: Link) -> Self {
        let ended = incoming.is_end_stream();
        Self { incoming, link: Some(link), ended }
    }

    /// The next piece. An error means that the engine has broken off.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(link) = &mut self.link {
            drive(&mut link.connection, context);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        self.ended = frame.is_none() || self.incoming.is_end_stream();
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The link, for another request, if this answer has been read to its end. Otherwise it is closed with the answer.
    pub(crate) fn take_link(&mut self) -> Option<Link> {
        if !self.ended {
            return None;
        }
        self.link.take()?.rested()
    }
}

/// A socket to an engine.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
