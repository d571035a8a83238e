//! An answer on its way from an engine to a client, as bytes.
//!
//! A body that hyper polls when the client's socket takes more: what the client does not take is not read from the engine.
//! If it breaks off, so does the client's: a truncated answer must not look like a whole one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::failure::Failure;
use crate::socket::Asking;
use crate::source::Source;
use crate::upstream::link::Answer;
use crate::upstream::{Seat, Upstream};

/// An answer of an engine's. Dropped, it is over: the engine's connection is closed with it, or kept for another request if the
/// answer was read to its end.
pub(crate) struct Course {
    line: Line,
    stay: Stay,
}

/// What a request holds while it is being answered.
pub(crate) struct Stay {
    pub(crate) seat: Seat,
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) clock: Clock,
}

/// A connection with an answer on it.
struct Line {
    answer: Answer,
    engine: Arc<Upstream>,
}

impl Course {
    pub(crate) fn new(answer: Answer, stay: Stay) -> Self {
        Self { line: Line { answer, engine: stay.seat.shared() }, stay }
    }

    /// The engine that answers.
    pub(crate) fn engine(&self) -> Arc<Upstream> {
        self.stay.seat.shared()
    }

    /// Starts the wait for the engine again: it has a reason to be silent.
    pub(crate) fn wait_anew(&mut self) {
        self.stay.clock.waiting = false;
    }

    /// Ends the answer and keeps the rest for another.
    pub(crate) fn leave(self) -> Stay {
        let Self { line, mut stay } = self;
        drop(line);
        stay.clock.waiting = false;
        stay
    }
}

impl Source for Course {
    /// Unless it takes too long.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let clock = &mut self.stay.clock;
        match self.line.answer.poll_frame(context) {
            Poll::Pending => clock.poll(context).map(|failure| Some(Err(failure))),
            Poll::Ready(frame) => {
                clock.waiting = false;
                Poll::Ready(frame.map(|frame| {
                    frame.map_err(|error| {
                        tracing::debug!(%error, engine = %self.line.engine.url(), "answer broke off");
                        Failure::BrokenOff
                    })
                }))
            }
        }
    }

    fn hold(&mut self, held: bool) {
        if !held {
            // Nobody has listened meanwhile.
            self.wait_anew();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(link) = self.answer.take_link() {
            self.engine.rest(link);
        }
    }
}

/// How long an answer may take: between two pieces of it, and altogether.
pub(crate) struct Clock {
    silent_time: Duration,
    end: Instant,
    waiting: bool,
    since: Instant,
    /// Never later than the first limit, and moved only when it fires: nothing is done for each event.
    timer: Pin<Box<Sleep>>,
}

impl Clock {
    pub(crate) fn new(silent_time: Duration, end: Instant) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(end.min(now + silent_time)));
        Self { silent_time, end, waiting: false, since: now, timer }
    }

    /// When the answer must have ended.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Whether a limit has passed, while the engine is waited for.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Failure> {
        if !self.waiting {
            self.waiting = true;
            self.since = Instant::now();
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready(Failure::TooLong);
            }
            if now >= self.since + self.silent_time {
                return Poll::Ready(Failure::Silent);
            }
            self.timer.as_mut().reset(self.end.min(self.since + self.silent_time));
        }
    }
}

/// An answer of which nothing is known.
pub(crate) struct Passing {
    course: Course,
    _asking: Asking,
    failure: Option<Failure>,
}

impl Passing {
    pub(crate) fn new(course: Course, asking: Asking) -> Self {
        Self { course, _asking: asking.into_stranger(), failure: None }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match ready!(self.course.poll_frame(context)) {
            Some(Err(failure)) => {
                // hyper throws away what it has not written yet when it hears of this. So it may write first.
                self.failure = Some(failure);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.course.line.answer.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.course.line.answer.size_hint()
    }
}
