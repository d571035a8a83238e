//! The client's one stream, from the events of many segments.
//!
//! Events keep what the engine has put into them, but that each is the first segment's by id, time and model, and that the ends between
//! segments are left out. What may be the beginning of a stop sequence waits until it is known whether it is one.

use serde_json::{Map, Value, json};

use super::plan::{Plan, Progress, said};
use super::stops::{Stops, whole};
use crate::dialect::Dialect;
use crate::sse::{Kind, Piece, fields};

/// Segments without a new letter after which the text is taken for ended. Each is twice as long as the one before.
const STALLED: u32 = 6;

/// What is to be done after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read on.
    On,
    /// The text is complete, whatever the engine would still say.
    Over,
    /// There is more in this answer than text. Nothing of it was handed on; ask for it as a whole.
    Unfit,
}

/// What is to be done after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Ask for the next one.
    Continue,
    /// All is said.
    Over,
    /// The answer goes on, but cannot be continued.
    Stuck,
}

/// Puts segments together.
#[derive(Debug)]
pub(crate) struct Stitcher {
    dialect: Dialect,
    stops: Stops,
    wanted: Option<u64>,
    wants_usage: bool,
    /// `id`, `created` and `model` of the first event.
    identity: Option<Map<String, Value>>,
    /// An event with text, to make others like it.
    template: Option<Value>,
    /// What came before the first text: a role. Given up if the answer has to be asked for as a whole.
    lead: Option<Vec<u8>>,
    text: String,
    /// Bytes of it that were handed on.
    sent: usize,
    /// Of the segments before this one.
    tokens: u64,
    /// The first segment's.
    usage: Option<Value>,
    stalled: u32,
    segment: Segment,
    /// How the segment before has ended.
    last_finish: Option<Value>,
    is_first: bool,
    /// There is something that no text can continue.
    is_stuck: bool,
    is_cut: bool,
    is_done: bool,
}

/// What has come of the segment that is being read.
#[derive(Debug, Default)]
struct Segment {
    counted: u64,
    told: Option<u64>,
    /// White space that the engine was not sent and may say again.
    unsaid: String,
    /// What of it is yet to come.
    echo: String,
    /// Tokens that it did say again.
    again: u64,
    /// Bytes of the text when it began.
    began: usize,
    /// The event with the reason.
    finish: Option<Value>,
    usage: Option<Value>,
    has_failed: bool,
}

impl Stitcher {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            dialect: plan.dialect(),
            stops: plan.stops(),
            wanted: plan.wanted(),
            wants_usage: plan.usage(),
            identity: None,
            template: None,
            lead: Some(Vec::new()),
            text: String::new(),
            sent: 0,
            tokens: 0,
            usage: None,
            stalled: 0,
            segment: Segment::default(),
            last_finish: None,
            is_first: true,
            is_stuck: false,
            is_cut: false,
            is_done: false,
        }
    }

    /// Where the answer is, for the next request.
    pub(crate) fn progress(&self) -> Progress<'_> {
        Progress {
            text: &self.text,
            tokens: self.tokens,
            // Most often it is one token; if it was not enough, there is more room in each further segment.
            again: u64::from(said(&self.text).len() < self.text.len()) << self.stalled,
            stop_begun: self.sent < self.text.len(),
            stalled: self.stalled,
        }
    }

    /// Takes an event of the engine's, and puts what the client gets for it behind `out`.
    pub(crate) fn take(&mut self, piece: &Piece, out: &mut Vec<u8>) -> Step {
        let event = match piece.kind {
            Kind::Event => fields(&piece.bytes),
            Kind::Filler => None,
        };
        let Some(event) = event else {
            out.extend_from_slice(&piece.bytes);
            return Step::On;
        };
        if event.data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return Step::On;
        }
        match serde_json::from_slice::<Value>(&event.data) {
            Ok(chunk) if is_chunk(&chunk) => self.chunk(chunk, out),
            // An error, or nothing that we know.
            _ => {
                self.segment.has_failed = true;
                self.flush(out);
                out.extend_from_slice(&piece.bytes);
                Step::On
            }
        }
    }

    fn chunk(&mut self, mut chunk: Value, out: &mut Vec<u8>) -> Step {
        self.identify(&mut chunk);
        if !chunk["usage"].is_null() {
            let usage = chunk["usage"].take();
            self.segment.told = usage["completion_tokens"].as_u64();
            self.segment.usage = Some(usage).filter(Value::is_object);
        }
        if !self.wants_usage
            && let Value::Object(members) = &mut chunk
        {
            members.remove("usage");
        }
        if chunk["choices"].as_array().is_none_or(Vec::is_empty) || self.is_cut {
            return Step::On;
        }
        let is_foreign = self.has_foreign(&chunk);
        if is_foreign && self.lead.is_some() {
            return Step::Unfit;
        }
        self.is_stuck |= is_foreign;
        let text = self.text_mut(&mut chunk).and_then(|text| text.as_str().map(str::to_owned));
        let text = text.unwrap_or_default();
        let reason = chunk["choices"][0]["finish_reason"].take();
        let (emit, cut) = self.advance(&text);
        self.is_cut = cut.is_some();
        let reason = cut.map_or(reason, |reason| json!(reason));
        if !reason.is_null() {
            let mut finish = self.without_text(&chunk);
            finish["choices"][0]["finish_reason"] = reason;
            self.segment.finish = Some(finish);
        }
        let is_begun = self.lead.as_ref().is_none_or(|lead| !lead.is_empty());
        let has_role = !is_begun && !chunk["choices"][0]["delta"]["role"].is_null();
        if !self.is_first {
            remove_role(&mut chunk);
        }
        if let Some(slot) = self.text_mut(&mut chunk) {
            *slot = Value::String(emit.clone());
        }
        if !emit.is_empty() || is_foreign {
            self.begin(out);
            write(out, &chunk);
        } else if has_role {
            write(self.lead.as_mut().unwrap_or(out), &chunk);
        }
        if !text.is_empty() && self.template.is_none() {
            remove_role(&mut chunk);
            self.template = Some(chunk);
        }
        if self.is_cut { Step::Over } else { Step::On }
    }

    /// What of an event's text is new: not white space that was there already.
    fn new_text(&mut self, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        self.segment.counted += 1;
        let echo = &self.segment.echo;
        let same = echo.char_indices().zip(text.chars()).take_while(|((_, a), b)| a == b);
        let same: usize = same.map(|((_, a), _)| a.len_utf8()).sum();
        if same == text.len() {
            self.segment.echo.drain(..same);
            self.segment.again += 1;
            return String::new();
        }
        self.segment.echo.clear();
        text[same..].to_owned()
    }

    /// Takes an event's text. Gives what of it, and of what has waited, may be handed on, and why the text ends here if it does.
    fn advance(&mut self, text: &str) -> (String, Option<&'static str>) {
        let new = self.new_text(text);
        if !self.segment.unsaid.is_empty() && self.wanted.is_some_and(|most| self.counted() > most)
        {
            // The engine was given room for what it says again, and has said more instead. (Without such room it counts itself, and
            // better.)
            return (String::new(), Some("length"));
        }
        self.text.push_str(&new);
        let unsent = &self.text[self.sent..];
        let stop = self.stops.find(unsent);
        let waits = || self.stops.begun(unsent).max(unsent.len() - whole(unsent).len());
        let emit = stop.unwrap_or_else(|| unsent.len() - waits());
        let emit = unsent[..emit].to_owned();
        self.sent += emit.len();
        if stop.is_some() {
            self.text.truncate(self.sent);
        }
        (emit, stop.map(|_| "stop"))
    }

    /// The segment has come to its end.
    pub(crate) fn segment_ended(&mut self, out: &mut Vec<u8>) -> Ended {
        let counted = self.counted();
        self.tokens = self.wanted.map_or(counted, |wanted| counted.min(wanted));
        if let Some(usage) = self.segment.usage.take() {
            self.usage.get_or_insert(usage);
        }
        let finish = self.segment.finish.take();
        let reason = finish.as_ref().and_then(|f| f["choices"][0]["finish_reason"].as_str());
        let goes_on = !self.segment.has_failed
            && !self.is_cut
            && reason == Some("length")
            && self.wanted.is_none_or(|wanted| self.tokens < wanted);
        if goes_on {
            // The engine says the character again, and all of it.
            self.text.truncate(whole(&self.text).len());
        }
        let progressed = self.text.len() > self.segment.began;
        self.stalled = if progressed { 0 } else { self.stalled + 1 };
        if goes_on && self.is_stuck {
            return Ended::Stuck;
        }
        if goes_on && self.stalled < STALLED {
            let echo = self.text[said(&self.text).len()..].to_owned();
            let (unsaid, began) = (echo.clone(), self.text.len());
            self.segment = Segment { unsaid, echo, began, ..Segment::default() };
            // The role may still wait for the first text.
            self.is_first &= !progressed;
            self.last_finish = finish;
            return Ended::Continue;
        }
        self.end(finish, out);
        Ended::Over
    }

    /// There is no room for more text, so it ends where the last segment has ended.
    pub(crate) fn full(&mut self, out: &mut Vec<u8>) {
        let finish = self.last_finish.take();
        self.end(finish, out);
    }

    /// The answer's tokens so far.
    fn counted(&self) -> u64 {
        let segment = self.segment.told.unwrap_or(self.segment.counted);
        self.tokens + segment.saturating_sub(self.segment.again)
    }

    fn end(&mut self, finish: Option<Value>, out: &mut Vec<u8>) {
        self.flush(out);
        if let Some(finish) = &finish {
            write(out, finish);
        }
        let like = finish.or_else(|| self.template.clone());
        if self.wants_usage
            && !self.segment.has_failed
            && let (Some(usage), Some(mut chunk)) = (self.usage.clone(), like)
        {
            let prompt = usage["prompt_tokens"].as_u64().unwrap_or_default();
            chunk["choices"] = json!([]);
            chunk["usage"] = usage;
            chunk["usage"]["completion_tokens"] = json!(self.tokens);
            chunk["usage"]["total_tokens"] = json!(prompt + self.tokens);
            write(out, &chunk);
        }
        if self.is_done || self.is_cut {
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }

    /// Hands on what has waited: it was no stop sequence.
    fn flush(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        let unsent = self.text[self.sent..].to_owned();
        self.sent = self.text.len();
        if !unsent.is_empty()
            && let Some(mut chunk) = self.template.clone()
            && let Some(text) = self.text_mut(&mut chunk)
        {
            *text = Value::String(unsent);
            write(out, &chunk);
        }
    }

    /// From here on there is no way back.
    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(lead) = self.lead.take() {
            out.extend_from_slice(&lead);
        }
    }

    fn identify(&mut self, chunk: &mut Value) {
        let Some(members) = chunk.as_object_mut() else { return };
        let identity = self.identity.get_or_insert_with(|| {
            let names = ["id", "created", "model"].into_iter();
            names.filter_map(|name| Some((name.to_owned(), members.get(name)?.clone()))).collect()
        });
        for (name, value) in identity.iter() {
            members.insert(name.clone(), value.clone());
        }
    }

    /// Whether there is more in a chunk than one text.
    fn has_foreign(&self, chunk: &Value) -> bool {
        let choices = chunk["choices"].as_array().map_or(0, Vec::len);
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        let delta = chunk["choices"][0]["delta"].as_object();
        let is_known = |name: &str| matches!(name, "role" | "content");
        choices > 1
            || delta.is_some_and(|d| d.iter().any(|(name, v)| !is_known(name) && !is_empty(v)))
    }

    /// The same event with nothing said in it.
    fn without_text(&self, chunk: &Value) -> Value {
        let mut bare = chunk.clone();
        match self.dialect {
            Dialect::Chat => bare["choices"][0]["delta"] = json!({}),
            _ => bare["choices"][0]["text"] = json!(""),
        }
        bare
    }

    fn text_mut<'a>(&self, chunk: &'a mut Value) -> Option<&'a mut Value> {
        match self.dialect {
            Dialect::Chat => {
                let delta = chunk["choices"][0]["delta"].as_object_mut()?;
                delta.get_mut("content")
            }
            _ => chunk["choices"][0].as_object_mut()?.get_mut("text"),
        }
    }
}

/// Whether it has the form of a chunk, so that what is in it can be set, and tells of no error.
fn is_chunk(value: &Value) -> bool {
    let choices = value["choices"].as_array();
    choices.is_some_and(|choices| choices.iter().all(Value::is_object)) && value["error"].is_null()
}

fn remove_role(chunk: &mut Value) {
    if let Some(Value::Object(delta)) = chunk.pointer_mut("/choices/0/delta") {
        delta.remove("role");
    }
}

fn write(out: &mut Vec<u8>, chunk: &Value) {
    out.extend_from_slice(b"data: ");
    // Into memory, and with strings for keys: there is nothing to go wrong.
    let _ = serde_json::to_writer(&mut *out, chunk);
    out.extend_from_slice(b"\n\n");
}
