//! Responses as OpenAI's interfaces give them, whole or as server-sent events.
//!
//! One token is one event. In a chat the first token's event follows one that names the role; after the last token come
//! an event with the reason, one with the usage if it was asked for, and `[DONE]`.
//!
//! Invariant: an event ends with the one empty line in it, which is how tokens are found among a connection's bytes.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::account::Finish;
use super::asked::Kind;

/// One answer's identity and shape.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) kind: Kind,
    /// `chatcmpl-…` or `cmpl-…`
    pub(crate) id: String,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    pub(crate) model: String,
    /// Whether the stream ends with an event on usage.
    pub(crate) include_usage: bool,
}

/// Tokens of the question and of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: u32,
    pub(crate) completion: u32,
}

/// Bytes to write, and how many events they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) bytes: Bytes,
    pub(crate) count: usize,
}

impl Wire {
    /// The event that begins an answer, if there is one.
    pub(crate) fn begin(&self) -> Option<Bytes> {
        let role = json!({"role": "assistant", "content": ""});
        (self.kind == Kind::Chat).then(|| self.event(self.chunk(role, None)))
    }

    /// A token's event.
    pub(crate) fn token(&self, text: &str) -> Bytes {
        let content = match self.kind {
            Kind::Chat => json!({"content": text}),
            Kind::Text => json!(text),
        };
        self.event(self.chunk(content, None))
    }

    /// The events after the last token.
    pub(crate) fn end(&self, finish: Finish, usage: Usage) -> Events {
        let nothing = match self.kind {
            Kind::Chat => json!({}),
            Kind::Text => json!(""),
        };
        let mut events = vec![self.event(self.chunk(nothing, Some(finish)))];
        if self.include_usage {
            let mut last = self.envelope(json!([]));
            last["usage"] = usage.json();
            events.push(self.event(last));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Events { count: events.len(), bytes: events.concat().into() }
    }

    /// The response that has it all at once. Ends with an empty line, like an event.
    pub(crate) fn whole(&self, text: &str, finish: Finish, usage: Usage) -> Bytes {
        let choice = match self.kind {
            Kind::Chat => json!({
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": null,
                "finish_reason": finish,
            }),
            Kind::Text => {
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
            }
        };
        let mut whole = self.envelope(json!([choice]));
        whole["usage"] = usage.json();
        whole["object"] = match self.kind {
            Kind::Chat => json!("chat.completion"),
            Kind::Text => json!("text_completion"),
        };
        format!("{whole}\n\n").into()
    }

    fn chunk(&self, content: Value, finish: Option<Finish>) -> Value {
        let (name, content) = match self.kind {
            Kind::Chat => ("delta", content),
            Kind::Text => ("text", content),
        };
        let mut chunk = self.envelope(json!([
            {"index": 0, name: content, "logprobs": null, "finish_reason": finish}
        ]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn envelope(&self, choices: Value) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "netdiag-demo",
            "choices": choices,
        })
    }

    fn event(&self, chunk: Value) -> Bytes {
        format!("data: {chunk}\n\n").into()
    }
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": u64::from(self.prompt) + u64::from(self.completion),
        })
    }
}
