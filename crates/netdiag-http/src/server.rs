//! Serving a router with limits on everything a client can send or hold.
//!
//! hyper's own server has the limits on headers; connections are counted here. A client over the limit is told so in one
//! fixed response and never reaches the router. [`accept`] is the half that every server needs, whatever it does with its
//! connections; [`serve`] gives them to a router.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service as _;

use crate::visitors::{Visitor, Visitors, refusal, shows_token};

/// A complaint that stays true is repeated this often.
const REPEAT: Duration = Duration::from_secs(60);

/// What one server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request's line and headers.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Time for a request's head to arrive, and for an idle connection to ask again.
    pub head_time: Duration,
    /// Time without any progress in sending an answer, after which the connection is given up: a client that does not
    /// read would keep its place for ever.
    pub send_time: Duration,
    /// Bytes that may wait in the kernel for a client that does not read. It doubles them for its own bookkeeping (socket(7)),
    /// and would otherwise keep megabytes for each. `None` leaves it to the kernel, for servers that pass on large answers.
    pub send_buffer: Option<usize>,
    /// Requests per second from one address; `None`: as many as come.
    pub rate: Option<NonZeroU32>,
    /// Time for requests in flight to end once the server stops.
    pub drain_time: Duration,
}

/// Requests per second from one address. Ten thousand loops that ask once a second, or a thousand that ask ten times; to answer them
/// takes a fifth of a core.
const RATE: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Each costs a few kilobytes; a host has hundreds of inference loops at most.
            connections: 1024,
            head_bytes: 16 * 1024,
            headers: 64,
            head_time: Duration::from_secs(10),
            send_time: Duration::from_secs(20),
            // Over a path of 100 ms that is two megabytes a second, and 1024 stuck clients hold 256 MiB at most.
            send_buffer: Some(128 * 1024),
            rate: Some(RATE),
            drain_time: Duration::from_secs(1),
        }
    }
}

/// The whole answer to a connection too many.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 66\r\n\r\n\
    {\"error\":{\"status\":503,\"message\":\"too many connections are open\"}}";

/// Whom a server has turned away: connections whose clients did not read, and requests of those who asked too often; all clones count
/// the same.
#[derive(Clone, Debug, Default)]
pub struct GivenUp(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    too_often: AtomicU64,
    wrong_tokens: AtomicU64,
}

/// Something that is counted: a name for metrics, what it means, and how many so far.
pub type Figure = (&'static str, &'static str, fn(&GivenUp) -> u64);

impl GivenUp {
    /// What there is to count.
    pub const FIGURES: [Figure; 3] = [
        (
            "connections_given_up",
            "Connections ended by the kernel because nobody read them",
            Self::count,
        ),
        (
            "requests_too_often",
            "Requests refused because their address had asked too often",
            Self::too_often,
        ),
        (
            "requests_wrong_token",
            "Requests refused because their address had shown too many wrong tokens",
            Self::wrong_tokens,
        ),
    ];

    /// Connections so far.
    pub fn count(&self) -> u64 {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Requests so far beyond [`Limits::rate`].
    pub fn too_often(&self) -> u64 {
        self.0.too_often.load(Ordering::Relaxed)
    }

    /// Requests so far with wrong tokens, beyond how many of those an address may show.
    pub fn wrong_tokens(&self) -> u64 {
        self.0.wrong_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn asked_too_often(&self) {
        self.0.too_often.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn guessed_too_often(&self) {
        self.0.wrong_tokens.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a connection too many is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// That the server is busy, as an HTTP/1.1 response.
    Answer,
    /// Nothing: it does not speak plain HTTP.
    Close,
}

/// A connection's place among those that may be open. Dropped, it is another's.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// Gives every connection that comes to `take`, within the limits, until `shutdown` completes.
pub async fn accept(
    listener: TcpListener,
    limits: Limits,
    when_busy: WhenBusy,
    shutdown: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, SocketAddr, Place),
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut shutdown = pin!(shutdown);
    let mut complained = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error, &mut complained).await;
                continue;
            }
        };
        match (Arc::clone(&permits).try_acquire_owned(), when_busy) {
            (Ok(permit), _) => {
                bound(&stream, &limits);
                take(stream, peer, Place(permit));
            }
            (Err(_), WhenBusy::Answer) => drop(tokio::spawn(refuse(stream, limits.head_time))),
            (Err(_), WhenBusy::Close) => {}
        }
    }
}

/// Serves `router` until `shutdown` completes, then lets requests in flight end for a moment.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    given_up: GivenUp,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers);
    let visitors = Visitors::new(limits.rate, given_up.clone());
    // Whatever is called first makes this of a router; once is enough.
    let router = router.with_state(());
    accept(listener, limits, WhenBusy::Answer, shutdown, |stream, peer, place| {
        let (visitor, router) = (visitors.at(peer.ip()), router.clone());
        let service = service_fn(move |request| answer(visitor.clone(), router.clone(), request));
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        let given_up = given_up.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                if timed_out(&error) {
                    given_up.0.connections.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    })
    .await;
    // Event streams never end by themselves; they are cut with the runtime.
    let _ = tokio::time::timeout(limits.drain_time, graceful.shutdown()).await;
}

async fn answer(
    visitor: Visitor,
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    if let Err(wait) = visitor.asks() {
        return Ok(refusal(wait));
    }
    let showed = shows_token(&request);
    let response = router.call(request).await?;
    Ok(visitor.judge(response, showed))
}

/// Running out of descriptors passes when connections close; everything else concerns the one client.
async fn pause_after(error: &io::Error, complained: &mut Option<Instant>) {
    let per_connection = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    if !per_connection.contains(&error.kind()) {
        if complained.is_none_or(|at| at.elapsed() >= REPEAT) {
            *complained = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections; trying again every second");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Lets the kernel end the connection when what was sent is not taken for so long, be it that no ACK comes or that the
/// window stays shut (`TCP_USER_TIMEOUT`, RFC 5482), and bounds what it keeps for the client meanwhile.
fn bound(stream: &TcpStream, limits: &Limits) {
    let millis = u32::try_from(limits.send_time.as_millis()).unwrap_or(u32::MAX);
    // Every kernel since 2.6.37 has them; without, a stuck client keeps its place.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    if let Some(bytes) = limits.send_buffer {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, bytes);
    }
}

/// Whether the kernel has given the connection up.
fn timed_out(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

async fn refuse(mut stream: TcpStream, patience: Duration) {
    let answer = async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await
    };
    // A client that is gone or does not read needs no answer.
    let _ = tokio::time::timeout(patience, answer).await;
}
