//! For any text, cut anywhere: the stitched answer is the one of a single request.
//!
//! The engine here says one text, token by token, and does with stop sequences what engines do: it keeps back what may become one,
//! looks for them in what it has generated for this request alone, and counts the tokens it needed.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Plan, Progress, Whole};
use super::stitch::{Ended, Step, Stitcher};
use super::stops::Stops;
use crate::dialect::Dialect;
use crate::sse::{Kind, Piece};

const PROMPT: &str = "Say it:";

/// An engine with one text.
struct Engine {
    tokens: Vec<String>,
    answers: u64,
}

impl Engine {
    /// The events of an answer.
    fn answer(&mut self, dialect: Dialect, request: &Value) -> Vec<String> {
        self.answers += 1;
        let story = self.tokens.concat();
        let said = match dialect {
            Dialect::Chat if request["continue_final_message"] == true => {
                assert_eq!(request["add_generation_prompt"], false);
                let messages = request["messages"].as_array().expect("messages");
                messages.last().expect("one")["content"].as_str().expect("a text")
            }
            Dialect::Chat => "",
            _ => request["prompt"].as_str().and_then(|p| p.strip_prefix(PROMPT)).expect("ours"),
        };
        assert!(story.starts_with(said), "{said:?} was never said");
        let mut left = Vec::new();
        let mut begin = 0;
        for token in &self.tokens {
            let end = begin + token.len();
            if end > said.len() {
                left.push(&token[said.len().saturating_sub(begin)..]);
            }
            begin = end;
        }
        let most = request["max_tokens"].as_u64().unwrap_or(u64::MAX);
        let stops = request["stop"].as_array().cloned().unwrap_or_default();
        let stops = stops.iter().map(|stop| stop.as_str().expect("a text").to_owned());
        let stops = Stops::new(stops.collect());
        let (mut text, mut sent, mut count) = (String::new(), 0, 0);
        let mut deltas = Vec::new();
        let finish = loop {
            if count == left.len() as u64 {
                break "stop";
            }
            if count == most {
                break "length";
            }
            text.push_str(left[usize::try_from(count).expect("few")]);
            count += 1;
            if let Some(stop) = stops.find(&text) {
                text.truncate(stop);
                break "stop";
            }
            let ready = text.len() - stops.begun(&text);
            deltas.push(text[sent..ready].to_owned());
            sent = ready;
        };
        deltas.push(text[sent.min(text.len())..].to_owned());
        let usage = request["stream_options"]["include_usage"] == true;
        self.events(dialect, &deltas, finish, usage.then_some(count))
    }

    fn events(
        &self,
        dialect: Dialect,
        deltas: &[String],
        finish: &str,
        usage: Option<u64>,
    ) -> Vec<String> {
        let chunk = |choices: Value| {
            json!({"id": format!("x-{}", self.answers), "created": self.answers, "model": "m",
                   "choices": choices})
        };
        let choice = |delta: Value, finish: Value| match dialect {
            Dialect::Chat => chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}])),
            _ => chunk(json!([{"index": 0, "text": delta["content"].as_str().unwrap_or(""),
                               "finish_reason": finish}])),
        };
        let mut chunks = Vec::new();
        if dialect == Dialect::Chat {
            chunks.push(choice(json!({"role": "assistant", "content": ""}), Value::Null));
        }
        let texts = deltas.iter().filter(|delta| !delta.is_empty());
        chunks.extend(texts.map(|text| choice(json!({"content": text}), Value::Null)));
        chunks.push(choice(json!({}), json!(finish)));
        if let Some(count) = usage {
            let mut last = chunk(json!([]));
            last["usage"] = json!({"prompt_tokens": 3, "completion_tokens": count,
                                   "total_tokens": 3 + count});
            chunks.push(last);
        }
        let mut events: Vec<_> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

/// What a client makes of a stream.
#[derive(Debug, Default, PartialEq)]
struct Read {
    text: String,
    finish: Vec<String>,
    usage: Vec<Value>,
    roles: usize,
    ids: std::collections::BTreeSet<String>,
    done: usize,
}

fn read(stream: &str) -> Read {
    let mut read = Read::default();
    for event in stream.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").expect("an event");
        if data == "[DONE]" {
            read.done += 1;
            continue;
        }
        assert_eq!(read.done, 0, "behind the end: {stream}");
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        read.ids.insert(format!("{} {}", chunk["id"], chunk["created"]));
        if !chunk["usage"].is_null() {
            read.usage.push(chunk["usage"].clone());
        }
        let choice = &chunk["choices"][0];
        read.roles += usize::from(!choice["delta"]["role"].is_null());
        let text = choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str());
        let text = text.unwrap_or("");
        assert!(text.is_empty() || read.finish.is_empty(), "text behind the reason: {stream}");
        read.text.push_str(text);
        read.finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
    }
    read
}

/// The stream of an answer in segments, and how many there were.
fn stitched(engine: &mut Engine, plan: &Plan) -> (String, u32) {
    let mut stitcher = Stitcher::new(plan);
    let mut out = Vec::new();
    for segments in 1.. {
        assert!(segments < 1000, "no end");
        let request = plan.next(stitcher.progress());
        let request = serde_json::from_slice(&request).expect("JSON");
        for event in engine.answer(plan.dialect(), &request) {
            let piece = Piece { bytes: Bytes::from(event), kind: Kind::Event };
            match stitcher.take(&piece, &mut out) {
                Step::On => {}
                Step::Over => break,
                Step::Unfit => panic!("it is only text"),
            }
        }
        match stitcher.segment_ended(&mut out) {
            Ended::Continue => {}
            Ended::Over => return (String::from_utf8(out).expect("UTF-8"), segments),
            Ended::Stuck => panic!("it is only text"),
        }
    }
    unreachable!()
}

fn request(dialect: Dialect) -> Value {
    let mut request = json!({"model": "m", "stream": true, "temperature": 0.7});
    match dialect {
        Dialect::Chat => request["messages"] = json!([{"role": "user", "content": PROMPT}]),
        _ => request["prompt"] = json!(PROMPT),
    }
    request
}

fn plan(dialect: Dialect, request: &Value, segment: u32) -> Result<Plan, Whole> {
    let segment = NonZeroU32::new(segment).expect("not zero");
    Plan::try_new(dialect, &Bytes::from(request.to_string()), segment)
}

/// Few letters, so that stop sequences and cuts meet in every way.
const TOKENS: [&str; 10] = ["a", "b", "ab", " ", "\n", " a", "ba\n", "\n\n", "é", " \n"];

fn tokens() -> impl Strategy<Value = Vec<String>> {
    let token = proptest::sample::select(&TOKENS[..]).prop_map(str::to_owned);
    proptest::collection::vec(token, 0..40)
}

fn stops() -> impl Strategy<Value = Vec<String>> {
    let letter = proptest::sample::select(&['a', 'b', ' ', '\n', 'é'][..]);
    let stop = proptest::collection::vec(letter, 1..5).prop_map(|letters| letters.iter().collect());
    proptest::collection::vec(stop, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn segments_are_one_answer(
        tokens in tokens(),
        stops in stops(),
        segment in 1u32..9,
        most in proptest::option::of(1u64..45),
        usage: bool,
        is_chat: bool,
    ) {
        let dialect = if is_chat { Dialect::Chat } else { Dialect::Completions };
        let mut request = request(dialect);
        request["stop"] = json!(stops);
        if let Some(most) = most {
            request["max_tokens"] = json!(most);
        }
        if usage {
            request["stream_options"] = json!({"include_usage": true});
        }
        let plan = match plan(dialect, &request, segment) {
            Ok(plan) => plan,
            Err(Whole::Short | Whole::Unbounded | Whole::Stops) => return Ok(()),
            Err(why) => panic!("{why}"),
        };
        let mut engine = Engine { tokens, answers: 0 };
        let whole = engine.answer(dialect, &request).concat();
        engine.answers = 0;
        let (stream, segments) = stitched(&mut engine, &plan);
        prop_assert_eq!(read(&stream), read(&whole), "{} segments: {}", segments, stream);
    }
}

#[test]
fn a_text_comes_in_as_many_segments_as_it_has() {
    let tokens: Vec<String> = (0..20).map(|n| format!(" {n}")).collect();
    let mut engine = Engine { tokens, answers: 0 };
    let mut request = request(Dialect::Chat);
    request["max_completion_tokens"] = json!(15);
    let plan = plan(Dialect::Chat, &request, 4).expect("fit");
    let first: Value = serde_json::from_slice(&plan.next(Progress::default())).expect("JSON");
    assert_eq!(first["max_completion_tokens"], 4);
    assert_eq!(first.get("continue_final_message"), None);
    // The engine here knows the older name.
    request["max_tokens"] = json!(15);
    request.as_object_mut().expect("an object").remove("max_completion_tokens");
    let plan = self::plan(Dialect::Chat, &request, 4).expect("fit");
    let (stream, segments) = stitched(&mut engine, &plan);
    assert_eq!(segments, 4);
    assert_eq!(read(&stream).finish, ["length"]);
    assert_eq!(read(&stream).text.split_whitespace().count(), 15);
}

#[test]
fn what_cannot_be_continued_is_asked_for_as_a_whole() {
    let check = |dialect, change: Value, expected: Option<Whole>| {
        let mut request = request(dialect);
        request["max_tokens"] = json!(1000);
        for (name, value) in change.as_object().expect("an object") {
            request[name] = value.clone();
        }
        assert_eq!(plan(dialect, &request, 10).err(), expected, "{change}");
    };
    let chat = |change: Value, expected: Option<Whole>| check(Dialect::Chat, change, expected);
    let parameter = |name: &str| Some(Whole::Parameter(name.to_owned()));
    chat(json!({}), None);
    chat(json!({"stream": false}), Some(Whole::NotStreamed));
    chat(json!({"max_tokens": 10}), Some(Whole::Short));
    chat(json!({"max_tokens": null}), None);
    chat(json!({"max_tokens": null, "ignore_eos": true}), Some(Whole::Unbounded));
    chat(json!({"max_tokens": "many"}), parameter("max_tokens"));
    chat(json!({"max_tokens": 5, "max_completion_tokens": 50}), None);
    chat(
        json!({"n": 1, "logprobs": false, "tools": [], "response_format": {"type": "text"}}),
        None,
    );
    chat(json!({"n": 2}), parameter("n"));
    chat(json!({"logprobs": true}), parameter("logprobs"));
    chat(json!({"tools": [{"type": "function"}]}), parameter("tools"));
    chat(json!({"functions": [{"name": "f"}]}), parameter("functions"));
    chat(json!({"response_format": {"type": "json_object"}}), parameter("response_format"));
    chat(json!({"guided_regex": "a*"}), parameter("guided_regex"));
    chat(json!({"structured_outputs": {"choice": ["a"]}}), parameter("structured_outputs"));
    chat(json!({"presence_penalty": 0.5}), parameter("presence_penalty"));
    chat(json!({"presence_penalty": 0, "frequency_penalty": 0.0}), None);
    chat(json!({"something_new": 1}), parameter("something_new"));
    chat(json!({"seed": 1}), Some(Whole::Seeded));
    chat(json!({"seed": 1, "temperature": null}), Some(Whole::Seeded));
    chat(json!({"seed": 1, "temperature": 0}), None);
    chat(json!({"stop": "x"}), None);
    chat(json!({"stop": ""}), parameter("stop"));
    chat(json!({"stop": ["xyz", "y"]}), Some(Whole::Stops));
    chat(json!({"stream_options": {"continuous_usage_stats": true}}), parameter("stream_options"));
    chat(json!({"messages": []}), Some(Whole::Prompt));
    let said = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    chat(json!({"messages": said}), Some(Whole::Assistant));
    let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
    chat(json!({"messages": picture}), None);
    let text = |change: Value, expected| check(Dialect::Completions, change, expected);
    text(json!({}), None);
    text(json!({"max_tokens": null}), Some(Whole::Unbounded));
    text(json!({"prompt": [1, 2, 3]}), Some(Whole::Prompt));
    text(json!({"prompt": ["a", "b"]}), Some(Whole::Prompt));
    text(json!({"echo": true}), parameter("echo"));
    text(json!({"best_of": 2}), parameter("best_of"));
    text(json!({"suffix": "end"}), parameter("suffix"));
    text(json!({"logprobs": 0}), parameter("logprobs"));
}

#[test]
fn thoughts_and_tools_are_noticed_before_anything_was_handed_on() {
    let plan = plan(Dialect::Chat, &request(Dialect::Chat), 4).expect("fit");
    let check = |delta: &str, expected: Step| {
        let mut stitcher = Stitcher::new(&plan);
        let mut out = Vec::new();
        let mut take = |delta: &str| {
            let event = format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
            stitcher.take(&Piece { bytes: event.into(), kind: Kind::Event }, &mut out)
        };
        assert_eq!(take(r#"{"role":"assistant","content":""}"#), Step::On);
        assert_eq!(take(delta), expected, "{delta}");
        assert_eq!(out.is_empty(), expected == Step::Unfit, "{delta}");
    };
    check(r#"{"content":"a"}"#, Step::On);
    check(r#"{"content":"a","refusal":null,"tool_calls":[],"reasoning":""}"#, Step::On);
    check(r#"{"reasoning_content":"hm"}"#, Step::Unfit);
    check(r#"{"tool_calls":[{"index":0}]}"#, Step::Unfit);
}

#[test]
fn what_is_no_chunk_is_passed_on_as_it_is() {
    let usage = json!({"include_usage": true});
    for dialect in [Dialect::Chat, Dialect::Completions] {
        let mut request = request(dialect);
        (request["max_tokens"], request["stream_options"]) = (json!(100), usage.clone());
        let plan = plan(dialect, &request, 4).expect("fit");
        let stream = |data: &str| {
            let mut stitcher = Stitcher::new(&plan);
            let mut out = Vec::new();
            let text = json!({"choices": [{"text": "a", "delta": {"content": "a"}}]}).to_string();
            for data in [&text, data, "[DONE]"] {
                let bytes = Bytes::from(format!("data: {data}\n\n"));
                stitcher.take(&Piece { bytes, kind: Kind::Event }, &mut out);
            }
            assert_eq!(stitcher.segment_ended(&mut out), Ended::Over, "{data}");
            String::from_utf8(out).expect("UTF-8")
        };
        for nonsense in [r#"{"choices":[1]}"#, r#"{"choices":["a"]}"#, r#"{"choices":[[],{}]}"#] {
            assert!(stream(nonsense).contains(nonsense), "{nonsense}");
        }
        // Not a usage, and so none.
        for usage in ["5", "[1]", "\"many\""] {
            let chunk = format!(r#"{{"choices":[],"usage":{usage}}}"#);
            assert_eq!(read(&stream(&chunk)).usage, Vec::<Value>::new(), "{chunk}");
        }
        stream(r#"{"choices":[{"text":5,"delta":5,"finish_reason":{}}]}"#);
    }
}

#[test]
fn a_character_that_a_segment_cuts_is_whole() {
    let dialect = Dialect::Completions;
    let mut request = request(dialect);
    request["max_tokens"] = json!(100);
    let plan = plan(dialect, &request, 4).expect("fit");
    let stream = |segments: &[&[&str]]| {
        let mut stitcher = Stitcher::new(&plan);
        let mut out = Vec::new();
        for (at, texts) in segments.iter().enumerate() {
            let last = at + 1 == segments.len();
            let finish = if last { "stop" } else { "length" };
            let text = |text: &&str| json!({"choices": [{"text": text, "finish_reason": null}]});
            let mut chunks: Vec<Value> = texts.iter().map(text).collect();
            chunks.push(json!({"choices": [{"text": "", "finish_reason": finish}]}));
            for chunk in chunks {
                let bytes = Bytes::from(format!("data: {chunk}\n\n"));
                stitcher.take(&Piece { bytes, kind: Kind::Event }, &mut out);
            }
            let ended = stitcher.segment_ended(&mut out);
            assert_eq!(ended, if last { Ended::Over } else { Ended::Continue });
        }
        read(&String::from_utf8(out).expect("UTF-8")).text
    };
    assert_eq!(stream(&[&["caf", "\u{fffd}"], &["é", "!"]]), "café!");
    assert_eq!(stream(&[&["a\u{fffd}"], &["\u{fffd}"], &["🦀"]]), "a🦀");
    // What the model says so itself stays.
    assert_eq!(stream(&[&["a\u{fffd}", "b"], &["c\u{fffd}"]]), "a\u{fffd}bc\u{fffd}");
}
