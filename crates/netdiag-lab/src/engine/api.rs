//! The OpenAI-compatible surface, and the control interface of the demo engine.
//!
//! | path | |
//! | --- | --- |
//! | `GET /v1/models` | the one model, which is none |
//! | `POST /v1/chat/completions`, `/v1/completions` | answers, streamed (server-sent events) or whole |
//! | `GET /v1/netdiag/requests/{id}` | what a request is doing: `queued`, `running`, `held` |
//! | `POST /v1/netdiag/requests/{id}/pause`, `/resume`, `/abort` | controls it; 404 once it has ended |
//! | `GET /v1/netdiag/counters` | tokens and requests, and where the tokens are |
//!
//! A request's id is the number at the end of `id` in its answer. A paused request keeps its place in the answer and gives its seat
//! to whoever waits; resumed, it comes before newcomers. These calls are what a gateway needs of an engine in order to hold a
//! stream without losing it.
//!
//! Errors have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`.

mod asked;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use serde_json::{Value, json};

use super::ledger::Connection;
use super::scheduler::{Phase, RequestId};
use super::{Engine, Running};
use asked::{Asked, Refusal};

/// The name of what answers.
const MODEL: &str = "netdiag-demo";

/// The whole of what it knows.
const TEXT: &str = include_str!("corpus.txt");

/// Largest request, bytes: a long prompt.
const LARGEST: usize = 1 << 20;

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(complete))
        .route("/v1/netdiag/requests/{id}", get(look))
        .route("/v1/netdiag/requests/{id}/{action}", post(control))
        .route("/v1/netdiag/counters", get(counters))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, None, "there is no such path"))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(engine)
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Completion,
}

type Asker = Option<Extension<Arc<Connection>>>;

async fn chat(State(engine): State<Engine>, asker: Asker, body: Bytes) -> Response {
    answer(&engine, Kind::Chat, asker, &body)
}

async fn complete(State(engine): State<Engine>, asker: Asker, body: Bytes) -> Response {
    answer(&engine, Kind::Completion, asker, &body)
}

fn answer(engine: &Engine, kind: Kind, asker: Asker, body: &[u8]) -> Response {
    let asked = match Asked::parse(kind, body) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let connection = asker.map(|Extension(connection)| connection);
    match engine.submit(asked.tokens, connection.as_ref()) {
        Ok(running) if asked.stream => stream_out(running, kind, asked),
        Ok(running) => Body::from_stream(stream::once(whole(running, kind, asked)))
            .into_response_as("application/json"),
        Err(full) => {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, None, &full.to_string()).into_response()
        }
    }
}

/// The answer as it comes: an event per token, in OpenAI's order of events.
fn stream_out(running: Running, kind: Kind, asked: Asked) -> Response {
    let writer = Writer { kind, id: running.id, created: now(), asked };
    let events = stream::unfold((running, Next::Opening), move |(mut running, next)| async move {
        let (event, tokens, next) = match next {
            Next::Opening if kind == Kind::Chat => (writer.opening(), 0, Next::Token(0)),
            Next::Opening => return writer.token_of(running, 0).await,
            Next::Token(index) => return writer.token_of(running, index).await,
            Next::Finish(made) if asked.usage => (writer.finish(), 0, Next::Usage(made)),
            Next::Finish(_) => (writer.finish(), 0, Next::Done),
            Next::Usage(made) => (writer.usage(made), 0, Next::Done),
            Next::Done => ("[DONE]".to_owned(), 0, Next::End),
            Next::End => return None,
        };
        Some((writer.event(&mut running, &event, tokens), (running, next)))
    });
    Body::from_stream(events).into_response_as("text/event-stream")
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Opening,
    Token(u32),
    Finish(u32),
    Usage(u32),
    Done,
    End,
}

/// Writes the events of one answer.
#[derive(Clone, Copy)]
struct Writer {
    kind: Kind,
    id: RequestId,
    created: u64,
    asked: Asked,
}

type Event = Result<Bytes, Infallible>;

impl Writer {
    async fn token_of(self, mut running: Running, index: u32) -> Option<(Event, (Running, Next))> {
        // Without a sender the request was aborted: the answer ends in the middle, and so does the connection's.
        let token = running.tokens.recv().await?;
        let event = self.choice(Some(word(self.id, index)), None);
        let next = if token.last { Next::Finish(index + 1) } else { Next::Token(index + 1) };
        Some((self.event(&mut running, &event, 1), (running, next)))
    }

    fn event(self, running: &mut Running, data: &str, tokens: u64) -> Event {
        running.announce(tokens);
        Ok(Bytes::from(format!("data: {data}\n\n")))
    }

    fn opening(self) -> String {
        self.chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}]))
    }

    fn finish(self) -> String {
        self.choice(None, Some("length"))
    }

    fn choice(self, text: Option<&str>, finish: Option<&str>) -> String {
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": finish});
        match (self.kind, text) {
            (Kind::Chat, Some(text)) => choice["delta"] = json!({"content": text}),
            (Kind::Chat, None) => choice["delta"] = json!({}),
            (Kind::Completion, text) => choice["text"] = json!(text.unwrap_or("")),
        }
        self.chunk(json!([choice]))
    }

    fn usage(self, made: u32) -> String {
        let mut chunk = self.frame(json!([]), ".chunk");
        chunk["usage"] = self.count(made);
        chunk.to_string()
    }

    fn chunk(self, choices: Value) -> String {
        self.frame(choices, ".chunk").to_string()
    }

    fn frame(self, choices: Value, suffix: &str) -> Value {
        let (prefix, object) = match self.kind {
            Kind::Chat => ("chatcmpl", format!("chat.completion{suffix}")),
            Kind::Completion => ("cmpl", "text_completion".to_owned()),
        };
        let id = format!("{prefix}-{}", self.id.0);
        json!({"id": id, "object": object, "created": self.created, "model": MODEL, "choices": choices})
    }

    fn count(self, made: u32) -> Value {
        let prompt = self.asked.prompt;
        json!({"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + u64::from(made)})
    }
}

/// The answer when it is complete.
async fn whole(mut running: Running, kind: Kind, asked: Asked) -> Result<Bytes, std::io::Error> {
    let writer = Writer { kind, id: running.id, created: now(), asked };
    let (mut text, mut made) = (String::new(), 0);
    loop {
        let token = running.tokens.recv().await;
        // Bytes are under way as chunked already, so an abort can only cut the answer off.
        let token = token.ok_or_else(|| std::io::Error::other("the request was aborted"))?;
        text += word(running.id, made);
        made += 1;
        if token.last {
            break;
        }
    }
    let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": "length"});
    match kind {
        Kind::Chat => choice["message"] = json!({"role": "assistant", "content": text}),
        Kind::Completion => choice["text"] = json!(text),
    }
    let mut frame = writer.frame(json!([choice]), "");
    frame["usage"] = writer.count(made);
    running.announce(made.into());
    Ok(Bytes::from(format!("{frame}\n\n")))
}

/// A token of the text: a word and the space before it. Requests begin at different places.
fn word(id: RequestId, index: u32) -> &'static str {
    static WORDS: std::sync::OnceLock<Vec<&str>> = std::sync::OnceLock::new();
    let words = WORDS.get_or_init(|| TEXT.split_inclusive(char::is_whitespace).collect());
    // A prime, so that neighbours do not read alike.
    words[(id.0 as usize * 97 + index as usize) % words.len()]
}

async fn models() -> Json<Value> {
    let description =
        "a demo without a model: it paces and counts like an engine, and recites a built-in text";
    Json(json!({"object": "list", "data": [
        {"id": MODEL, "object": "model", "created": 0, "owned_by": "netdiag", "description": description}
    ]}))
}

async fn look(State(engine): State<Engine>, Path(id): Path<u64>) -> Response {
    match engine.phase(RequestId(id)) {
        Some(phase) => Json(json!({"id": id, "state": name(phase)})).into_response(),
        None => ended(id).into_response(),
    }
}

async fn control(
    State(engine): State<Engine>,
    Path((id, action)): Path<(u64, String)>,
) -> Response {
    let request = RequestId(id);
    let existed = match &*action {
        "pause" => engine.set_paused(request, true),
        "resume" => engine.set_paused(request, false),
        "abort" => engine.abort(request),
        _ => {
            return Refusal::new(
                StatusCode::NOT_FOUND,
                None,
                "a request can be paused, resumed or aborted: POST …/pause, /resume, /abort",
            )
            .into_response();
        }
    };
    if existed {
        Json(json!({"id": id, "done": action})).into_response()
    } else {
        ended(id).into_response()
    }
}

async fn counters(State(engine): State<Engine>) -> Json<Value> {
    let (totals, counts) = (engine.totals(), engine.counts());
    Json(json!({
        "generated_tokens": totals.generated_tokens, "requests": totals.requests, "finished": totals.finished,
        "aborted": totals.aborted, "acked_tokens": counts.acked, "in_flight_tokens": counts.in_flight,
        "wasted_tokens": counts.wasted,
    }))
}

fn ended(id: u64) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        Some("id"),
        &format!("there is no request {id}, or it has ended"),
    )
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Running => "running",
        Phase::Held => "held",
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A body as a response of a type, from a server that does not pretend to be another.
trait IntoResponseAs {
    fn into_response_as(self, content_type: &'static str) -> Response;
}

impl IntoResponseAs for Body {
    fn into_response_as(self, content_type: &'static str) -> Response {
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::SERVER, "netdiag-demo-engine"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, self).into_response()
    }
}

#[cfg(test)]
mod tests;
