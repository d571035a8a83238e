//! What the gateway makes of a request's bytes, without sockets and engines: for fuzzers and tests.
//!
//! The way is the one that requests take: heads are looked at while hyper reads them, what it has read is checked, made an
//! engine's, and written by hyper. Only connections are missing, and time.
//!
//! Invariant: it ends for any bytes, and its outcome depends on them alone, but for the ids that a request is given.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use netdiag_http::{Exposure, ExposureError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::adapter::Adapter;
use crate::body::Outgoing;
use crate::dialect::Dialect;
use crate::framing::{Watch, Watched};
use crate::headers::Origin;
use crate::question::{self, Question, Returning};
use crate::request_body::{Complaint, RequestBody};
use crate::settings::{RequestLimits, Settings, default_limits};
use crate::trace;
use crate::upstream::UpstreamUrl;
use crate::upstream::health::HealthCheck;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its head has not ended, or hyper has refused it before anybody else could.
    Unread,
    /// Refused, with this status; nothing goes to an engine.
    Refused(u16),
    /// It is about a stream that there is already; nothing goes to an engine.
    Returning,
    /// It goes to an engine.
    Passed(Passed),
}

/// What goes to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The bytes on the wire, as far as the request's body has come.
    pub wire: Vec<u8>,
    /// It is asked for in segments.
    pub in_segments: bool,
}

/// A gateway that asks for no token, in front of one engine that is asked in segments, whose streams can be resumed.
#[derive(Debug)]
pub struct Examiner {
    settings: Arc<Told>,
    /// Timers want one. Its clock stands still, since nobody waits on it.
    runtime: tokio::runtime::Runtime,
}

struct Told {
    settings: Settings,
    engine: UpstreamUrl,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Why there is no examiner.
#[derive(Debug, thiserror::Error)]
pub enum NoExaminer {
    /// Who may ask.
    #[error(transparent)]
    Exposure(#[from] ExposureError),
    /// The system gives no timers.
    #[error("no timers: {0}")]
    Runtime(#[from] io::Error),
}

impl Examiner {
    /// One in front of this engine.
    ///
    /// # Errors
    ///
    /// The system gives no timers.
    pub fn try_new(engine: UpstreamUrl, segment: std::num::NonZeroU32) -> Result<Self, NoExaminer> {
        let settings = Settings {
            upstreams: vec![engine.clone()],
            authorities: None,
            adapter: Adapter::Segment(segment),
            health: HealthCheck::default(),
            exposure: Exposure::try_new(SocketAddr::from(([127, 0, 0, 1], 0)), None, false)?,
            tls: None,
            limits: default_limits(),
            requests: RequestLimits::default(),
            pace: None,
            keep_alive: None,
            resume_window: Some(Duration::from_secs(30)),
            drain: Duration::ZERO,
            exports: None,
            pseudonyms: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { settings: Arc::new(Told { settings, engine }), runtime })
    }

    /// What becomes of the first request in these bytes, of which so many come at a time.
    pub fn examine(&self, bytes: &[u8], piece: usize) -> Verdict {
        let _entered = self.runtime.enter();
        let limits = self.settings.settings.limits;
        let verdict = Arc::new(Mutex::new(Verdict::Unread));
        let watch = Arc::new(Watch::default());
        let service = service_fn({
            let (told, verdict, watch) =
                (Arc::clone(&self.settings), Arc::clone(&verdict), Arc::clone(&watch));
            move |request| {
                let (told, verdict, watch) =
                    (Arc::clone(&told), Arc::clone(&verdict), Arc::clone(&watch));
                async move {
                    watch.begin();
                    // It ends with one of the two, so that there is no second request.
                    answer(&told, &watch, &verdict, request).await;
                    std::future::pending::<Result<Response<Outgoing>, io::Error>>().await
                }
            }
        });
        let memory = Memory {
            input: Bytes::copy_from_slice(bytes),
            piece: piece.max(1),
            output: Arc::default(),
        };
        let watched = Watched::new(memory, watch, limits.head_bytes);
        let connection = server::conn::http1::Builder::new()
            .max_buf_size(limits.head_bytes)
            .max_headers(limits.headers)
            .serve_connection(TokioIo::new(watched), service);
        run(pin!(connection));
        let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner);
        verdict.clone()
    }
}

async fn answer(told: &Told, watch: &Watch, verdict: &Mutex<Verdict>, request: Request<Incoming>) {
    let set = |new| *verdict.lock().unwrap_or_else(PoisonError::into_inner) = new;
    let (mut parts, body) = request.into_parts();
    let dialect = Dialect::of_path(parts.uri.path());
    trace::identify(&mut parts.headers);
    let settings = &told.settings;
    let checked = question::check(settings, &mut parts, watch.take(), dialect);
    let question = match checked {
        Err(failure) => Err(failure),
        Ok(Some(Returning::Stop(_) | Returning::Resume { .. })) => {
            set(Verdict::Returning);
            let taken = question::take_body(settings, body, &Complaint::default()).await;
            return match taken {
                Ok(body) => drop(body.discard().await),
                Err(failure) => set(Verdict::Refused(failure.status().as_u16())),
            };
        }
        Ok(None) => {
            let origin = Origin { address: IpAddr::V4(Ipv4Addr::LOCALHOST), tls: false };
            Question::of(settings, origin, parts, body, dialect).await
        }
    };
    let request = question.and_then(|question| {
        let Question { parts, body, plan, .. } = question;
        question::for_engine(&parts, &told.engine, body)
            .map(|request| (request, plan.is_some()))
            .ok_or(crate::failure::Failure::Malformed("the request's target is malformed"))
    });
    match request {
        Err(failure) => set(Verdict::Refused(failure.status().as_u16())),
        Ok((request, in_segments)) => {
            send(request, |wire| {
                set(Verdict::Passed(Passed { wire: wire.to_vec(), in_segments }));
            })
            .await
        }
    }
}

/// Writes a request as an engine gets it, for as long as there is something of it.
async fn send(request: Request<RequestBody>, mut on_bytes: impl FnMut(&[u8])) {
    let output: Arc<Mutex<Vec<u8>>> = Arc::default();
    let memory = Memory { input: Bytes::new(), piece: 1, output: Arc::clone(&output) };
    let shaken = client::conn::http1::Builder::new().handshake(TokioIo::new(memory)).await;
    let Ok((mut sender, connection)) = shaken else { return };
    let mut answer = pin!(sender.try_send_request(request));
    let mut connection = pin!(connection);
    std::future::poll_fn(|context| {
        let is_over = answer.as_mut().poll(context).is_ready();
        let is_over = connection.as_mut().poll(context).is_ready() || is_over;
        on_bytes(&output.lock().unwrap_or_else(PoisonError::into_inner));
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Polls until nothing happens any more.
fn run(mut future: Pin<&mut impl Future>) {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    while woken.0.swap(false, Ordering::Relaxed) {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
    }
}

/// A connection that has these bytes to read, and then nothing for ever.
struct Memory {
    input: Bytes,
    /// Bytes that come at a time.
    piece: usize,
    output: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let length = self.piece.min(self.input.len()).min(buffer.remaining());
        buffer.put_slice(&self.input.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
