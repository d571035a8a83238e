//! What can be done with an engine besides reading it, so that a client which takes nothing costs it nothing.
//!
//! | adapter | a silent client's engine | where it works |
//! | --- | --- | --- |
//! | [`Adapter::Generic`] | is not read; goes on until the buffers between are full | everywhere |
//! | [`Adapter::Segment`] | is not asked for the next segment ([`segmented`]) | engines that continue a text |
//! | [`Adapter::Netdiag`] | is told to pause, and to go on ([`told`]) | engines with `docs/engines.md`'s contract |
//!
//! Invariant: an adapter changes when an engine works and never what a client is told.

pub(crate) mod segmented;
pub(crate) mod told;

use std::num::NonZeroU32;
use std::sync::Arc;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName};
use hyper::http::request::Parts;

use crate::Shared;
use crate::dialect::Dialect;
use crate::passing::Course;
use crate::request_body::RequestBody;
use crate::segment::plan::Plan;
use crate::source::Source;
use segmented::Segmented;
use told::Told;

/// Headers that belong to one body, or to one request: a continuation is another.
const OF_ONE: [HeaderName; 6] = [
    hyper::header::CONTENT_ENCODING,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("idempotency-key"),
];

/// How engines are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adapter {
    /// By not reading them.
    #[default]
    Generic,
    /// By asking for so many tokens at a time, of requests that can be continued.
    Segment(NonZeroU32),
    /// By the calls of `docs/engines.md`.
    Netdiag,
}

/// How this request is asked for in segments, if it is.
pub(crate) fn plan(
    adapter: Adapter,
    dialect: Dialect,
    parts: &Parts,
    body: &RequestBody,
) -> Option<Plan> {
    let Adapter::Segment(tokens) = adapter else { return None };
    let is_fit = parts.method == Method::POST
        && matches!(dialect, Dialect::Chat | Dialect::Completions)
        && OF_ONE.iter().all(|name| !parts.headers.contains_key(name));
    let body = body.bytes().filter(|_| is_fit)?;
    Plan::try_new(dialect, &body, tokens)
        .inspect_err(|why| tracing::debug!(%why, "asked for as a whole"))
        .ok()
}

/// The source that holds this answer's engine. `parts` are the request's, `answered` the answer's headers.
pub(crate) fn source(
    gateway: &Arc<Shared>,
    course: Course,
    parts: Parts,
    plan: Option<Plan>,
    answered: &HeaderMap,
) -> Box<dyn Source> {
    match (gateway.settings.adapter, plan) {
        (Adapter::Segment(_), Some(plan)) => {
            Box::new(Segmented::new(Arc::clone(gateway), parts, plan, course))
        }
        (Adapter::Netdiag, _) => {
            match told::Control::of(gateway, &course, &parts.headers, answered) {
                Some(control) => Box::new(Told::new(control, course)),
                None => Box::new(course),
            }
        }
        _ => Box::new(course),
    }
}
