//! The routes, and what every request passes on its way to them: limits, the `Host` check, authentication, counting.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use netdiag_http::{Exposure, Gate, GivenUp, Problem, Pseudonyms};
use netdiag_metrics::{ExportStatus, Scrape, respond};
use netdiag_pacer::{Hint, State as HintState, TpsRange, WhenStale};
use netdiag_telemetry::Scope;
use tokio::sync::{Semaphore, watch};

use crate::board::{Board, StreamView};
use crate::bus::BusStatus;
use crate::events;
use crate::metrics::Metrics;
use crate::query::{EventsQuery, HintQuery, PageQuery, Target};

/// The paths, for the 404 and for the metrics' label.
pub(crate) const PATHS: [&str; 8] = [
    "/",
    "/v1/hint",
    "/v1/streams",
    "/v1/events",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
];

/// Largest request body, bytes. No route takes one; a client that sends more is not ours.
const LARGEST_BODY: u64 = 1024;

/// Room for a hint as JSON: most have some 400 bytes.
const HINT_BYTES: usize = 512;

/// How the server answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rates between which hints move.
    pub range: TpsRange,
    /// Age at which telemetry is too old to act on.
    pub stale_after: Duration,
    /// What to recommend then.
    pub when_stale: WhenStale,
    /// Who may ask.
    pub exposure: Exposure,
    /// What becomes of the bus that hints are pushed over, for metrics; `None` where there is none.
    pub bus: Option<Arc<BusStatus>>,
    /// Whom the server turns away, for metrics.
    pub given_up: GivenUp,
    /// What becomes of metrics that are pushed elsewhere, for metrics; `None` where they are not.
    pub exports: Option<ExportStatus>,
    /// The pseudonyms that boards have for addresses, by which who asks for an address is answered; `None` where boards have addresses.
    pub pseudonyms: Option<Pseudonyms>,
}

/// What every handler has. It is cloned twice for each request, so it is one reference.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) boards: watch::Receiver<Arc<Board>>,
    pub(crate) options: Options,
    pub(crate) event_permits: Arc<Semaphore>,
    gate: Gate,
    metrics: Metrics,
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The hint server's routes over the newest of `boards`.
pub fn router(boards: watch::Receiver<Arc<Board>>, options: Options) -> Router {
    router_and_metrics(boards, options).0
}

/// The same, and what `/metrics` tells, for who wants it otherwise.
pub fn router_and_metrics(
    boards: watch::Receiver<Arc<Board>>,
    options: Options,
) -> (Router, Scrape) {
    let gate = Gate {
        exposure: options.exposure.clone(),
        // Probes of an orchestrator carry no secrets.
        open: |path| matches!(path, "/livez" | "/readyz"),
        largest_body: LARGEST_BODY,
        sessions: false,
    };
    let shared = Shared(Arc::new(Inner {
        boards,
        gate,
        event_permits: events::permits(),
        metrics: Metrics::new(options.bus.clone(), &options.given_up, options.exports.as_ref()),
        options,
    }));
    let told = shared.clone();
    let scrape = Scrape::new(move || told.metrics());
    let router = Router::new()
        .route("/", get(hint))
        .route("/v1/hint", get(hint))
        .route("/v1/streams", get(streams))
        .route("/v1/events", get(push))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared);
    (router, scrape)
}

impl Shared {
    /// The hint for `target` as it is at this moment.
    pub(crate) fn hint(&self, target: Target) -> Hint {
        let board = Arc::clone(&self.boards.borrow());
        self.present(&board, self.find(&board, target))
    }

    /// Who asks for an address is answered by that: it is never told a pseudonym for one that it knows.
    fn find(&self, board: &Board, asked: Target) -> Hint {
        let known = match (&self.options.pseudonyms, asked) {
            _ if board.host_only => Target::Host,
            (Some(pseudonyms), Target::Peer(peer)) => Target::Peer(pseudonyms.address(peer)),
            (Some(pseudonyms), Target::Stream(peer)) => Target::Stream(pseudonyms.socket(peer)),
            _ => asked,
        };
        let hint = match known {
            Target::Host => return board.host.clone(),
            Target::Peer(peer) => board.peers.get(&peer),
            Target::Stream(peer) => board.stream(peer).map(|stream| &stream.hint),
        };
        let scope = asked.to_string();
        match hint {
            Some(hint) => Hint { scope, ..hint.clone() },
            None => {
                let reason = format!("no flow to {} is known", asked.address());
                Hint { scope, ..Hint::unknown(self.options.range, &Scope::Host, reason) }
            }
        }
    }

    /// All metrics as they are at this moment.
    fn metrics(&self) -> String {
        let board = Arc::clone(&self.boards.borrow());
        let hint = self.present(&board, board.host.clone());
        self.metrics.encode(&board, &hint, board.age())
    }

    /// A stored hint with its age, or what is said of one that is too old.
    fn present(&self, board: &Board, hint: Hint) -> Hint {
        board.present(hint, self.options.stale_after, self.options.when_stale)
    }
}

async fn hint(
    State(shared): State<Shared>,
    query: Result<Query<HintQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let target = valid(query)?.target()?;
    // What loops ask for all day is written into place, once.
    let mut body = Vec::with_capacity(HINT_BYTES);
    serde_json::to_writer(&mut body, &shared.hint(target)).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the hint is no JSON: {error}"))
    })?;
    Ok(uncached(([(header::CONTENT_TYPE, "application/json")], body)))
}

async fn streams(
    State(shared): State<Shared>,
    query: Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let query = valid(query)?;
    let board = Arc::clone(&shared.boards.borrow());
    let page: Vec<_> = query
        .page(board.streams())
        .iter()
        .map(|stream| (stream, shared.present(&board, stream.hint.clone())))
        .collect();
    let views: Vec<_> = page.iter().map(|(stream, hint)| StreamView::new(stream, hint)).collect();
    // Telemetry of the host alone knows no flows, which is another thing than that there are none.
    let listed = !board.host_only;
    let body =
        serde_json::json!({ "total": board.streams().len(), "listed": listed, "streams": views });
    Ok(uncached(Json(body)))
}

async fn push(
    State(shared): State<Shared>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let query = valid(query)?;
    Ok(events::respond(&shared, query.target()?, query.rows))
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Shared>) -> Response {
    let hint = shared.hint(Target::Host);
    if hint.state == HintState::Stale {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, hint.reason).into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    respond(&headers, shared.metrics())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn not_found() -> Problem {
    let message = format!("no such path; known paths: {}", PATHS.join(" "));
    Problem::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
}

/// A hint is worthless a moment later; nobody may keep it.
fn uncached(body: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn valid<T>(
    query: Result<Query<T>, axum::extract::rejection::QueryRejection>,
) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| {
        // What it says after its own prefix: the parameter and what is wrong with it.
        let text = error.body_text();
        let cause = text.split_once(": ").map_or(text.as_str(), |(_, cause)| cause);
        Problem::new(StatusCode::BAD_REQUEST, format!("query: {cause}"))
    })
}

/// What every request passes.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let asked = request.uri().path();
    let path = PATHS.iter().find(|path| **path == asked).copied().unwrap_or("other");
    let response = match shared.gate.refusal(&request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    shared.metrics.count(path, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests;
