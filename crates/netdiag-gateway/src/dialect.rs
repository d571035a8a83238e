//! Which API a request speaks, by its path. It decides how event streams are read and how errors look.
//!
//! By the end of the path, because engines and gateways mount these APIs below paths of their own.

use hyper::header::{HeaderMap, HeaderValue};

/// An API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's `/v1/chat/completions`.
    Chat,
    /// OpenAI's `/v1/completions`.
    Completions,
    /// OpenAI's `/v1/responses`.
    Responses,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// Another path below `/v1/`.
    OpenAi,
    /// Anything else.
    Other,
}

impl Dialect {
    /// The API of a path.
    pub fn of_path(path: &str) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let is = |end: &str| path.ends_with(end);
        if is("/v1/chat/completions") {
            Self::Chat
        } else if is("/v1/completions") {
            Self::Completions
        } else if is("/v1/responses") {
            Self::Responses
        } else if is("/v1/messages") {
            Self::Messages
        } else if path.contains("/v1/") {
            Self::OpenAi
        } else {
            Self::Other
        }
    }

    /// Whether its event streams are known.
    pub fn has_events(self) -> bool {
        !matches!(self, Self::OpenAi | Self::Other)
    }

    /// Whether asking twice does no more than asking once: an answer that nobody got has no effect. (A response of the
    /// Responses API is stored.)
    pub(crate) fn can_repeat(self) -> bool {
        matches!(self, Self::Chat | Self::Completions | Self::Messages)
    }

    /// A short name, for labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::OpenAi => "v1",
            Self::Other => "other",
        }
    }

    /// What OpenTelemetry's `gen_ai.operation.name` calls it.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Completions => "text_completion",
            Self::Chat | Self::Messages | Self::Responses => "chat",
            Self::OpenAi | Self::Other => "other",
        }
    }
}

/// Whether a response is an event stream that can be read: not a compressed one.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(hyper::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = kind.and_then(|kind| kind.split(|&byte| byte == b';').next());
    let events = essence
        .is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
    let coding = headers.get(hyper::header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    events && coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_the_api() {
        let check = |path: &str, expected| assert_eq!(Dialect::of_path(path), expected, "{path}");
        check("/v1/chat/completions", Dialect::Chat);
        check("/v1/chat/completions/", Dialect::Chat);
        check("/openai/v1/completions", Dialect::Completions);
        check("/v1/messages", Dialect::Messages);
        check("/v1/messages/count_tokens", Dialect::OpenAi);
        check("/v1/responses", Dialect::Responses);
        check("/v1/models", Dialect::OpenAi);
        check("/", Dialect::Other);
        check("/chat/completions", Dialect::Other);
    }

    #[test]
    fn event_streams_are_told_by_their_type() {
        let check = |kind: &'static str, coding: Option<&'static str>, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(coding) = coding {
                headers.insert(hyper::header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            assert_eq!(is_event_stream(&headers), expected, "{kind} {coding:?}");
        };
        check("text/event-stream", None, true);
        check("Text/Event-Stream ; charset=utf-8", Some("identity"), true);
        check("text/event-stream", Some("gzip"), false);
        check("text/event-streams", None, false);
        check("application/json", None, false);
    }
}
