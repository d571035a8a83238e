//! Several deltas as one event, for paths that carry few bytes.
//!
//! A delta is one token's text in a few hundred bytes of frame, the same for all of them. Where the path is the bottleneck,
//! a delta with the text of several is the same to every client (they put the texts together) and a fraction of the bytes.
//! Only texts are put together, of one answer, with nothing else in them: never a call of a tool, a reason to finish, a usage or
//! probabilities, and never across one.

use bytes::Bytes;
use serde_json::Value;

use super::{Kind, Piece, fields};
use crate::dialect::Dialect;

/// The two as one event, if they are alike enough.
pub fn merge(dialect: Dialect, first: &Piece, second: &Piece) -> Option<Piece> {
    let (mut whole, more) = (object(first)?, object(second)?);
    let text = text(dialect, &more)?;
    if !is_alike(dialect, &whole, &more) {
        return None;
    }
    match self::text_mut(dialect, &mut whole)? {
        Value::String(whole) => whole.push_str(&text),
        _ => return None,
    }
    let name = match dialect {
        Dialect::Messages => "event: content_block_delta\n",
        _ => "",
    };
    Some(Piece { bytes: Bytes::from(format!("{name}data: {whole}\n\n")), kind: Kind::Event })
}

/// The event's data, if that is all there is to it.
fn object(piece: &Piece) -> Option<Value> {
    let event = fields(&piece.bytes).filter(|event| event.id.is_none())?;
    let value: Value = serde_json::from_slice(&event.data).ok()?;
    let plain = match &*event.name {
        b"message" => true,
        // Anthropic's events are named after their type.
        name => value["type"].as_str().map(str::as_bytes) == Some(name),
    };
    plain.then_some(value).filter(Value::is_object)
}

/// Whether all but the texts is the same, and there is nothing that a text cannot be moved past. The time of creation may differ.
fn is_alike(dialect: Dialect, first: &Value, second: &Value) -> bool {
    let bare = |value: &Value| {
        let mut bare = value.clone();
        *text_mut(dialect, &mut bare)? = Value::Null;
        if let Value::Object(members) = &mut bare {
            members.remove("created");
        }
        Some(bare)
    };
    bare(first).is_some_and(|first| bare(second) == Some(first)) && only_text(dialect, first)
}

/// Whether the delta has a text and nothing else.
fn only_text(dialect: Dialect, value: &Value) -> bool {
    let nothing = |value: &Value, name: &str| value.get(name).is_none_or(Value::is_null);
    match dialect {
        Dialect::Chat | Dialect::Completions => {
            let choice = &value["choices"][0];
            let alone = value["choices"].as_array().is_some_and(|choices| choices.len() == 1);
            let in_delta = match dialect {
                Dialect::Chat => choice["delta"].as_object().is_some_and(|delta| {
                    delta.iter().all(|(name, value)| name == "content" || value.is_null())
                }),
                _ => true,
            };
            alone
                && in_delta
                && nothing(value, "usage")
                && nothing(value, "error")
                && ["finish_reason", "logprobs", "token_ids", "stop_reason"]
                    .iter()
                    .all(|name| nothing(choice, name))
        }
        Dialect::Messages => {
            value["type"] == "content_block_delta" && value["delta"]["type"] == "text_delta"
        }
        Dialect::Responses | Dialect::OpenAi | Dialect::Other => false,
    }
}

fn text(dialect: Dialect, value: &Value) -> Option<String> {
    let text = match dialect {
        Dialect::Chat => &value["choices"][0]["delta"]["content"],
        Dialect::Completions => &value["choices"][0]["text"],
        Dialect::Messages => &value["delta"]["text"],
        Dialect::Responses | Dialect::OpenAi | Dialect::Other => return None,
    };
    text.as_str().map(str::to_owned)
}

fn text_mut(dialect: Dialect, value: &mut Value) -> Option<&mut Value> {
    let path = match dialect {
        Dialect::Chat => "/choices/0/delta/content",
        Dialect::Completions => "/choices/0/text",
        Dialect::Messages => "/delta/text",
        Dialect::Responses | Dialect::OpenAi | Dialect::Other => return None,
    };
    value.pointer_mut(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(event: &str) -> Piece {
        Piece { bytes: Bytes::copy_from_slice(event.as_bytes()), kind: Kind::Event }
    }

    fn check(dialect: Dialect, first: &str, second: &str, text: Option<&str>) {
        let merged = merge(dialect, &piece(first), &piece(second));
        let found = merged.as_ref().and_then(|piece| super::text(dialect, &object(piece)?));
        assert_eq!(found.as_deref(), text, "{first} {second}");
    }

    #[test]
    fn texts_are_put_together() {
        let chat = |delta: &str, rest: &str| {
            format!(
                r#"data: {{"id":"x","created":1,"choices":[{{"index":0,"delta":{delta}{rest}}}]}}"#
            ) + "\n\n"
        };
        let a = chat(r#"{"content":"a\n"}"#, r#","finish_reason":null"#);
        let b = chat(r#"{"content":"é"}"#, r#","finish_reason":null"#);
        check(Dialect::Chat, &a, &b, Some("a\né"));
        check(Dialect::Chat, &a, &b.replace("\"created\":1", "\"created\":2"), Some("a\né"));
        check(Dialect::Chat, &a, &b.replace("\"x\"", "\"y\""), None);
        check(Dialect::Chat, &a, &b.replace("\"index\":0", "\"index\":1"), None);
        check(Dialect::Chat, &a, &b.replace("null", "\"stop\""), None);
        let tool = chat(r#"{"content":"b","tool_calls":[{}]}"#, r#","finish_reason":null"#);
        check(Dialect::Chat, &a, &tool, None);
        check(Dialect::Chat, &tool, &tool, None);
        check(Dialect::Chat, &a, "data: [DONE]\n\n", None);
        check(Dialect::Chat, &a, &format!("id: 3\n{b}"), None);
        check(Dialect::Chat, &a, ": ping\n", None);
        check(
            Dialect::Completions,
            "data: {\"choices\":[{\"text\":\"a\",\"logprobs\":null}]}\n\n",
            "data: {\"choices\":[{\"text\":\"b\",\"logprobs\":null}]}\n\n",
            Some("ab"),
        );
        let block = |text: &str, kind: &str| {
            format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"{kind}\",\"text\":\"{text}\"}}}}\n\n"
            )
        };
        let delta = "text_delta";
        check(Dialect::Messages, &block("a", delta), &block("b", delta), Some("ab"));
        check(Dialect::Messages, &block("a", delta), &block("b", "input_json_delta"), None);
        check(Dialect::Responses, &a, &b, None);
    }
}
