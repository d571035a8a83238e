//! An engine that is asked for its answer in segments ([`crate::segment`]).
//!
//! The next segment is asked for when all of the last was handed on, so when the path has taken it as far as its credit goes, and not
//! while the client takes nothing. So a client that vanishes costs what its credit and one segment are.
//!
//! Invariants: at any time there is no more than one request of a stream at an engine. A continuation goes to the engine that has the
//! prefix in its cache, and to another only if that one cannot be reached. One that has no room for it just then is asked again, a few
//! times.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::http::request::Parts;
use tokio::time::{sleep, timeout_at};

use crate::Shared;
use crate::dialect::{Dialect, is_event_stream};
use crate::failure::Failure;
use crate::forward::Ask;
use crate::passing::{Course, Stay};
use crate::request_body::{Complaint, RequestBody};
use crate::segment::plan::Plan;
use crate::segment::stitch::{Ended, Step, Stitcher};
use crate::source::Source;
use crate::sse::{LONGEST_EVENT, Splitter};

/// Most bytes that are read of why an engine does not continue.
const REFUSAL: usize = 16 * 1024;

/// How often a continuation is asked for that the engine has no room for, and the pause before the second time; each further one is
/// twice as long: some eight seconds altogether. The engine had room for the beginning, and other requests end meanwhile.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that an engine may ask for. A reader waits meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream in segments.
pub(crate) struct Segmented {
    again: Again,
    plan: Plan,
    stitcher: Stitcher,
    splitter: Splitter,
    state: State,
    /// Written, and not yet handed on.
    out: Vec<u8>,
    /// Not all of the last segment was handed on. So it is whenever the client is held.
    behind: bool,
}

/// How the engine is asked once more.
struct Again {
    gateway: Arc<Shared>,
    parts: Parts,
    dialect: Dialect,
}

enum State {
    /// A segment comes.
    Reading(Box<Course>),
    /// It has ended, and the next is not asked for yet.
    Between(Box<Stay>),
    /// The next is asked for.
    Asking(Mutex<Asking>),
    /// The answer was asked for as a whole, and is passed on as it comes.
    Whole(Box<Course>),
    Failed(Failure),
    Over,
}

/// What an engine says to a continuation.
enum Answered {
    Segment(Course),
    /// All of it, because segments do not do.
    Whole(Course),
    /// The text is as long as the model can take.
    Full,
}

type Asking = Pin<Box<dyn Future<Output = Result<Answered, Failure>> + Send>>;

impl Segmented {
    /// Behind the first segment's answer.
    pub(crate) fn new(gateway: Arc<Shared>, parts: Parts, plan: Plan, first: Course) -> Self {
        Self {
            again: Again { gateway, parts, dialect: plan.dialect() },
            stitcher: Stitcher::new(&plan),
            plan,
            splitter: Splitter::new(LONGEST_EVENT),
            state: State::Reading(Box::new(first)),
            out: Vec::new(),
            behind: false,
        }
    }

    /// Takes what has come of a segment.
    fn take(&mut self, data: Bytes) -> Result<Step, Failure> {
        let (stitcher, out) = (&mut self.stitcher, &mut self.out);
        let mut step = Step::On;
        self.splitter
            .push(data, |piece| {
                if step == Step::On {
                    step = stitcher.take(&piece, out);
                }
            })
            .map_err(|_| Failure::Garbage)?;
        Ok(step)
    }

    /// What is to be done after a frame of a segment.
    fn after(&mut self, frame: Option<Result<Frame<Bytes>, Failure>>, course: Course) -> State {
        let step = match frame {
            Some(Err(failure)) => return State::Failed(failure),
            // Trailers of one segment are not those of the stream.
            Some(Ok(frame)) => frame.into_data().map_or(Ok(Step::On), |data| self.take(data)),
            None => {
                // What is left of an event that is not whole is none.
                self.splitter.take_rest();
                Ok(Step::Over)
            }
        };
        match step {
            Err(failure) => State::Failed(failure),
            Ok(Step::On) => State::Reading(Box::new(course)),
            // If the engine would say more, its connection is closed here, which stops it.
            Ok(Step::Over) => match self.stitcher.segment_ended(&mut self.out) {
                Ended::Continue => State::Between(Box::new(course.leave())),
                Ended::Over => State::Over,
                Ended::Stuck => State::Failed(Failure::NotContinued),
            },
            Ok(Step::Unfit) => {
                self.out.clear();
                self.again.ask(course.leave(), self.plan.whole(), Answered::Whole)
            }
        }
    }
}

impl Source for Segmented {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if !self.out.is_empty() {
                let data = std::mem::take(&mut self.out).into();
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Reading(mut course) => match course.poll_frame(context) {
                    Poll::Ready(frame) => self.after(frame, *course),
                    Poll::Pending => {
                        self.state = State::Reading(course);
                        return Poll::Pending;
                    }
                },
                State::Between(stay) if self.behind => {
                    self.state = State::Between(stay);
                    return Poll::Pending;
                }
                State::Between(stay) => {
                    let next = self.plan.next(self.stitcher.progress());
                    self.again.ask(*stay, next, Answered::Segment)
                }
                State::Asking(mut asking) => {
                    let future = asking.get_mut().unwrap_or_else(PoisonError::into_inner);
                    match future.as_mut().poll(context) {
                        Poll::Pending => {
                            self.state = State::Asking(asking);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(Answered::Segment(course))) => {
                            State::Reading(Box::new(course))
                        }
                        Poll::Ready(Ok(Answered::Whole(course))) => State::Whole(Box::new(course)),
                        Poll::Ready(Ok(Answered::Full)) => {
                            self.stitcher.full(&mut self.out);
                            State::Over
                        }
                        Poll::Ready(Err(failure)) => State::Failed(failure),
                    }
                }
                State::Whole(mut course) => {
                    let frame = course.poll_frame(context);
                    self.state = State::Whole(course);
                    return frame;
                }
                State::Failed(failure) => return Poll::Ready(Some(Err(failure))),
                State::Over => return Poll::Ready(None),
            };
        }
    }

    fn hold(&mut self, held: bool) {
        if let State::Reading(course) | State::Whole(course) = &mut self.state {
            course.hold(held);
        }
    }

    fn behind(&mut self, behind: bool) {
        self.behind = behind;
    }
}

impl Again {
    /// Asks the engine of the segment before.
    fn ask(&self, stay: Stay, body: Bytes, answered: fn(Course) -> Answered) -> State {
        let (gateway, parts, dialect) =
            (Arc::clone(&self.gateway), self.parts.clone(), self.dialect);
        let end = stay.clock.end();
        let asking = async move {
            let Stay { mut seat, mut place, mut clock } = stay;
            let complaint = Complaint::default();
            let mut ask = Ask { gateway: &gateway, parts, dialect, complaint };
            for attempt in 1.. {
                let body = RequestBody::whole(body.clone());
                let (response, answers) = ask.until_answered(body, Some(seat)).await?;
                let (head, answer) = response.into_parts();
                let mut course = Course::new(answer, Stay { seat: answers, place, clock });
                if head.status.is_success() && is_event_stream(&head.headers) {
                    return Ok(answered(course));
                }
                let why = text(&mut course).await;
                let status = head.status.as_u16();
                if head.status == StatusCode::BAD_REQUEST && is_about_length(&why) {
                    return Ok(Answered::Full);
                }
                let Some(pause) = pause(attempt, head.status, &head.headers) else {
                    tracing::warn!(status, attempt, "an engine does not continue its text");
                    break;
                };
                tracing::debug!(status, attempt, ?pause, "an engine has no room to continue");
                Stay { seat, place, clock } = course.leave();
                sleep(pause).await;
            }
            Err(Failure::NotContinued)
        };
        let asking = async move { timeout_at(end, asking).await.unwrap_or(Err(Failure::TooLong)) };
        State::Asking(Mutex::new(Box::pin(asking)))
    }
}

/// The beginning of an answer.
async fn text(course: &mut Course) -> String {
    let mut text = Vec::new();
    while text.len() < REFUSAL
        && let Some(Ok(frame)) = poll_fn(|context| course.poll_frame(context)).await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The pause behind this attempt, the first of which is 1; `None` if no other will do. An engine may ask for a longer one than ours:
/// that it asks for none does not make room.
fn pause(attempt: u32, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !is_full(status) || attempt >= TRIES {
        return None;
    }
    let own = PAUSE * 2_u32.pow(attempt - 1);
    let pause = asked_pause(headers).map_or(own, |asked| asked.max(own));
    (pause <= LONGEST_PAUSE).then_some(pause)
}

/// Whether an engine will have room later.
fn is_full(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// How long an engine asks to be left alone, if it says so in seconds. Its clock may be another, so a date says nothing.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether an error says that prompt and answer are longer than the model's context, in the words of vLLM, SGLang, llama.cpp and
/// OpenAI.
fn is_about_length(why: &str) -> bool {
    let why = why.to_lowercase();
    ["context length", "context_length", "context size"].iter().any(|words| why.contains(words))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn pauses_grow_and_are_no_shorter_than_an_engine_asks_for() {
        let check = |attempt, status: u16, asked: &'static str, expected: Option<u64>| {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut headers = HeaderMap::new();
            if !asked.is_empty() {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            }
            let pause = pause(attempt, status, &headers);
            assert_eq!(pause, expected.map(Duration::from_millis), "{attempt} {status} {asked:?}");
        };
        check(1, 503, "", Some(500));
        check(2, 429, "", Some(1000));
        check(4, 429, "", Some(4000));
        check(5, 429, "", None);
        check(1, 429, "0", Some(500));
        check(4, 503, "0", Some(4000));
        check(5, 503, "0", None);
        check(1, 429, "1", Some(1000));
        check(4, 429, "1", Some(4000));
        check(1, 429, "5", Some(5000));
        check(1, 429, "6", None);
        check(1, 429, "Wed, 21 Oct 2015 07:28:00 GMT", Some(500));
        check(1, 500, "0", None);
        check(1, 400, "", None);
    }
}
