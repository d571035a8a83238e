//! Which requests can be continued, and the request for each segment.
//!
//! Only what is known to mean the same in a continuation is put into segments; a parameter that nobody here knows makes it one
//! request. That is the safe side: such a stream is held as any other.

use std::num::NonZeroU32;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::stops::Stops;
use crate::dialect::Dialect;

/// Why a request is asked for as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Whole {
    #[error("it is no request for a streamed completion")]
    NotStreamed,
    #[error("it is no longer than a segment")]
    Short,
    #[error("how long the answer may be is up to the engine")]
    Unbounded,
    #[error("its prompt is no text")]
    Prompt,
    #[error("its last message is the assistant's")]
    Assistant,
    #[error("its stop sequences are inside one another")]
    Stops,
    #[error("its sampling has a seed, which a continuation would begin with again")]
    Seeded,
    #[error("`{0}` may mean something else in a continuation")]
    Parameter(String),
}

/// Parameters that mean the same for each segment: what the model is, how one token is sampled, whose request it is.
const SAME: [&str; 36] = [
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "top_a",
    "min_p",
    "typical_p",
    "tfs",
    // It looks at the prompt as well (the other penalties do not).
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
    "stop_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "seed",
    "user",
    "metadata",
    "store",
    "priority",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_salt",
    "cache_prompt",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
    "reasoning_effort",
];

/// Parameters that can be continued only as if they were not there, and what they then are besides `null`.
fn is_neutral(name: &str, value: &Value) -> bool {
    match name {
        "n" | "best_of" => *value == 1,
        "logprobs" => *value == false,
        "echo"
        | "include_stop_str_in_output"
        | "use_beam_search"
        | "return_token_ids"
        | "continue_final_message" => *value == false,
        "add_generation_prompt" => *value == true,
        // They look at the answer alone, which for a continuation has just begun.
        "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "min_tokens" | "top_logprobs" => *value == 0,
        "suffix" => *value == "",
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" => *value == "none",
        "parallel_tool_calls" => value.is_boolean(),
        "response_format" => value["type"] == "text",
        _ => false,
    }
}

/// A request that can be continued.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    dialect: Dialect,
    whole: Bytes,
    asked: Map<String, Value>,
    segment: NonZeroU32,
    /// The parameter that the client has named the answer's length with, or that is used without one.
    length: &'static str,
    wanted: Option<u64>,
    stops: Vec<String>,
    usage: bool,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress<'a> {
    /// All of its text.
    pub(crate) text: &'a str,
    /// Its tokens.
    pub(crate) tokens: u64,
    /// Tokens that the engine will say again, because white space at the end is not sent to it.
    pub(crate) again: u64,
    /// Whether a stop sequence may have begun in the text.
    pub(crate) stop_begun: bool,
    /// Segments without progress, in a row.
    pub(crate) stalled: u32,
}

impl Plan {
    pub(crate) fn try_new(
        dialect: Dialect,
        body: &Bytes,
        segment: NonZeroU32,
    ) -> Result<Self, Whole> {
        let asked: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| Whole::NotStreamed)?;
        let field = |name: &str| asked.get(name).filter(|value| !value.is_null());
        if field("stream") != Some(&Value::Bool(true)) {
            return Err(Whole::NotStreamed);
        }
        for (name, value) in &asked {
            if !SAME.contains(&name.as_str()) && !value.is_null() && !is_neutral(name, value) {
                return Err(Whole::Parameter(name.clone()));
            }
        }
        match dialect {
            Dialect::Completions if field("prompt").is_some_and(Value::is_string) => {}
            Dialect::Chat => {
                let last = field("messages").and_then(|messages| messages.as_array()?.last());
                match last.map(|message| &message["role"]) {
                    None | Some(Value::Null) => return Err(Whole::Prompt),
                    Some(role) if *role == "assistant" => return Err(Whole::Assistant),
                    Some(_) => {}
                }
            }
            _ => return Err(Whole::Prompt),
        }
        let names: &[&'static str] = match dialect {
            Dialect::Chat => &["max_completion_tokens", "max_tokens"],
            _ => &["max_tokens"],
        };
        let given = names.iter().find_map(|name| Some((*name, field(name)?)));
        let (length, wanted) = match given {
            Some((name, value)) => {
                let wanted = value.as_u64().ok_or_else(|| Whole::Parameter(name.to_owned()))?;
                (name, Some(wanted))
            }
            // What engines understand, of old.
            None => ("max_tokens", None),
        };
        let ignores_end = field("ignore_eos") == Some(&Value::Bool(true));
        match wanted {
            Some(wanted) if wanted <= u64::from(segment.get()) => return Err(Whole::Short),
            // Of completions OpenAI's default is 16 tokens, and others have others.
            None if dialect == Dialect::Completions || ignores_end => {
                return Err(Whole::Unbounded);
            }
            _ => {}
        }
        if field("seed").is_some()
            && field("temperature").and_then(Value::as_f64).is_none_or(|t| t > 0.0)
        {
            return Err(Whole::Seeded);
        }
        let stops = stops(field("stop"))?;
        if Stops::new(stops.clone()).are_nested() {
            return Err(Whole::Stops);
        }
        let usage = usage(field("stream_options"))?;
        let whole = body.clone();
        Ok(Self { dialect, whole, asked, segment, length, wanted, stops, usage })
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The request as the client has sent it.
    pub(crate) fn whole(&self) -> Bytes {
        self.whole.clone()
    }

    /// The answer's length in tokens, if the client says.
    pub(crate) fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    pub(crate) fn stops(&self) -> Stops {
        Stops::new(self.stops.clone())
    }

    /// Whether the client asks for usage.
    pub(crate) fn usage(&self) -> bool {
        self.usage
    }

    /// The request for the next segment.
    pub(crate) fn next(&self, progress: Progress<'_>) -> Bytes {
        let mut next = self.asked.clone();
        let size = u64::from(self.segment.get()) << progress.stalled.min(16);
        let left = self.wanted.map_or(size, |wanted| wanted.saturating_sub(progress.tokens));
        next.insert(self.length.to_owned(), json!(size.min(left).max(1) + progress.again));
        let mut options = next.get("stream_options").and_then(Value::as_object).cloned();
        options.get_or_insert_default().insert("include_usage".to_owned(), Value::Bool(true));
        next.insert("stream_options".to_owned(), json!(options));
        // An engine would look for a stop sequence in what is new alone, and might find another first; and where tokens are counted one by
        // one, it must not keep any back to look for one.
        if progress.stop_begun || progress.again > 0 {
            next.remove("stop");
        }
        let said = said(progress.text);
        match self.dialect {
            // Nothing to continue: many templates have no place for an empty message.
            _ if said.is_empty() => {}
            Dialect::Chat => {
                if let Some(Value::Array(messages)) = next.get_mut("messages") {
                    messages.push(json!({"role": "assistant", "content": said}));
                }
                next.insert("continue_final_message".to_owned(), Value::Bool(true));
                next.insert("add_generation_prompt".to_owned(), Value::Bool(false));
            }
            _ => {
                if let Some(Value::String(prompt)) = next.get_mut("prompt") {
                    prompt.push_str(said);
                }
            }
        }
        Value::Object(next).to_string().into()
    }
}

/// What of a text an engine is sent to continue: chat templates cut white space off, and tokenizers put it to the word behind it,
/// so a model that finds it cut off before the word says something else.
pub(crate) fn said(text: &str) -> &str {
    text.trim_end()
}

fn stops(stop: Option<&Value>) -> Result<Vec<String>, Whole> {
    let refused = || Whole::Parameter("stop".to_owned());
    let text = |stop: &Value| {
        stop.as_str().filter(|stop| !stop.is_empty()).map(str::to_owned).ok_or_else(refused)
    };
    match stop {
        None => Ok(Vec::new()),
        Some(Value::Array(stops)) => stops.iter().map(text).collect(),
        Some(stop) => Ok(vec![text(stop)?]),
    }
}

fn usage(options: Option<&Value>) -> Result<bool, Whole> {
    let refused = || Whole::Parameter("stream_options".to_owned());
    let Some(options) = options else { return Ok(false) };
    let options = options.as_object().ok_or_else(refused)?;
    let mut usage = false;
    for (name, value) in options {
        match (name.as_str(), value) {
            (_, Value::Null | Value::Bool(false)) => {}
            ("include_usage", Value::Bool(true)) => usage = true,
            // Against guesses by length. A gateway's frames are as long as its engine's.
            ("include_obfuscation", Value::Bool(true)) => {}
            // A usage in each event would count each segment's.
            _ => return Err(refused()),
        }
    }
    Ok(usage)
}
