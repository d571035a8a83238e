//! What those who run a gateway ask it, on a listener of its own: every path of the gateway itself is an engine's.
//!
//! | request | answers |
//! | --- | --- |
//! | `GET /livez` | `ok` while the process serves |
//! | `GET /readyz` | `ok` while an engine is well and the gateway does not end, 503 otherwise |
//! | `GET /metrics` | metrics for Prometheus |
//! | `GET /v1/netdiag/streams` | the event streams that are being passed on or wait for their clients, as JSON |
//! | `DELETE /v1/netdiag/streams/{id}` | ends one, by its name or by what the list shows of it; its client gets a last event |

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use netdiag_http::{Exposure, Gate, Problem};
use netdiag_metrics::respond;
use serde_json::json;

use crate::{Gateway, Shared};

/// Largest request body, bytes: no route takes one.
const LARGEST_BODY: u64 = 1024;

impl Gateway {
    /// The routes for those who run it; serve them with [`netdiag_http::serve`].
    pub fn admin(&self, exposure: Exposure) -> Router {
        let gate = Gate {
            exposure,
            // Probes of an orchestrator carry no secrets.
            open: |path| matches!(path, "/livez" | "/readyz"),
            largest_body: LARGEST_BODY,
            sessions: false,
        };
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/v1/netdiag/streams", get(streams))
            .route("/v1/netdiag/streams/{id}", delete(stop))
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such path") })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
            })
            .layer(middleware::from_fn_with_state(Arc::new(gate), guard))
            .with_state(Arc::clone(&self.0))
    }
}

async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.refusal(&request) {
        Some(response) => response,
        None => next.run(request).await,
    }
}

async fn ready(State(gateway): State<Arc<Shared>>) -> Response {
    let unavailable = |why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if gateway.is_draining() {
        unavailable("the gateway is shutting down")
    } else if !gateway.has_engine() {
        unavailable("no engine is well")
    } else {
        "ok\n".into_response()
    }
}

async fn metrics(State(gateway): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    respond(&headers, gateway.scrape())
}

async fn streams(State(gateway): State<Arc<Shared>>) -> Response {
    let streams = gateway.views();
    let body = json!({"total": streams.len(), "streams": streams});
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn stop(State(gateway): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    if gateway.live.stop_by_label(&gateway, &id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Problem::new(StatusCode::NOT_FOUND, "there is no stream of this name").into_response()
    }
}
