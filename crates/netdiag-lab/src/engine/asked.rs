//! What a client asks for: OpenAI's parameters, checked one by one so that an error can name the one that is wrong.
//!
//! An answer can be continued, by its text at the end of the prompt or of the messages (`continue_final_message`): it goes on where that
//! ends, and is as long as it would have been.
//!
//! What cannot matter to a text that is fixed (`temperature`, `tools`, `logit_bias` and the like) is let pass unread, as
//! engines do with parameters they do not know.

use std::num::NonZeroU32;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::account::Finish;
use super::corpus::{Answer, Place, pieces};
use super::error::ApiError;

/// Stop sequences at most, as with OpenAI.
const MOST_STOPS: usize = 4;

/// Roles that a message can have.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Which of the two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// A request that can be served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) prompt_tokens: u32,
    pub(crate) answer: Answer,
    /// Why the answer will end, if nothing happens to it.
    pub(crate) finish: Finish,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// What a request may ask of this engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    /// The name of the model.
    pub(crate) model: &'a str,
    /// The length of an answer that is left to the model.
    pub(crate) answer_tokens: NonZeroU32,
    /// The longest answer.
    pub(crate) longest: NonZeroU32,
}

impl Asked {
    /// Reads the body of a request. `number` makes answers to requests without a `seed` differ.
    pub(crate) fn parse(
        kind: Kind,
        body: &[u8],
        offer: Offer<'_>,
        number: u64,
    ) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        // There is one only, so a request need not name it.
        if let Some(model) = fields.optional::<String>("model")?
            && model != offer.model
        {
            return Err(ApiError::no_model(&model, offer.model));
        }
        let seed = fields.optional::<i64>("seed")?.map(i64::cast_unsigned);
        let begin = Place::of_seed(seed.unwrap_or(number));
        let (prompt_tokens, place) = match kind {
            Kind::Chat => {
                let messages: Vec<Value> = fields.required("messages")?;
                let said = continued(&fields, &messages)?;
                let place = said.and_then(|said| begin.behind(&said, seed.is_none()));
                (messages_tokens(messages)?, place)
            }
            Kind::Text => {
                let prompt: Value = fields.required("prompt")?;
                let text = prompt.as_str().or_else(|| prompt[0].as_str());
                let place = text.and_then(|text| begin.at_end_of(text, seed.is_none()));
                (prompt_tokens(prompt)?, place)
            }
        };
        let place = place.unwrap_or(begin);
        if fields.optional("n")?.unwrap_or(1) != 1 {
            return Err(ApiError::invalid("n", "this engine gives one answer; leave it at 1"));
        }
        let stream = fields.optional("stream")?.unwrap_or(false);
        let include_usage = include_usage(&fields, stream)?;
        let wanted = length(&fields, kind, offer.longest)?;
        let ignore_eos = fields.optional("ignore_eos")?.unwrap_or(false);
        let left = NonZeroU32::new(offer.answer_tokens.get().saturating_sub(place.said().tokens));
        let (mut answer, mut finish) = match (wanted, left) {
            (Some(wanted), left) if ignore_eos || left.is_some_and(|left| wanted < left) => {
                (Answer::new(place, wanted), Finish::Length)
            }
            (_, Some(left)) => (Answer::new(place, left), Finish::Stop),
            (_, None) => (Answer::nothing(place), Finish::Stop),
        };
        if let Some(stopped) = answer.stopped_at(&stops(&fields)?) {
            (answer, finish) = (stopped, Finish::Stop);
        }
        Ok(Self { kind, prompt_tokens, answer, finish, stream, include_usage })
    }
}

/// The members of a JSON object.
struct Fields(Map<String, Value>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let refuse = |why: String| {
            ApiError::new(axum::http::StatusCode::BAD_REQUEST, format!("body: {why}"))
        };
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(refuse("a JSON object is expected".to_owned())),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// A member that may be absent or `null`.
    fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        let parsed = value.map(|value| serde_json::from_value(value.clone()));
        parsed.transpose().map_err(|error| ApiError::invalid(name, error.to_string()))
    }

    fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, ApiError> {
        self.optional(name)?.ok_or_else(|| ApiError::invalid(name, "is required"))
    }
}

fn count(text: &str) -> u32 {
    u32::try_from(pieces(text).count()).unwrap_or(u32::MAX)
}

/// The text that a chat's answer is to go on with, if it is: with `continue_final_message`, as with vLLM and SGLang, that of the last
/// message.
fn continued(fields: &Fields, messages: &[Value]) -> Result<Option<String>, ApiError> {
    let name = "continue_final_message";
    if !fields.optional(name)?.unwrap_or(false) {
        return Ok(None);
    }
    if fields.optional("add_generation_prompt")?.unwrap_or(false) {
        return Err(ApiError::invalid(name, "is not for `add_generation_prompt`: true"));
    }
    let last = messages.last().filter(|message| message["role"] == "assistant");
    match last.and_then(|message| message["content"].as_str()) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(ApiError::invalid(name, "the last message must be the assistant's, a text")),
    }
}

/// The tokens of a chat's messages.
fn messages_tokens(messages: Vec<Value>) -> Result<u32, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "at least one message is expected"));
    }
    let mut tokens = 0u32;
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !ROLES.contains(&role) {
            let message = format!("one of {} is expected", ROLES.join(", "));
            return Err(ApiError::invalid(format!("messages[{index}].role"), message));
        }
        let content = match &message["content"] {
            Value::String(text) => count(text),
            // Parts; of those that are no text, such as images, this engine sees nothing.
            Value::Array(parts) => {
                parts.iter().filter_map(|part| Some(count(part["text"].as_str()?))).sum()
            }
            // A call of a tool has none.
            Value::Null if role == "assistant" => 0,
            _ => {
                let param = format!("messages[{index}].content");
                return Err(ApiError::invalid(param, "a string or an array of parts is expected"));
            }
        };
        tokens = tokens.saturating_add(content);
    }
    Ok(tokens)
}

/// The tokens of a prompt: a string, one string in an array, or tokens by number.
fn prompt_tokens(prompt: Value) -> Result<u32, ApiError> {
    let prompts = match &prompt {
        Value::String(text) => return Ok(count(text)),
        Value::Array(prompts) => prompts,
        _ => return Err(ApiError::invalid("prompt", "a string or an array is expected")),
    };
    match prompts.as_slice() {
        [Value::String(text)] => Ok(count(text)),
        tokens if !tokens.is_empty() && tokens.iter().all(Value::is_u64) => {
            Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
        }
        _ => Err(ApiError::invalid("prompt", "one prompt is expected: a string or token numbers")),
    }
}

fn include_usage(fields: &Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.optional::<Map<String, Value>>("stream_options")? else {
        return Ok(false);
    };
    if !stream {
        return Err(ApiError::invalid("stream_options", "is only for `stream`: true"));
    }
    match options.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(include)) => Ok(*include),
        Some(_) => Err(ApiError::invalid("stream_options.include_usage", "a boolean is expected")),
    }
}

/// The most tokens that are wanted, if the client says.
fn length(
    fields: &Fields,
    kind: Kind,
    longest: NonZeroU32,
) -> Result<Option<NonZeroU32>, ApiError> {
    // The newer name goes before the older.
    let names: &[&str] = match kind {
        Kind::Chat => &["max_completion_tokens", "max_tokens"],
        Kind::Text => &["max_tokens"],
    };
    for name in names {
        let Some(wanted) = fields.optional::<i64>(name)? else { continue };
        let wanted = u32::try_from(wanted).ok().and_then(NonZeroU32::new);
        let Some(wanted) = wanted.filter(|wanted| *wanted <= longest) else {
            return Err(ApiError::invalid(
                *name,
                format!("1 to {longest} tokens can be asked for"),
            ));
        };
        return Ok(Some(wanted));
    }
    Ok(None)
}

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.optional::<Value>("stop")? {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => stops
            .into_iter()
            .map(|stop| stop.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| ApiError::invalid("stop", "strings are expected"))?,
        Some(_) => return Err(ApiError::invalid("stop", "a string or an array is expected")),
    };
    if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
        let message = format!("at most {MOST_STOPS} sequences are expected, none of them empty");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests;
