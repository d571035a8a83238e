//! What goes wrong, and how it is told: a status with an error body in the API's own words, or, once an event stream has
//! begun, a last event.
//!
//! Invariant: nothing of an engine's address, of other requests or of this program's insides is in what a client is told.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use netdiag_http::TooOften;
use serde_json::{Value, json};

use crate::body::Outgoing;
use crate::dialect::Dialect;
use crate::request_body::BodyFault;

/// Why a request is not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The request is not what HTTP allows, or means different things to different readers of it.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request's head.
    #[error("the request's head is longer than the limit")]
    HeadTooLong,
    /// Without the gateway's token.
    #[error(
        "the gateway's token is missing or wrong: send it as `Authorization: Bearer TOKEN` or as `x-api-key`"
    )]
    Unauthorized,
    /// More requests, or more wrong tokens, than an address may send.
    #[error(transparent)]
    TooOften(#[from] TooOften),
    /// A stream's name that is nobody's.
    #[error("there is no stream of this name")]
    NoSuchStream,
    /// A stream can only be ended, or taken. With the methods that there are.
    #[error("a stream has other methods: {0}")]
    WrongMethod(&'static str),
    /// A stream that cannot be resumed where its client is.
    #[error("the events behind this Last-Event-ID are not kept any more: ask anew")]
    TooFarBack,
    /// Somebody else has the stream now.
    #[error("the stream goes on over another connection")]
    TakenOver,
    /// What is asked for is not done here.
    #[error("{0}")]
    NotImplemented(&'static str),
    /// The request's body.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// All places are taken.
    #[error("too many requests are being answered; try again in a moment")]
    Busy,
    /// The gateway is about to end.
    #[error("the gateway is shutting down; try again in a moment")]
    Draining,
    /// No engine can be connected to.
    #[error("the engine cannot be reached")]
    Unreachable,
    /// No connection within the time for that.
    #[error("the engine did not accept a connection in time")]
    ConnectTimeout,
    /// The engine closed the connection without an answer.
    #[error("the engine closed the connection before it answered")]
    NoAnswer,
    /// What the engine sent is no HTTP.
    #[error("the engine's answer is malformed")]
    Garbage,
    /// The engine was silent for too long, before its answer or in it.
    #[error("the engine did not answer in time")]
    Silent,
    /// The engine broke off in the middle of its answer.
    #[error("the engine broke off its answer")]
    BrokenOff,
    /// The answer has taken longer than any may.
    #[error("the answer took longer than the limit")]
    TooLong,
    /// The client has acknowledged nothing for too long.
    #[error("the client took nothing for longer than the limit")]
    ClientSilent,
    /// The engine was told to pause, and cannot be told to go on.
    #[error("the engine cannot be told to go on")]
    NotResumed,
    /// The engine does not go on with a text of its own.
    #[error("the engine does not continue its answer")]
    NotContinued,
    /// Somebody asked for the stream to end.
    #[error("the stream was ended on request")]
    Stopped,
}

impl Failure {
    /// The status, for an answer that has not begun.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Body(BodyFault::Broken) => StatusCode::BAD_REQUEST,
            Self::HeadTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSuchStream => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooFarBack => StatusCode::GONE,
            Self::TakenOver => StatusCode::CONFLICT,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Body(BodyFault::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyFault::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy | Self::Draining | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable
            | Self::NoAnswer
            | Self::Garbage
            | Self::BrokenOff
            | Self::NotResumed
            | Self::NotContinued => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::Silent | Self::TooLong | Self::ClientSilent => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// A word for programs, and for the metrics' label.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::HeadTooLong => "head_too_long",
            Self::Unauthorized => "unauthorized",
            Self::TooOften(_) => "too_many_requests",
            Self::NoSuchStream => "no_such_stream",
            Self::WrongMethod(_) => "wrong_method",
            Self::TooFarBack => "event_not_kept",
            Self::TakenOver => "taken_over",
            Self::NotImplemented(_) => "not_implemented",
            Self::Body(BodyFault::TooLong) => "body_too_long",
            Self::Body(BodyFault::TooSlow) => "body_too_slow",
            Self::Body(BodyFault::Broken) => "body_broken",
            Self::Busy => "gateway_busy",
            Self::Draining => "gateway_draining",
            Self::Unreachable => "engine_unreachable",
            Self::ConnectTimeout => "engine_connect_timeout",
            Self::NoAnswer => "engine_no_answer",
            Self::Garbage => "engine_malformed_answer",
            Self::Silent => "engine_timeout",
            Self::BrokenOff => "engine_broke_off",
            Self::TooLong => "total_time_exceeded",
            Self::ClientSilent => "client_silent",
            Self::NotResumed => "engine_not_resumed",
            Self::NotContinued => "engine_not_continued",
            Self::Stopped => "stopped",
        }
    }

    /// The whole answer.
    pub(crate) fn response(&self, dialect: Dialect) -> Response<Outgoing> {
        let status = self.status();
        let (kind, body) = match dialect {
            Dialect::Other => ("application/problem+json", self.problem()),
            Dialect::Messages => ("application/json", self.anthropic()),
            _ => ("application/json", self.openai()),
        };
        let mut response = Response::new(Outgoing::full(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::WrongMethod(others) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(others));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::TooOften(wait) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.seconds()));
        }
        // What is left of the request is not read: it may be endless, or not what it seems to be.
        if matches!(
            self,
            Self::Malformed(_)
                | Self::HeadTooLong
                | Self::TooOften(_)
                | Self::NotImplemented(_)
                | Self::Body(_)
                | Self::Draining
        ) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The last event of a stream that has begun.
    pub(crate) fn event(&self, dialect: Dialect) -> String {
        match dialect {
            // What the SDKs of OpenAI look for: an `error` in a chunk.
            Dialect::Chat | Dialect::Completions | Dialect::OpenAi | Dialect::Other => {
                format!("data: {}\n\n", self.openai())
            }
            Dialect::Messages => format!("event: error\ndata: {}\n\n", self.anthropic()),
            Dialect::Responses => {
                let body = json!({
                    "type": "error",
                    "code": self.code(),
                    "message": self.to_string(),
                    "param": null,
                });
                format!("event: error\ndata: {body}\n\n")
            }
        }
    }

    /// RFC 9457.
    fn problem(&self) -> Value {
        json!({
            "type": "about:blank",
            "title": self.status().canonical_reason().unwrap_or_default(),
            "status": self.status().as_u16(),
            "detail": self.to_string(),
            "code": self.code(),
        })
    }

    fn openai(&self) -> Value {
        let kind =
            if self.status().is_client_error() { "invalid_request_error" } else { "server_error" };
        json!({"error": {
            "message": self.to_string(),
            "type": kind,
            "param": null,
            "code": self.code(),
        }})
    }

    fn anthropic(&self) -> Value {
        let kind = match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": self.to_string()}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_is_told_in_its_own_words() {
        let failure = Failure::BrokenOff;
        let check = |dialect, expected: &str| {
            let event = failure.event(dialect);
            assert!(event.starts_with(expected) && event.ends_with("}\n\n"), "{event}");
            assert_eq!(event.matches("\n\n").count(), 1, "{event}");
        };
        check(Dialect::Chat, "data: {\"error\":{");
        check(Dialect::Messages, "event: error\ndata: {\"error\":{");
        check(Dialect::Responses, "event: error\ndata: {\"code\":\"engine_broke_off\"");
        let check = |dialect, expected: &str| {
            let response = Failure::Silent.response(dialect);
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected);
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        };
        check(Dialect::Chat, "application/json");
        check(Dialect::Other, "application/problem+json");
    }
}
