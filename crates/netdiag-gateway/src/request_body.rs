//! A request's body on its way to an engine.
//!
//! A body of known and modest length is read first: then the request can be sent again, to another engine, and a client that
//! dawdles occupies no seat at an engine. Any other is passed on as it comes, once.
//!
//! Invariant: never more than the limit passes, and never without a piece for longer than the patience.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::failure::Failure;

/// Longest body that is read first, bytes: a prompt of a quarter of a million tokens, or a small picture.
const REPLAYED: u64 = 1 << 20;

/// What a client's body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Time without a piece of it.
    pub(crate) patience: Duration,
}

/// A body as hyper's client sends it.
pub(crate) enum RequestBody {
    /// Read already; can be sent again.
    Whole(Whole),
    /// Passed on as it comes.
    Passing(Box<Passing>),
}

/// A body that has been read.
#[derive(Clone, Default)]
pub(crate) struct Whole {
    data: Bytes,
    /// Few have any, and hyper has room for dozens of requests on every connection.
    trailers: Option<Box<HeaderMap>>,
}

/// Where a body that passes says why it broke off: hyper's error does not tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaint(Arc<AtomicU8>);

/// A body that is too long, or too slow, or whose client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub(crate) enum BodyFault {
    #[error("the request's body is longer than the limit")]
    TooLong = 1,
    #[error("the request's body did not come in time")]
    TooSlow = 2,
    #[error("the request's body is malformed or broke off")]
    Broken = 3,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(Whole::default())
    }

    /// One of ours.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self::Whole(Whole { data, trailers: None })
    }

    /// Takes a client's body, reading it if it is short enough.
    pub(crate) async fn take(
        body: Incoming,
        limits: BodyLimits,
        complaint: Complaint,
    ) -> Result<Self, Failure> {
        let length = body.size_hint().exact();
        if length > Some(limits.bytes) {
            return Err(BodyFault::TooLong.into());
        }
        if length.is_none_or(|length| length > REPLAYED) {
            let wait = Box::pin(sleep(limits.patience));
            let passing = Passing { body, limits, taken: 0, waiting: false, wait, complaint };
            return Ok(Self::Passing(Box::new(passing)));
        }
        // So short a body has the whole patience for all of it.
        match timeout(limits.patience, body.collect()).await {
            Ok(Ok(whole)) => {
                let trailers = whole.trailers().cloned().map(Box::new);
                Ok(Self::Whole(Whole { data: whole.to_bytes(), trailers }))
            }
            Ok(Err(_)) => Err(BodyFault::Broken.into()),
            Err(_) => Err(BodyFault::TooSlow.into()),
        }
    }

    /// Reads to its end what nobody wants.
    pub(crate) async fn discard(mut self) -> Result<(), Failure> {
        while let Some(frame) = self.frame().await {
            frame?;
        }
        Ok(())
    }

    /// The same once more, if it can be sent again.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(whole) => Some(Self::Whole(whole.clone())),
            Self::Passing(_) => None,
        }
    }

    /// What it says, if it has been read and that is all there is to it.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Whole(Whole { data, trailers: None }) => Some(data.clone()),
            Self::Whole(_) | Self::Passing(_) => None,
        }
    }
}

impl Complaint {
    pub(crate) fn get(&self) -> Option<BodyFault> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(BodyFault::TooLong),
            2 => Some(BodyFault::TooSlow),
            3 => Some(BodyFault::Broken),
            _ => None,
        }
    }

    fn set(&self, fault: BodyFault) -> BodyFault {
        self.0.store(fault as u8, Ordering::Relaxed);
        fault
    }
}

/// A body that is passed on.
pub(crate) struct Passing {
    body: Incoming,
    limits: BodyLimits,
    taken: u64,
    /// For the client, and not for an engine that takes nothing.
    waiting: bool,
    wait: Pin<Box<Sleep>>,
    complaint: Complaint,
}

impl Passing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            if !self.waiting {
                self.waiting = true;
                self.wait.as_mut().reset(Instant::now() + self.limits.patience);
            }
            return match self.wait.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(self.complaint.set(BodyFault::TooSlow)))),
                Poll::Pending => Poll::Pending,
            };
        };
        self.waiting = false;
        let result = match frame {
            None => return Poll::Ready(None),
            Some(Err(_)) => Err(BodyFault::Broken),
            Some(Ok(frame)) => {
                self.taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.taken > self.limits.bytes { Err(BodyFault::TooLong) } else { Ok(frame) }
            }
        };
        Poll::Ready(Some(result.map_err(|fault| self.complaint.set(fault))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Whole(whole) => {
                let data = std::mem::take(&mut whole.data);
                let frame = if data.is_empty() {
                    whole.trailers.take().map(|trailers| Frame::trailers(*trailers))
                } else {
                    Some(Frame::data(data))
                };
                Poll::Ready(frame.map(Ok))
            }
            Self::Passing(passing) => passing.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Trailers need the chunked coding, which is not used if the length is known.
            Self::Whole(Whole { trailers: Some(_), .. }) => SizeHint::default(),
            Self::Whole(whole) => SizeHint::with_exact(whole.data.len() as u64),
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}
