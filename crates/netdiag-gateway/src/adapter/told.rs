//! An engine that is told to pause, to go on, and to abort (`docs/engines.md`).
//!
//! The calls are made by one small task per stream, which exists only for streams that were held: the stream itself never waits
//! for a call. What is wanted is a value and not a queue, so of many changes while a call is under way only the last counts.
//!
//! Invariants: after the last change the engine is told what is wanted, or has failed to be told so many times in a row. An engine
//! that cannot be told is held as any other, by not being read; one that paused and cannot be told to go on ends the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Shared;
use crate::failure::Failure;
use crate::passing::Course;
use crate::request_body::RequestBody;
use crate::source::Source;
use crate::trace::REQUEST_ID;
use crate::upstream::Upstream;

/// Calls under way at once, to all engines together. A path that many clients share goes silent for all of them in one moment.
pub(crate) const CALLS: usize = 32;

/// Time for one call. The engine is near, and does what it is told with its next step.
const CALL_TIME: Duration = Duration::from_secs(2);

/// Tries of one call, and the pause before the second; each further one is twice as long: some three seconds altogether.
const TRIES: u32 = 6;
const RETRY: Duration = Duration::from_millis(100);

/// Most bytes of an answer that are read, so that its connection can be used again.
const ANSWER: usize = 64 * 1024;

/// What an engine is to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Resume,
    Pause,
    Abort,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It does so.
    Done,
    /// The request has finished, so there is nothing to do.
    Late,
    /// It does not know such calls, or the request.
    Refused,
    /// No answer, or one that may be another the next time.
    Failed,
}

impl Order {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Abort => "abort",
        }
    }
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            status if status.is_success() => Self::Done,
            StatusCode::CONFLICT => Self::Late,
            status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                Self::Failed
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Self::Failed,
            _ => Self::Refused,
        }
    }
}

/// How one request's engine is called.
pub(crate) struct Control {
    gateway: Arc<Shared>,
    engine: Arc<Upstream>,
    /// The engine's name for the request.
    id: String,
    /// As the client asked with: who may ask may also pause what they asked for.
    authorization: Option<HeaderValue>,
}

impl Control {
    /// `None` if the engine has not named the request.
    pub(crate) fn of(
        gateway: &Arc<Shared>,
        course: &Course,
        asked: &HeaderMap,
        answered: &HeaderMap,
    ) -> Option<Self> {
        let id = answered.get(REQUEST_ID)?.to_str().ok().filter(|id| is_segment(id))?;
        Some(Self {
            gateway: Arc::clone(gateway),
            engine: course.engine(),
            id: id.to_owned(),
            authorization: asked.get(header::AUTHORIZATION).cloned(),
        })
    }

    /// Tells the engine until it has heard, or will not.
    async fn tell(&self, order: Order) -> Outcome {
        let mut wait = RETRY;
        for attempt in 1.. {
            let outcome = self.call(order).await;
            self.gateway.metrics.ordered(order, outcome);
            if outcome != Outcome::Failed || attempt == TRIES {
                return outcome;
            }
            sleep(wait).await;
            wait *= 2;
        }
        Outcome::Failed
    }

    async fn call(&self, order: Order) -> Outcome {
        // Never closed.
        let Ok(_turn) = self.gateway.calls.acquire().await else { return Outcome::Failed };
        match timeout(CALL_TIME, self.exchange(order)).await {
            Ok(Some(status)) => Outcome::of(status),
            Ok(None) | Err(_) => Outcome::Failed,
        }
    }

    async fn exchange(&self, order: Order) -> Option<StatusCode> {
        let url = self.engine.url();
        let path = format!("/v1/netdiag/requests/{}/{}", self.id, order.as_str());
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.target(&path)?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, url.authority().clone());
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let link = match self.engine.rested() {
            Some(link) => link,
            None => self.engine.connect().await.ok()?,
        };
        let response = link.send(request).await.ok()?;
        let status = response.status();
        let mut answer = response.into_body();
        let mut read = 0;
        while let Some(Ok(frame)) = poll_fn(|context| answer.poll_frame(context)).await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > ANSWER {
                break;
            }
        }
        if let Some(link) = answer.take_link() {
            self.engine.rest(link);
        }
        Some(status)
    }
}

/// Whether an id can stand in a path as it is.
fn is_segment(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    id.bytes().all(plain) && !matches!(id, "" | "." | "..")
}

/// An answer of an engine that is told.
pub(crate) struct Told {
    course: Course,
    /// Until the first order, when it goes to the task.
    control: Option<Control>,
    orders: Option<watch::Sender<Order>>,
    lost: Arc<Lost>,
    held: bool,
    ended: bool,
}

/// Whether a paused engine can no longer be told to go on.
#[derive(Default)]
struct Lost {
    is_lost: AtomicBool,
    waker: AtomicWaker,
}

impl Told {
    pub(crate) fn new(control: Control, course: Course) -> Self {
        let lost = Arc::default();
        Self { course, control: Some(control), orders: None, lost, held: false, ended: false }
    }

    fn order(&mut self, order: Order) {
        if let Some(orders) = &self.orders {
            orders.send_replace(order);
            return;
        }
        // Dropped with the runtime, nobody is left to call.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(control) = self.control.take() else { return };
        let (orders, wanted) = watch::channel(order);
        self.orders = Some(orders);
        runtime.spawn(carry_out(control, wanted, Arc::clone(&self.lost)));
    }
}

impl Source for Told {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.orders.is_some() {
            self.lost.waker.register(context.waker());
            if self.lost.is_lost.load(Ordering::Acquire) {
                return Poll::Ready(Some(Err(Failure::NotResumed)));
            }
        }
        if self.held {
            // An engine that was told to be silent is not too slow.
            self.course.wait_anew();
        }
        let frame = self.course.poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn hold(&mut self, held: bool) {
        self.course.hold(held);
        if std::mem::replace(&mut self.held, held) != held && !self.ended {
            self.order(if held { Order::Pause } else { Order::Resume });
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // Its connection is closed as well, which is enough for most engines, but not behind a proxy that keeps on reading.
        if !self.ended {
            self.order(Order::Abort);
        }
    }
}

/// Tells the engine what is wanted, whenever that changes, until nobody wants anything any more.
async fn carry_out(control: Control, mut wanted: watch::Receiver<Order>, lost: Arc<Lost>) {
    // `None`: it was told something, and nobody knows whether it has heard.
    let mut told = Some(Order::Resume);
    loop {
        let order = *wanted.borrow_and_update();
        if Some(order) != told {
            let outcome = control.tell(order).await;
            tracing::debug!(
                id = control.id, engine = %control.engine.url(), order = order.as_str(),
                outcome = outcome.as_str(), "engine told",
            );
            match outcome {
                Outcome::Done => told = Some(order),
                Outcome::Late => return,
                Outcome::Refused | Outcome::Failed if told == Some(Order::Pause) => {
                    lost.is_lost.store(true, Ordering::Release);
                    lost.waker.wake();
                    return;
                }
                // It will not learn it for this request.
                Outcome::Refused => return,
                // It may work again by the next change, and it may have done what it did not answer to.
                Outcome::Failed => told = None,
            }
        }
        if order == Order::Abort || wanted.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_mean() {
        let check = |status: u16, expected| {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Outcome::of(status), expected, "{status}");
        };
        check(200, Outcome::Done);
        check(204, Outcome::Done);
        check(409, Outcome::Late);
        check(404, Outcome::Refused);
        check(405, Outcome::Refused);
        check(501, Outcome::Refused);
        check(401, Outcome::Refused);
        check(429, Outcome::Failed);
        check(503, Outcome::Failed);
    }

    #[test]
    fn ids_that_would_change_a_path_are_not_used() {
        let check = |id: &str, expected| assert_eq!(is_segment(id), expected, "{id:?}");
        check("chatcmpl-17", true);
        check("cmpl-5f3e:0.1~a_b", true);
        check("..", false);
        check("", false);
        check("a/b", false);
        check("a?b", false);
        check("a%2fb", false);
        check("a b", false);
    }
}
