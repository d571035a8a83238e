//! What a request asks for: parsed, or refused by the name of the parameter.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Kind, MODEL};

/// Tokens of an answer unless the request says otherwise, and at most.
const TOKENS: u32 = 256;
const MOST_TOKENS: u32 = 8192;

/// What a request asks for, as far as this engine cares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) tokens: u32,
    pub(super) stream: bool,
    pub(super) usage: bool,
    /// Words of the prompt, which stand in for its tokens.
    pub(super) prompt: u64,
}

impl Asked {
    pub(super) fn parse(kind: Kind, body: &[u8]) -> Result<Self, Refusal> {
        let bad = |param: &'static str, message: &str| {
            Refusal::new(StatusCode::BAD_REQUEST, Some(param), message)
        };
        let body: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, None, &format!("the body is not JSON: {error}"))
        })?;
        let Value::Object(fields) = &body else {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                None,
                "the body must be a JSON object",
            ));
        };
        let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
        match field("model") {
            Some(Value::String(name)) if name == MODEL => {}
            Some(Value::String(name)) => {
                let message =
                    format!("there is no model `{name}`; this is a demo and has `{MODEL}` only");
                return Err(Refusal::new(StatusCode::NOT_FOUND, Some("model"), &message));
            }
            _ => return Err(bad("model", &format!("must be the name of a model: `{MODEL}`"))),
        }
        let prompt = match kind {
            Kind::Chat => match field("messages") {
                Some(Value::Array(messages))
                    if !messages.is_empty() && messages.iter().all(is_message) =>
                {
                    messages.iter().map(words).sum()
                }
                _ => {
                    return Err(bad(
                        "messages",
                        "must be a list of messages with `role` and `content`, at least one",
                    ));
                }
            },
            Kind::Completion => match field("prompt") {
                Some(prompt @ (Value::String(_) | Value::Array(_))) => words(prompt),
                _ => return Err(bad("prompt", "must be a text")),
            },
        };
        if field("n").is_some_and(|n| n.as_u64() != Some(1)) {
            return Err(bad("n", "must be 1: this engine gives one answer"));
        }
        let flag = |value: Option<&Value>, name: &'static str| match value {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(bad(name, "must be true or false")),
        };
        let tokens = match field("max_completion_tokens")
            .map(|value| ("max_completion_tokens", value))
            .or(field("max_tokens").map(|value| ("max_tokens", value)))
        {
            None => TOKENS,
            Some((name, value)) => value
                .as_u64()
                .and_then(|tokens| u32::try_from(tokens).ok())
                .filter(|tokens| (1..=MOST_TOKENS).contains(tokens))
                .ok_or_else(|| {
                    bad(
                        name,
                        &format!("must be a whole number from 1 to {MOST_TOKENS}, not {value}"),
                    )
                })?,
        };
        let stream = flag(field("stream"), "stream")?;
        let usage = field("stream_options").and_then(|options| options.get("include_usage"));
        Ok(Self { tokens, stream, usage: flag(usage, "stream_options.include_usage")?, prompt })
    }
}

fn is_message(message: &Value) -> bool {
    message.get("role").is_some_and(Value::is_string)
        && message.get("content").is_some_and(|content| content.is_string() || content.is_array())
}

/// Words anywhere in a prompt.
fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(fields) => fields.get("content").or(fields.get("text")).map_or(0, words),
        _ => 0,
    }
}

/// An error in OpenAI's shape.
pub(super) struct Refusal {
    status: StatusCode,
    param: Option<&'static str>,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, param: Option<&'static str>, message: &str) -> Self {
        Self { status, param, message: message.to_owned() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            _ => "invalid_request_error",
        };
        let message = match self.param {
            Some(param) => format!("{param}: {}", self.message),
            None => self.message,
        };
        let error = json!({"message": message, "type": kind, "param": self.param, "code": null});
        (self.status, Json(json!({"error": error}))).into_response()
    }
}
