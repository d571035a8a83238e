//! One request's way: checked, passed to an engine, its answer passed back.
//!
//! Another engine is tried only before the first byte of an answer: when no connection could be had, when an engine closed
//! one that it had kept before the request reached it, or when it broke off a request that may be asked twice (RFC 9110
//! §9.2.2) and can be sent twice.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout};

use crate::adapter;
use crate::body::Outgoing;
use crate::dialect::{Dialect, is_event_stream};
use crate::events::{self, Events, Manner};
use crate::failure::Failure;
use crate::flow::Flow;
use crate::framing::Framing;
use crate::headers::{self, Origin};
use crate::live::About;
use crate::passing::{Clock, Course, Passing, Stay};
use crate::question::{self, Question, Returning};
use crate::request_body::{Complaint, RequestBody};
use crate::resume::Tail;
use crate::socket::{Asking, Client};
use crate::trace::{self, REQUEST_ID, STREAM_ID, STREAM_PREFIX};
use crate::upstream::Seat;
use crate::upstream::link::{Answer, Link, NoAnswer, Unanswered};
use crate::{Phase, Shared};

/// Answers one request. It always has an answer, if only a refusal.
pub(crate) async fn answer(
    gateway: Arc<Shared>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let asking = client.request();
    let (mut parts, body) = request.into_parts();
    let dialect = Dialect::of_path(parts.uri.path());
    let version = parts.version;
    if version == Version::HTTP_2 {
        client.set_multiplexed();
    }
    let id = trace::identify(&mut parts.headers);
    let method = parts.method.clone();
    // Without the query, which may hold keys.
    let path = parts.uri.path().to_owned();
    let framing = client.watch.take();
    // Freed once there is an answer: hyper keeps the place of this future for as long as the connection lasts.
    let forwarded = Box::pin(forward(&gateway, &client, asking, parts, body, dialect, framing));
    // Who still waits for an answer at the end is told so; who has one has a body of its own to end.
    let answered = tokio::select! {
        answered = forwarded => answered,
        () = gateway.reached(Phase::Ending) => Err(Failure::Draining),
    };
    let mut response = answered.unwrap_or_else(|failure| {
        tracing::info!(
            peer = %client.peer(), %method, path = question::shown(&path), id = id.to_str().unwrap_or_default(),
            status = failure.status().as_u16(), %failure, "request refused or failed",
        );
        failure.response(dialect)
    });
    gateway.metrics.answered(dialect, response.status().as_u16());
    let headers = response.headers_mut();
    // The engine's own id is the better one: its logs have it.
    headers.entry(REQUEST_ID).or_insert(id);
    if version == Version::HTTP_2 {
        // A connection has many streams there; its end is told in another way.
        headers.remove(header::CONNECTION);
    } else if gateway.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn forward(
    gateway: &Arc<Shared>,
    client: &Arc<Client>,
    asking: Asking,
    mut parts: Parts,
    body: Incoming,
    dialect: Dialect,
    framing: Framing,
) -> Result<Response<Outgoing>, Failure> {
    if gateway.is_draining() {
        return Err(Failure::Draining);
    }
    client.visitor.asks()?;
    let settings = &gateway.settings;
    let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let shows_token = headers::shows_token(&parts.headers);
    let checked = question::check(settings, &mut parts, framing, dialect);
    if shows_token && matches!(checked, Err(Failure::Unauthorized)) {
        client.visitor.showed_wrong_token()?;
    }
    if let Some(returning) = checked? {
        let body = question::take_body(settings, body, &Complaint::default()).await?;
        // What was asked is known. Unread it would stand between us and the client's leaving.
        body.discard().await?;
        return returning.answer(gateway, client, asking, &mut parts.headers);
    }
    let asked = Instant::now();
    let end = asked + settings.requests.total_time;
    let place = Arc::clone(&gateway.places).try_acquire_owned().map_err(|_| Failure::Busy)?;
    let origin = Origin { address: client.address(), tls: client.is_tls() };
    let question = Question::of(settings, origin, parts, body, dialect).await?;
    let Question { parts, body, plan, model, report, complaint } = question;
    let mut ask = Ask { gateway, parts, dialect, complaint };
    let (mut response, seat) = ask.until_answered(body, None).await?;
    headers::to_client(&mut response);
    if chunked {
        // Clients that send such bodies are few, and whatever is behind one that was not read is not looked at.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let clock = Clock::new(settings.requests.silent_time, end);
    let engine = seat.engine().url().to_string();
    let (mut head, answer) = response.into_parts();
    let course = Course::new(answer, Stay { seat, place, clock });
    let is_stream =
        dialect.has_events() && is_event_stream(&head.headers) && head.status.is_success();
    if !is_stream {
        return Ok(Response::from_parts(
            head,
            Outgoing::Passing(Box::new(Passing::new(course, asking))),
        ));
    }
    let id = trace::new_id(STREAM_PREFIX);
    let name = id.to_str().unwrap_or_default().to_owned();
    head.headers.insert(STREAM_ID, id);
    headers::forbid_buffering(&mut head.headers);
    // A last event of ours may be more than was announced.
    head.headers.remove(header::CONTENT_LENGTH);
    let about = About { id: name, peer: client.peer(), dialect, model, engine, asked };
    let tail = gateway.settings.resume_window.map(|_| Tail::new(about.id.clone()));
    let source = adapter::source(gateway, course, ask.parts, plan, &head.headers);
    let flow = Flow::new(&about, source, tail);
    let valve = events::valve(gateway, client, dialect);
    let manner = Manner { keep_alive: gateway.settings.keep_alive, report };
    let stream = gateway.live.add(about, flow, asking);
    let events = Events::new(Arc::clone(gateway), stream, manner, valve);
    Ok(Response::from_parts(head, Outgoing::Events(Box::new(events))))
}

impl Returning {
    /// Does it.
    fn answer(
        self,
        gateway: &Arc<Shared>,
        client: &Arc<Client>,
        asking: Asking,
        headers: &mut HeaderMap,
    ) -> Result<Response<Outgoing>, Failure> {
        let (stream, after, dialect) = match self {
            Self::Resume { stream, after, dialect } => (stream, after, dialect),
            Self::Stop(id) if gateway.live.stop(gateway, &id) => {
                let mut response = Response::new(Outgoing::full(String::new()));
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            Self::Stop(_) => return Err(Failure::NoSuchStream),
        };
        let report = headers::take_report(headers);
        let taken = gateway.live.resume(&stream, dialect, after, asking)?;
        gateway.metrics.resumed();
        tracing::info!(id = trace::label(&stream), peer = %client.peer(), after, "stream resumed");
        let valve = events::valve(gateway, client, taken.0.about.dialect);
        let manner = Manner { keep_alive: gateway.settings.keep_alive, report };
        let events = Events::new(Arc::clone(gateway), taken, manner, valve);
        let mut response = Response::new(Outgoing::Events(Box::new(events)));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers::forbid_buffering(headers);
        if let Ok(stream) = HeaderValue::from_str(&stream) {
            headers.insert(STREAM_ID, stream);
        }
        Ok(response)
    }
}

/// A request that looks for an engine.
pub(crate) struct Ask<'a> {
    pub(crate) gateway: &'a Shared,
    pub(crate) parts: Parts,
    pub(crate) dialect: Dialect,
    pub(crate) complaint: Complaint,
}

impl Ask<'_> {
    /// Tries engines until one answers, `first` before all others.
    pub(crate) async fn until_answered(
        &mut self,
        body: RequestBody,
        mut first: Option<Seat>,
    ) -> Result<(Response<Answer>, Seat), Failure> {
        let mut body = Some(body);
        let mut tried: Vec<Seat> = Vec::new();
        let mut failure = Failure::Unreachable;
        // What cannot be sent again takes nobody's turn.
        while let Some(sent) = body.take()
            && let Some(seat) = first.take().or_else(|| self.gateway.upstreams.choose(&tried))
        {
            match self.ask(&seat, sent).await {
                Ok(response) => {
                    seat.engine().works();
                    return Ok((response, seat));
                }
                Err((why, left)) => {
                    tracing::debug!(engine = %seat.engine().url(), %why, "engine did not answer");
                    failure = why;
                    body = left;
                }
            }
            if body.is_some() {
                self.gateway.metrics.retried();
            }
            tried.push(seat);
        }
        Err(failure)
    }

    /// Asks one engine. What it has not taken, or may be asked again, comes back.
    async fn ask(
        &self,
        seat: &Seat,
        mut body: RequestBody,
    ) -> Result<Response<Answer>, (Failure, Option<RequestBody>)> {
        let engine = seat.engine();
        loop {
            let link = match engine.rested() {
                Some(link) => link,
                None => match self.connect(seat).await {
                    Ok(link) => link,
                    Err(failure) => return Err((failure, Some(body))),
                },
            };
            let again = body.again();
            let Some(request) = question::for_engine(&self.parts, engine.url(), body) else {
                return Err((Failure::Malformed("the request's target is malformed"), None));
            };
            let patience = self.gateway.settings.requests.head_time;
            let unanswered = match timeout(patience, link.send(request)).await {
                // hyper passes over all that may come before an answer but 101, which nobody has asked for: what follows it is no HTTP,
                // and the client would believe that it speaks with the engine itself.
                Ok(Ok(response)) if response.status().is_informational() => {
                    engine.failed(&"it changes to another protocol unasked");
                    return Err((Failure::Garbage, None));
                }
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(unanswered)) => unanswered,
                Err(_) => {
                    engine.failed(&"no answer in time");
                    return Err((Failure::Silent, None));
                }
            };
            if let Some(fault) = self.complaint.get() {
                return Err((fault.into(), None));
            }
            let Unanswered { request, is_reused, error } = *unanswered;
            let repeatable = self.parts.method.is_idempotent() || self.dialect.can_repeat();
            let left = match request {
                Some(request) => Some(request.into_body()),
                None => again.filter(|_| repeatable),
            };
            // An engine may close an idle connection at any moment, and then a new one is all that it takes.
            match left {
                Some(left) if is_reused => body = left,
                left => {
                    engine.failed(&error);
                    return Err((meaning(&error), left));
                }
            }
        }
    }

    async fn connect(&self, seat: &Seat) -> Result<Link, Failure> {
        let engine = seat.engine();
        match timeout(self.gateway.settings.requests.connect_time, engine.connect()).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => {
                engine.is_down(&error);
                Err(Failure::Unreachable)
            }
            Err(_) => {
                engine.is_down(&"no connection in time");
                Err(Failure::ConnectTimeout)
            }
        }
    }
}

/// What an error before an answer means.
fn meaning(error: &NoAnswer) -> Failure {
    match error {
        NoAnswer::Interim => Failure::Garbage,
        NoAnswer::Hyper(error)
            if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() =>
        {
            Failure::Garbage
        }
        NoAnswer::Hyper(_) => Failure::NoAnswer,
    }
}
