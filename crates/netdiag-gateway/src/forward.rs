//! One request's way: checked, passed to an engine, its answer passed back.
//!
//! Another engine is tried only before the first byte of an answer: when no connection could be had, when an engine closed
//! one that it had kept before the request reached it, or when it broke off a request that may be asked twice (RFC 9110
//! §9.2.2) and can be sent twice.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::adapter;
use crate::body::Outgoing;
use crate::dialect::{Dialect, is_event_stream};
use crate::events::{self, Events, Manner};
use crate::failure::Failure;
use crate::framing::Framing;
use crate::headers::{self, Origin};
use crate::live::About;
use crate::passing::{Clock, Course, Passing, Stay};
use crate::request_body::{BodyLimits, Complaint, RequestBody};
use crate::segment::plan::Progress;
use crate::socket::{Asking, Client};
use crate::trace::{self, REQUEST_ID, STREAM_ID};
use crate::upstream::Seat;
use crate::upstream::link::{Answer, Link, Unanswered};
use crate::{Phase, Shared};

/// Longest name of a model that is told apart, bytes. Paths of files are names, too.
const LONGEST_MODEL: usize = 256;

/// Where a client ends a stream of its own, by the name that it was told.
const STREAMS: &str = "/v1/netdiag/streams/";

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
    let id = trace::identify(&mut parts.headers);
    let method = parts.method.clone();
    // Without the query, which may hold keys.
    let path = parts.uri.path().to_owned();
    let framing = client.framing.take();
    // Freed once there is an answer: hyper keeps the place of this future for as long as the connection lasts.
    let forwarded = Box::pin(forward(&gateway, &client, asking, parts, body, dialect, framing));
    // Who still waits for an answer at the end is told so; who has one has a body of its own to end.
    let answered = tokio::select! {
        answered = forwarded => answered,
        () = gateway.reached(Phase::Ending) => Err(Failure::Draining),
    };
    let mut response = answered.unwrap_or_else(|failure| {
        tracing::info!(
            peer = %client.peer(), %method, path, id = id.to_str().unwrap_or_default(),
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
    headers::check(&parts, framing)?;
    if let Some(token) = gateway.settings.exposure.token() {
        headers::take_token(&mut parts.headers, token)?;
    }
    if let Some(id) = parts.uri.path().strip_prefix(STREAMS) {
        return stop(gateway, &parts.method, id);
    }
    let limits = gateway.settings.requests;
    let asked = Instant::now();
    let end = asked + limits.total_time;
    let place = Arc::clone(&gateway.places).try_acquire_owned().map_err(|_| Failure::Busy)?;
    let complaint = Complaint::default();
    let body_limits = BodyLimits { bytes: limits.body_bytes, patience: limits.body_time };
    let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let body = RequestBody::take(body, body_limits, complaint.clone()).await?;
    let model = body.bytes().filter(|_| dialect.has_events()).and_then(|body| model(&body));
    let report = headers::take_report(&mut parts.headers);
    let origin = Origin { address: client.address(), tls: client.is_tls() };
    let target = parts.uri.clone();
    headers::to_engine(&mut parts.headers, &target, origin);
    let plan = adapter::plan(gateway, dialect, &parts, &body);
    let body = match &plan {
        None => body,
        Some(plan) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            RequestBody::whole(plan.next(Progress::default()))
        }
    };
    let mut ask = Ask { gateway, parts, dialect, complaint };
    let (mut response, link, seat) = ask.until_answered(body, None).await?;
    headers::to_client(response.headers_mut());
    if chunked {
        // Clients that send such bodies are few, and whatever is behind one that was not read is not looked at.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let clock = Clock::new(limits.silent_time, end);
    let engine = seat.engine().url().to_string();
    let (mut head, incoming) = response.into_parts();
    let stay = Stay { seat, place, asking, clock };
    let course = Course::new(Answer::new(incoming, link), stay);
    let is_stream =
        dialect.has_events() && is_event_stream(&head.headers) && head.status.is_success();
    if !is_stream {
        return Ok(Response::from_parts(head, Outgoing::Passing(Box::new(Passing::new(course)))));
    }
    let id = trace::new_id("st_");
    let name = id.to_str().unwrap_or_default().to_owned();
    head.headers.insert(STREAM_ID, id);
    // A last event of ours may be more than was announced.
    head.headers.remove(header::CONTENT_LENGTH);
    let about = About { id: name, peer: client.peer(), dialect, model, engine, asked };
    let live = gateway.live.add(about);
    let valve = events::valve(gateway, client, &live);
    let manner = Manner { keep_alive: gateway.settings.keep_alive, report };
    let source = adapter::source(gateway, course, ask.parts, plan, &head.headers);
    let events = Events::new(Arc::clone(gateway), live, manner, source, valve);
    Ok(Response::from_parts(head, Outgoing::Events(Box::new(events))))
}

/// Ends a stream for its client. Its name is the proof that it is theirs.
fn stop(gateway: &Shared, method: &Method, id: &str) -> Result<Response<Outgoing>, Failure> {
    if method != Method::DELETE {
        return Err(Failure::WrongMethod);
    }
    if !gateway.live.stop(id) {
        return Err(Failure::NoSuchStream);
    }
    let mut response = Response::new(Outgoing::full(String::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The model that a request asks for.
fn model(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        model: String,
    }
    // Names are short; what is not is no name, and would be a label.
    let asked: Asked = serde_json::from_slice(body).ok()?;
    (asked.model.len() <= LONGEST_MODEL).then_some(asked.model)
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
    ) -> Result<(Response<Incoming>, Link, Seat), Failure> {
        let mut body = Some(body);
        let mut tried: Vec<Seat> = Vec::new();
        let mut failure = Failure::Unreachable;
        // What cannot be sent again takes nobody's turn.
        while let Some(sent) = body.take()
            && let Some(seat) = first.take().or_else(|| self.gateway.upstreams.choose(&tried))
        {
            match self.ask(&seat, sent).await {
                Ok((response, link)) => {
                    seat.engine().works();
                    return Ok((response, link, seat));
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
    ) -> Result<(Response<Incoming>, Link), (Failure, Option<RequestBody>)> {
        let engine = seat.engine();
        loop {
            let mut link = match engine.rested() {
                Some(link) => link,
                None => match self.connect(seat).await {
                    Ok(link) => link,
                    Err(failure) => return Err((failure, Some(body))),
                },
            };
            let again = body.again();
            let Some(request) = self.request(seat, body) else {
                return Err((Failure::Malformed("the request's target is malformed"), None));
            };
            let patience = self.gateway.settings.requests.head_time;
            let unanswered = match timeout(patience, link.send(request)).await {
                Ok(Ok(response)) => return Ok((response, link)),
                Ok(Err(unanswered)) => unanswered,
                Err(_) => {
                    engine.failed(&"no answer in time");
                    return Err((Failure::Silent, None));
                }
            };
            if let Some(fault) = self.complaint.get() {
                return Err((fault.into(), None));
            }
            let Unanswered { request, error } = *unanswered;
            let repeatable = self.parts.method.is_idempotent() || self.dialect.can_repeat();
            let left = match request {
                Some(request) => Some(request.into_body()),
                None => again.filter(|_| repeatable),
            };
            // An engine may close an idle connection at any moment, and then a new one is all that it takes.
            match left {
                Some(left) if link.is_reused() => body = left,
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

    /// The request as the engine is to get it.
    fn request(&self, seat: &Seat, body: RequestBody) -> Option<Request<RequestBody>> {
        let url = seat.engine().url();
        let path = self.parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = url.target(path)?;
        *request.headers_mut() = self.parts.headers.clone();
        request.headers_mut().insert(header::HOST, url.authority().clone());
        if request.body().size_hint().exact().is_none() {
            // The length is what hyper has read it to be, and here it is not known.
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Some(request)
    }
}

/// What an error before an answer means.
fn meaning(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Failure::Garbage
    } else {
        Failure::NoAnswer
    }
}
