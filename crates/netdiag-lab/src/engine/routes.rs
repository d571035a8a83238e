//! The routes of the engine: OpenAI's, and those that control single requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::asked::{Asked, Kind};
use super::connection::Connection;
use super::error::ApiError;
use super::exposition::metrics;
use super::stream::{Events, Ticket};
use super::wire::{Usage, Wire};
use super::{ControlError, Engine, RequestView};

/// Largest request, bytes: a prompt as long as the longest contexts.
const LARGEST_BODY: usize = 4 << 20;

/// What it is, in every response.
const SERVER: HeaderValue =
    HeaderValue::from_static(concat!("netdiag-demo-engine/", env!("CARGO_PKG_VERSION")));

/// The same for people.
pub(crate) const DESCRIPTION: &str =
    "demo engine of NetDiag-LLM: a fixed text at the pace of a real engine, no model";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Engine {
    /// The engine's routes. Tokens come while [`Engine::run`] is polled; [`Engine::serve`] does both.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(text))
            .route("/v1/models", get(models))
            .route("/v1/models/{name}", get(model))
            .route("/v1/netdiag/engine", get(engine))
            .route("/v1/netdiag/requests", get(requests))
            .route("/v1/netdiag/requests/{id}", get(request))
            .route("/v1/netdiag/requests/{id}/pause", post(pause))
            .route("/v1/netdiag/requests/{id}/resume", post(resume))
            .route("/v1/netdiag/requests/{id}/abort", post(abort))
            .route("/metrics", get(metrics))
            .route("/health", get(|| async { "ok\n" }))
            .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "there is no such path") })
            .method_not_allowed_fallback(|| async {
                ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
            })
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .layer(middleware::map_response(|mut response: Response| async {
                response.headers_mut().insert(header::SERVER, SERVER);
                response
            }))
            .with_state(self.clone())
    }
}

type Answered = Result<Response, ApiError>;

async fn chat(
    State(engine): State<Engine>,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    answer(&engine, Kind::Chat, connection, body).await
}

async fn text(
    State(engine): State<Engine>,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    answer(&engine, Kind::Text, connection, body).await
}

async fn answer(
    engine: &Engine,
    kind: Kind,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let body =
        body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let connection = connection.map(|Extension(connection)| connection);
    let (asked, ticket) = engine.submit(kind, &body, connection)?;
    let id = ticket.account().name.clone();
    let wire = Wire {
        kind,
        id: id.clone(),
        created: unix_seconds(),
        model: engine.shared.settings.name.clone(),
        include_usage: asked.include_usage,
    };
    let mut response = if asked.stream {
        streamed(ticket, wire, &asked)
    } else {
        whole(ticket, &wire, &asked).await
    };
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

fn streamed(ticket: Ticket, wire: Wire, asked: &Asked) -> Response {
    let mut events = Events::new(ticket, wire, asked.answer);
    let body = stream::poll_fn(move |context| events.poll(context)).map(Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

async fn whole(ticket: Ticket, wire: &Wire, asked: &Asked) -> Response {
    let (tokens, finish) = ticket.all().await;
    let completion = u32::try_from(tokens).unwrap_or(u32::MAX);
    let usage = Usage { prompt: asked.prompt_tokens, completion };
    let body = wire.whole(&asked.answer.text(completion), finish, usage);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn models(State(engine): State<Engine>) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(&engine)]}))
}

async fn model(State(engine): State<Engine>, Path(name): Path<String>) -> Answered {
    let there = &engine.shared.settings.name;
    if name != *there {
        return Err(ApiError::no_model(&name, there));
    }
    Ok(Json(describe(&engine)).into_response())
}

fn describe(engine: &Engine) -> Value {
    let settings = &engine.shared.settings;
    json!({
        "id": settings.name,
        "object": "model",
        "created": 0,
        "owned_by": "netdiag",
        "description": DESCRIPTION,
        "max_model_len": settings.model.kv_tokens,
    })
}

async fn engine(State(engine): State<Engine>) -> Json<Value> {
    let occupancy = engine.occupancy();
    Json(json!({
        "engine": DESCRIPTION,
        "tokens": engine.tokens(),
        "aborted": engine.aborted(),
        "admitted": occupancy.admitted,
        "queued": occupancy.queued,
        "kv_tokens": occupancy.kv_tokens,
        "seats": engine.shared.settings.model.seats,
    }))
}

async fn requests(State(engine): State<Engine>) -> Json<Value> {
    Json(json!({"requests": engine.requests()}))
}

type Controlled = Result<Json<RequestView>, ApiError>;

async fn request(State(engine): State<Engine>, Path(id): Path<String>) -> Controlled {
    controlled(engine.request(&id))
}

async fn pause(State(engine): State<Engine>, Path(id): Path<String>) -> Controlled {
    controlled(engine.pause(&id))
}

async fn resume(State(engine): State<Engine>, Path(id): Path<String>) -> Controlled {
    controlled(engine.resume(&id))
}

async fn abort(State(engine): State<Engine>, Path(id): Path<String>) -> Controlled {
    controlled(engine.abort(&id))
}

fn controlled(result: Result<RequestView, ControlError>) -> Controlled {
    result.map(Json).map_err(|error| {
        let status = match error {
            ControlError::Unknown(_) => StatusCode::NOT_FOUND,
            ControlError::Finished(_) => StatusCode::CONFLICT,
        };
        ApiError::new(status, error.to_string())
    })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
