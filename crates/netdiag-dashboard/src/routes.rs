//! The routes, and what every answer says to the browser about what the page may do.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use netdiag_http::{Exposure, Gate, GivenUp, Problem};
use netdiag_metrics::{ExportStatus, Scrape, respond};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::assets;
use crate::document::Document;
use crate::events::{self, MOST_VIEWERS};
use crate::feed::Feed;
use crate::metrics::Metrics;

/// Largest request body, bytes: a login with the longest token, every character of it escaped.
const LARGEST_BODY: u64 = 4096;

/// How long a browser keeps a session, seconds: a working week. It ends before that if the token changes.
const SESSION_SECONDS: u64 = 7 * 24 * 3600;

/// Nothing but our own files, and nobody may put us into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The report brings its styles with it, runs nothing, and is shown in a frame of ours.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'self'; sandbox";

/// What the dashboard serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may look.
    pub exposure: Exposure,
    /// The host's flows (see [`crate::flows_json`]), if they can be listed.
    pub streams: Option<Document>,
    /// The streams that a gateway passes on, as its `/v1/netdiag/streams` says it.
    pub gateway: Option<Document>,
    /// The fleet that shares engines, as `netdiag fleet` says it at `/v1/fleet`.
    pub fleet: Option<Document>,
    /// What this machine supports, as `netdiag doctor --json` says it.
    pub machine: Option<Document>,
    /// Connections that the server gives up because nobody reads them.
    pub given_up: GivenUp,
    /// What becomes of metrics that are pushed elsewhere, for metrics; `None` where they are not.
    pub exports: Option<ExportStatus>,
}

#[derive(Clone)]
struct Shared {
    feed: Feed,
    options: Arc<Options>,
    gate: Arc<Gate>,
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

/// The dashboard's routes over `feed`.
pub fn router(feed: Feed, options: Options) -> Router {
    router_and_metrics(feed, options).0
}

/// The same, and what `/metrics` tells, for who wants it otherwise.
pub fn router_and_metrics(feed: Feed, options: Options) -> (Router, Scrape) {
    let gate = Gate {
        exposure: options.exposure.clone(),
        // The page itself asks for the token; its files are no secret.
        open: |path| matches!(path, "/" | "/login" | "/livez") || path.starts_with("/assets/"),
        largest_body: LARGEST_BODY,
        sessions: true,
    };
    let shared = Shared {
        feed,
        metrics: Metrics::new(&options.given_up, options.exports.as_ref()),
        options: Arc::new(options),
        gate: Arc::new(gate),
        permits: Arc::new(Semaphore::new(MOST_VIEWERS)),
    };
    let metrics_told = shared.metrics.clone();
    let scrape = Scrape::new(move || metrics_told.encode());
    let router = Router::new()
        .route("/", get(index))
        .route("/login", get(async || home()).post(login))
        .route("/assets/{name}", get(asset))
        .route("/api/events", get(push))
        .route("/api/streams", get(streams))
        .route("/api/gateway", get(gateway))
        .route("/api/fleet", get(fleet))
        .route("/api/machine", get(machine))
        .route("/api/session", get(async || StatusCode::NO_CONTENT))
        .route("/api/experiment/report", get(report))
        .route("/livez", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared);
    (router, scrape)
}

async fn index(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if shared.gate.admits(&headers) { assets::index(&headers) } else { assets::login(false) }
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login(State(shared): State<Shared>, form: Result<Form<Login>, FormRejection>) -> Response {
    let Some(token) = shared.gate.exposure.token() else {
        return home();
    };
    // Copied from a file, it may have a line's end.
    if !form.is_ok_and(|Form(Login { token: given })| token.is(given.trim())) {
        return assets::login(true);
    }
    let (name, session) = token.session();
    // Lax: who follows a link from elsewhere is logged in, and no GET changes anything.
    let cookie =
        format!("{name}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age={SESSION_SECONDS}");
    ([(header::SET_COOKIE, cookie)], home()).into_response()
}

/// To the page, also behind a proxy that puts us under a path of its own.
fn home() -> Response {
    Redirect::to("./").into_response()
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    assets::file(&name, &headers).unwrap_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no such file; reload the page").into_response()
    })
}

async fn push(State(shared): State<Shared>) -> Response {
    events::respond(&shared.feed, &shared.metrics, &shared.permits)
}

async fn streams(State(shared): State<Shared>) -> Response {
    let without = "flows cannot be listed here: the telemetry speaks for the host as a whole";
    document(shared.options.streams.as_ref(), without).await
}

async fn gateway(State(shared): State<Shared>) -> Response {
    let without = "no gateway was named; `netdiag dashboard --gateway URL` shows its streams";
    document(shared.options.gateway.as_ref(), without).await
}

async fn fleet(State(shared): State<Shared>) -> Response {
    let without = "no fleet was named; `netdiag dashboard --fleet URL` shows one";
    document(shared.options.fleet.as_ref(), without).await
}

async fn machine(State(shared): State<Shared>) -> Response {
    let without = "the machine that is measured is another one; run `netdiag doctor` there";
    document(shared.options.machine.as_ref(), without).await
}

async fn report(State(shared): State<Shared>) -> Response {
    let Some(report) = shared.feed.report() else {
        return Problem::new(StatusCode::NOT_FOUND, "there is no report").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, REPORT_POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, report).into_response()
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    respond(&headers, shared.metrics.encode())
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path; the dashboard is at /")
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked for in this way")
}

/// A document's newest answer, or why there is none.
async fn document(document: Option<&Document>, without: &str) -> Response {
    let Some(document) = document else {
        return Problem::new(StatusCode::NOT_FOUND, without).into_response();
    };
    match document.get().await {
        Ok(body) => {
            let headers =
                [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

/// What every request passes, and what every answer carries.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match shared.gate.refusal(&request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let says = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in says {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
