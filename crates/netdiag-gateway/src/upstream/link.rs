//! One connection to an engine, driven by whoever waits for its answer.
//!
//! hyper sends the request and reads the head of the answer, with all its strictness; behind the head the socket is taken out of its
//! hands ([`answer`]), because a connection of hyper's costs more memory than all the rest of a stream. hyper wants a connection
//! polled by somebody, and the usual way is a task of its own. Here the very body that passes the answer on reads the socket. So there
//! is nothing between the two that could hold tokens, and dropping the body closes the engine's connection in the same moment: that
//! is how an engine learns that its client is gone.
//!
//! Invariant: a link that is reused has had its whole answer read, and nobody has sent anything on it since.

mod answer;
mod frames;
mod gate;
mod wire;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::poll_fn;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use super::url::UpstreamUrl;
use crate::request_body::RequestBody;
pub(crate) use answer::Answer;
use answer::Connection;
use gate::{Gate, Progress, Sending};
use wire::Socket;

/// Most bytes of an answer's head. Engines send hundreds; one that never ends its head must not fill memory.
const HEAD_BYTES: usize = 64 * 1024;

/// Most interim answers (1xx) to one request. Engines send none or one; hyper would take in any number of them, for as long as one
/// waits for an answer.
const INTERIM_ANSWERS: u32 = 64;

/// A connection to an engine, between two requests.
pub(crate) struct Link {
    socket: Socket,
    /// When its last answer ended: then the engine may have closed it while this request was under way.
    idle_since: Option<Instant>,
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    /// The request, if nothing of it has been sent.
    pub(crate) request: Option<Request<RequestBody>>,
    /// Whether the engine may have closed the connection while the request was under way, as it may close any idle one.
    pub(crate) is_reused: bool,
    pub(crate) error: NoAnswer,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    #[error("more than {INTERIM_ANSWERS} interim answers and none behind them")]
    Interim,
}

impl Link {
    /// Connects; over TLS if there is a connector.
    pub(crate) async fn open(url: &UpstreamUrl, tls: Option<&TlsConnector>) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(url, tls).await?, idle_since: None })
    }

    /// One whose answer has been read to its end, if the engine has neither said more nor hung up.
    fn rested(socket: Socket) -> Option<Self> {
        let mut link = Self { socket, idle_since: Some(Instant::now()) };
        link.is_ready().then_some(link)
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        self,
        request: Request<RequestBody>,
    ) -> Result<Response<Answer>, Box<Unanswered>> {
        let is_reused = self.idle_since.is_some();
        let progress = Arc::new(Progress::default());
        let gate = Gate::new(self.socket, Arc::clone(&progress));
        let shaken =
            http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(gate)).await;
        let (mut sender, connection) = match shaken {
            Ok(shaken) => shaken,
            Err(error) => {
                let request = Some(request);
                return Err(Box::new(Unanswered { request, is_reused, error: error.into() }));
            }
        };
        let mut connection = Some(connection);
        let request = request.map(|body| Sending::new(body, Arc::clone(&progress)));
        let mut answer = Box::pin(sender.try_send_request(request));
        let mut interim = 0;
        let answered = poll_fn(|context| {
            loop {
                drive(&mut connection, context);
                match answer.as_mut().poll(context) {
                    Poll::Pending if connection.is_some() && progress.pass_another() => {}
                    polled => return polled.map(Some),
                }
                interim += 1;
                if interim > INTERIM_ANSWERS {
                    return Poll::Ready(None);
                }
            }
        });
        let answered = answered.await;
        drop(answer);
        let Some(answered) = answered else {
            // It has said something, and so was not idle.
            let (request, is_reused, error) = (None, false, NoAnswer::Interim);
            return Err(Box::new(Unanswered { request, is_reused, error }));
        };
        match answered {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let answer = Answer::new(&head, incoming, connection, &progress, sender);
                Ok(Response::from_parts(head, answer))
            }
            Err(mut error) => {
                let request = error.take_message().map(|request| request.map(Sending::into_body));
                let error = error.into_error().into();
                Err(Box::new(Unanswered { request, is_reused, error }))
            }
        }
    }

    /// Whether another request can be sent. Looks at the socket: an engine that has hung up is noticed here.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.socket.is_quiet()
    }

    /// How long it has been idle.
    pub(crate) fn idle(&self) -> Duration {
        self.idle_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

fn drive(connection: &mut Option<Connection>, context: &mut Context<'_>) {
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
