//! How many tokens an event carries, and what else it means, in the words of each API.
//!
//! Nothing here has to be exact for a stream to be passed on: what is not understood counts as no token and is passed as it is.
//! One delta is one token unless the event says otherwise (a running usage, the tokens' ids or their probabilities): engines that
//! put several into one delta without a word cannot be told from those with long words.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Kind, Piece, fields};
use crate::dialect::Dialect;

/// What an event is to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A part of the text, or of thoughts.
    Text,
    /// A part of a call of a tool. Others must not be moved past it.
    Tool,
    /// The text has ended, and this is why.
    Finish,
    /// The last event.
    Done,
    /// The engine tells of an error.
    Error,
    /// Anything else: a role, usage, a keep-alive.
    Other,
}

/// What one piece says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Tokens that it carries.
    pub tokens: u32,
    /// What it is.
    pub role: Role,
}

/// Reads the events of one answer.
#[derive(Clone, Debug)]
pub struct TokenReader {
    dialect: Dialect,
    counted: u64,
    told: Option<u64>,
}

impl TokenReader {
    /// For an answer in this dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, counted: 0, told: None }
    }

    /// Tokens of the answer so far: what its usage says, or what was counted.
    pub fn tokens(&self) -> u64 {
        self.told.unwrap_or(self.counted)
    }

    /// Reads the next piece.
    pub fn read(&mut self, piece: &Piece) -> Reading {
        let nothing = Reading { tokens: 0, role: Role::Other };
        let event = match piece.kind {
            Kind::Event => fields(&piece.bytes),
            Kind::Filler => None,
        };
        let Some(event) = event else { return nothing };
        if event.data.trim_ascii() == b"[DONE]" {
            return Reading { tokens: 0, role: Role::Done };
        }
        let said = match self.dialect {
            Dialect::Chat | Dialect::Completions => {
                serde_json::from_slice(&event.data).ok().map(|chunk: Chunk| chunk.said())
            }
            Dialect::Messages => {
                serde_json::from_slice(&event.data).ok().map(|message: Message<'_>| message.said())
            }
            Dialect::Responses => {
                serde_json::from_slice(&event.data).ok().map(|part: Part<'_>| part.said())
            }
            Dialect::OpenAi | Dialect::Other => None,
        };
        let Some(said) = said else { return nothing };
        let (tokens, counted) = match said.usage {
            // A running usage. One that goes backwards is none.
            Some(usage) if said.tokens > 0 && usage >= self.counted => {
                (usage - self.counted, usage)
            }
            _ => (said.tokens, self.counted.saturating_add(said.tokens)),
        };
        self.counted = counted;
        if let Some(usage) = said.usage {
            self.told = Some(usage);
        } else if let Some(told) = &mut self.told {
            *told = told.saturating_add(tokens);
        }
        // No token is shorter than a byte. What else a usage tells of was not sent (thoughts that are hidden), and takes no time to send.
        let tokens = tokens.min(piece.bytes.len() as u64);
        Reading { tokens: u32::try_from(tokens).unwrap_or(u32::MAX), role: said.role }
    }
}

/// What an event says of itself.
struct Said {
    tokens: u64,
    role: Role,
    usage: Option<u64>,
}

/// `chat.completion.chunk` and `text_completion` of OpenAI's API.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Delta>,
    text: Length,
    finish_reason: Length,
    logprobs: Option<Logprobs>,
    /// vLLM, with `return_token_ids`.
    token_ids: Length,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Length,
    /// DeepSeek's name, and vLLM's for a time.
    reasoning_content: Length,
    reasoning: Length,
    refusal: Length,
    tool_calls: Length,
    function_call: Length,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Logprobs {
    content: Length,
    tokens: Length,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Chunk {
    fn said(self) -> Said {
        let usage = self.usage.and_then(|usage| usage.completion_tokens);
        if self.error.is_some() {
            return Said { tokens: 0, role: Role::Error, usage };
        }
        let choices = self.choices.unwrap_or_default();
        let tokens = choices.iter().map(Choice::tokens).sum();
        let delta = |of: fn(&Delta) -> bool| choices.iter().flat_map(|c| &c.delta).any(of);
        let role = if choices.iter().any(|choice| choice.finish_reason.0 > 0) {
            Role::Finish
        } else if delta(|delta| delta.tool_calls.0 + delta.function_call.0 > 0) {
            Role::Tool
        } else if tokens > 0 {
            Role::Text
        } else {
            Role::Other
        };
        Said { tokens, role, usage }
    }
}

impl Choice {
    fn tokens(&self) -> u64 {
        let of_delta = self.delta.as_ref().map_or(0, |delta| {
            delta.content.0
                + delta.reasoning_content.0
                + delta.reasoning.0
                + delta.refusal.0
                + delta.tool_calls.0
                + delta.function_call.0
        });
        if of_delta + self.text.0 == 0 {
            return 0;
        }
        let probable =
            self.logprobs.as_ref().map_or(0, |probs| probs.content.0.max(probs.tokens.0));
        self.token_ids.0.max(probable).max(1)
    }
}

/// An event of Anthropic's Messages API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    r#type: std::borrow::Cow<'a, str>,
    delta: Option<MessageDelta>,
    usage: Option<Usage>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageDelta {
    text: Length,
    thinking: Length,
    partial_json: Length,
    stop_reason: Length,
}

impl Message<'_> {
    fn said(self) -> Said {
        let delta = self.delta.unwrap_or_default();
        let usage = self.usage.and_then(|usage| usage.output_tokens);
        let text = u64::from(delta.text.0 + delta.thinking.0 > 0);
        let tool = u64::from(delta.partial_json.0 > 0);
        let (tokens, role) = match &*self.r#type {
            "content_block_delta" if tool > 0 => (tool, Role::Tool),
            "content_block_delta" if text > 0 => (text, Role::Text),
            // Where a block begins or ends, a tool's may: nothing is moved past it.
            "content_block_start" | "content_block_stop" => (0, Role::Tool),
            "message_delta" if delta.stop_reason.0 > 0 => (0, Role::Finish),
            "message_stop" => (0, Role::Done),
            "error" => (0, Role::Error),
            _ => (0, Role::Other),
        };
        // `message_start` tells of a first token that has not come yet.
        let usage = usage.filter(|_| self.r#type == "message_delta");
        Said { tokens, role, usage }
    }
}

/// An event of OpenAI's Responses API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow)]
    r#type: std::borrow::Cow<'a, str>,
    delta: Length,
    response: Option<Response>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response {
    usage: Option<Usage>,
}

impl Part<'_> {
    fn said(self) -> Said {
        let usage = self.response.and_then(|response| response.usage?.output_tokens);
        let one = u64::from(self.delta.0 > 0);
        let (tokens, role) = match &*self.r#type {
            "response.completed" | "response.incomplete" => (0, Role::Done),
            "response.failed" | "error" => (0, Role::Error),
            "response.output_text.done" => (0, Role::Finish),
            name if name.ends_with(".delta") => {
                let text = ["output_text", "reasoning", "refusal"].iter().any(|w| name.contains(w));
                (one, if text { Role::Text } else { Role::Tool })
            }
            // Items that begin and end.
            name if name.contains("_call") || name.contains("output_item") => (0, Role::Tool),
            _ => (0, Role::Other),
        };
        Said { tokens, role, usage: usage.filter(|_| role == Role::Done) }
    }
}

/// How much there is, of whatever it is: bytes of a text, elements of a list; 1 for anything else that is there.
#[derive(Clone, Copy, Debug, Default)]
struct Length(u64);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl<'de> Visitor<'de> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Length, E> {
        Ok(Length(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Length, E> {
        Ok(Length(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Length, E> {
        Ok(Length(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Length, E> {
        Ok(Length(1))
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len() as u64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
        let mut length = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Length(length))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(1))
    }
}

#[cfg(test)]
mod tests;
