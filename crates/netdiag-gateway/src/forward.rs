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
use hyper::{Request, Response, Version};
use tokio::time::{Instant, timeout};

use crate::Shared;
use crate::body::Outgoing;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::headers::{self, Origin};
use crate::passing::{Clock, Course, Passing};
use crate::request_body::{BodyLimits, Complaint, RequestBody};
use crate::socket::{Asking, Client};
use crate::trace::{self, REQUEST_ID};
use crate::upstream::Seat;
use crate::upstream::link::{Answer, Link, Unanswered};

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
    let mut response = match forward(&gateway, &client, asking, parts, body, dialect).await {
        Ok(response) => response,
        Err(failure) => {
            tracing::info!(
                peer = %client.peer(), %method, path, id = id.to_str().unwrap_or_default(),
                status = failure.status().as_u16(), %failure, "request refused or failed",
            );
            failure.response(dialect)
        }
    };
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
    client: &Client,
    asking: Asking,
    mut parts: Parts,
    body: Incoming,
    dialect: Dialect,
) -> Result<Response<Outgoing>, Failure> {
    if gateway.is_draining() {
        return Err(Failure::Draining);
    }
    headers::check(&parts)?;
    let limits = gateway.settings.requests;
    let end = Instant::now() + limits.total_time;
    let place = Arc::clone(&gateway.places).try_acquire_owned().map_err(|_| Failure::Busy)?;
    let complaint = Complaint::default();
    let body_limits = BodyLimits { bytes: limits.body_bytes, patience: limits.body_time };
    let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let body = RequestBody::take(body, body_limits, complaint.clone()).await?;
    let origin = Origin { address: client.address(), tls: client.is_tls() };
    let target = parts.uri.clone();
    headers::to_engine(&mut parts.headers, &target, origin, &HeaderValue::from_static(""));
    let mut ask = Ask { gateway, parts, dialect, complaint };
    let (mut response, link, seat) = ask.until_answered(body).await?;
    headers::to_client(response.headers_mut());
    if chunked {
        // See `headers::check`: nothing may follow a body whose length was perhaps given in two ways.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let clock = Clock::new(limits.silent_time, end);
    Ok(response.map(|incoming| {
        let course = Course::new(Answer::new(incoming, link), seat, place, asking, clock);
        Outgoing::Passing(Box::new(Passing::new(course)))
    }))
}

/// A request that looks for an engine.
struct Ask<'a> {
    gateway: &'a Shared,
    parts: Parts,
    dialect: Dialect,
    complaint: Complaint,
}

impl Ask<'_> {
    /// Tries engines until one answers.
    async fn until_answered(
        &mut self,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Link, Seat), Failure> {
        let mut body = Some(body);
        let mut tried: Vec<Seat> = Vec::new();
        let mut failure = Failure::Unreachable;
        while let Some(seat) = self.gateway.upstreams.choose(&tried) {
            let Some(sent) = body.take() else { break };
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
