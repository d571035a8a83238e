//! What a request asks: checked, read as far as it is short, and made what an engine is to get.
//!
//! Apart from [`crate::forward`], because it needs no gateway, no socket and no engine: [`crate::examine`] does the same with any bytes.
//!
//! Invariant: what goes to an engine has no header of another hop, and one length at most.

use hyper::body::{Body as _, Incoming};
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use serde::Deserialize;

use crate::adapter;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::headers::{self, Origin};
use crate::request_body::{BodyLimits, Complaint, RequestBody};
use crate::resume::Position;
use crate::segment::plan::{Plan, Progress};
use crate::settings::Settings;
use crate::trace::label;
use crate::upstream::UpstreamUrl;

/// Longest name of a model that is told apart, bytes. Paths of files are names, too.
const LONGEST_MODEL: usize = 256;

/// Where a client takes or ends a stream of its own, by the name that it was told.
const STREAMS: &str = "/v1/netdiag/streams/";

/// What a client wants with a stream that it has already. That it knows its name is the proof that it is its own.
#[derive(Debug)]
pub(crate) enum Returning {
    Stop(String),
    Resume {
        stream: String,
        after: u64,
        /// Of the request, if it is one of an API.
        dialect: Option<Dialect>,
    },
}

/// A request for an engine.
pub(crate) struct Question {
    pub(crate) parts: Parts,
    pub(crate) body: RequestBody,
    /// How it is asked for in segments, if it is.
    pub(crate) plan: Option<Plan>,
    /// The model that it asks for, where that can be read.
    pub(crate) model: Option<String>,
    /// Whether the client wants to be told how it went.
    pub(crate) report: bool,
    pub(crate) complaint: Complaint,
}

/// Whether a request may be answered, by its head. What concerns a stream that there is already is told.
pub(crate) fn check(
    settings: &Settings,
    parts: &mut Parts,
    framing: Framing,
    dialect: Dialect,
) -> Result<Option<Returning>, Failure> {
    headers::check(parts, framing)?;
    if let Some(token) = settings.exposure.token() {
        headers::take_token(&mut parts.headers, token)?;
    }
    let resumes = settings.resume_window.is_some();
    let Some(stream) = parts.uri.path().strip_prefix(STREAMS) else {
        if !resumes || !dialect.has_events() {
            return Ok(None);
        }
        // A client that repeats its request, as some that read event streams with `fetch` do.
        let position = Position::of_request(&parts.headers);
        return Ok(position.map(|(stream, after)| {
            let dialect = Some(dialect);
            Returning::Resume { stream, after, dialect }
        }));
    };
    let stream = stream.to_owned();
    match parts.method {
        Method::DELETE => Ok(Some(Returning::Stop(stream))),
        Method::GET if resumes => {
            let after = Position::in_stream(&parts.headers, &stream)?;
            Ok(Some(Returning::Resume { stream, after, dialect: None }))
        }
        _ => Err(Failure::WrongMethod(if resumes { "GET, DELETE" } else { "DELETE" })),
    }
}

/// Takes a body under the limits.
pub(crate) async fn take_body(
    settings: &Settings,
    body: Incoming,
    complaint: &Complaint,
) -> Result<RequestBody, Failure> {
    let limits = settings.requests;
    let limits = BodyLimits { bytes: limits.body_bytes, patience: limits.body_time };
    RequestBody::take(body, limits, complaint.clone()).await
}

/// What may be logged of a path, which may have a stream's name in it.
pub(crate) fn shown(path: &str) -> &str {
    match path.strip_prefix(STREAMS) {
        Some(stream) => &path[..STREAMS.len() + label(stream).len()],
        None => path,
    }
}

impl Question {
    /// A request that was checked, for an engine.
    pub(crate) async fn of(
        settings: &Settings,
        origin: Origin,
        mut parts: Parts,
        body: Incoming,
        dialect: Dialect,
    ) -> Result<Self, Failure> {
        let complaint = Complaint::default();
        let body = take_body(settings, body, &complaint).await?;
        let model = body.bytes().filter(|_| dialect.has_events()).and_then(|body| model(&body));
        let report = headers::take_report(&mut parts.headers);
        let target = parts.uri.clone();
        headers::to_engine(&mut parts.headers, &target, origin);
        let plan = adapter::plan(settings.adapter, dialect, &parts, &body);
        let body = match &plan {
            None => body,
            Some(plan) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                RequestBody::whole(plan.next(Progress::default()))
            }
        };
        Ok(Self { parts, body, plan, model, report, complaint })
    }
}

/// The request as this engine is to get it. Nothing if its target cannot be put behind the engine's base.
pub(crate) fn for_engine(
    parts: &Parts,
    url: &UpstreamUrl,
    body: RequestBody,
) -> Option<Request<RequestBody>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = url.target(path)?;
    *request.headers_mut() = parts.headers.clone();
    request.headers_mut().insert(header::HOST, url.authority().clone());
    if request.body().size_hint().exact().is_none() {
        // The length is what hyper has read it to be, and here it is not known.
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Some(request)
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
