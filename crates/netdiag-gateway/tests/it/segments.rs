//! Answers in segments, over real sockets: the client's stream is that of one request, and who vanishes costs little.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use netdiag_gateway::{Adapter, Pace, RequestLimits, Settings};
use netdiag_lab::LinkSpec;
use netdiag_lab::engine::{self, Engine};
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use crate::held::{client, in_lab, lab, until};
use crate::paced::free;
use crate::support::{Running, body, demo, exchange, post, script, settings, start, unchunked};

/// Answers that are compared.
const CASES: usize = 100;

/// Answers at once.
const AT_ONCE: usize = 8;

/// Tokens of a segment, where what is lost is measured. Fewer than the gateway reads ahead: it must not ask for more all the same.
const SEGMENT: u32 = 8;

/// Tokens that a stream may have under way: what it is sent at most within the shortest round trip, and half a second's more.
const CREDIT: f64 = MOST * (0.050 + 0.5);

/// Tokens/s at most.
const MOST: f64 = 60.0;

fn segmented(engine: SocketAddr, tokens: u32) -> Settings {
    let adapter = Adapter::Segment(NonZeroU32::new(tokens).expect("not zero"));
    Settings { adapter, ..settings(&[engine]) }
}

fn fast() -> engine::Settings {
    let step = Duration::from_micros(500);
    let model = engine::Model { step, step_per_seat: Duration::ZERO, ..engine::Model::default() };
    engine::Settings { model, ..engine::Settings::default() }
}

/// What a client makes of a stream.
#[derive(Debug, Default, PartialEq)]
struct Read {
    text: String,
    finish: Vec<String>,
    usage: Vec<Value>,
    roles: usize,
    names: usize,
    done: usize,
}

fn read(answer: &str) -> Read {
    let (head, stream) = unchunked(answer);
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let mut read = Read::default();
    let mut names = BTreeSet::new();
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            read.done += 1;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        assert!(chunk["error"].is_null(), "{chunk}");
        names.insert(format!("{} {} {}", chunk["id"], chunk["created"], chunk["model"]));
        if !chunk["usage"].is_null() {
            read.usage.push(chunk["usage"].clone());
        }
        let choice = &chunk["choices"][0];
        read.roles += usize::from(!choice["delta"]["role"].is_null());
        let text = choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str());
        read.text.push_str(text.unwrap_or(""));
        read.finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
    }
    read.names = names.len();
    read
}

/// A request and the path that it goes to.
fn request(random: &mut StdRng, story: &str) -> (&'static str, Value) {
    let mut request = json!({"stream": true, "temperature": 0, "seed": random.random_range(0..50)});
    let path = if random.random() { "/v1/chat/completions" } else { "/v1/completions" };
    if path.contains("chat") {
        request["messages"] = json!([{"role": "user", "content": "Hi"}]);
    } else {
        request["prompt"] = json!("Once more.");
    }
    if random.random() || !path.contains("chat") {
        request["max_tokens"] = json!(random.random_range(1..250));
    }
    if random.random() {
        request["stream_options"] = json!({"include_usage": true});
    }
    let stops = random.random_range(0..3usize);
    let stops = (0..stops).map(|_| {
        let length = random.random_range(1..9);
        let begin = random.random_range(0..story.len() - length);
        // It is ASCII.
        &story[begin..begin + length]
    });
    request["stop"] = json!(stops.collect::<Vec<_>>());
    (path, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_one_request() {
    let (engine, address) = demo(fast()).await;
    let mut gateways = Vec::new();
    for tokens in [1, 3, 16, 50] {
        gateways.push(start(segmented(address, tokens)).await);
    }
    let whole = r#"{"stream": true, "seed": 1, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let story = read(&exchange(address, &post("/v1/chat/completions", "", whole)).await).text;
    let story: String = story.chars().filter(char::is_ascii).collect();
    let mut random = StdRng::seed_from_u64(7);
    let cases = (0..CASES).map(|case| (case, request(&mut random, &story)));
    let cases: Vec<_> = cases.collect();
    let compared = stream::iter(&cases).map(async |(case, (path, request))| {
        let bytes = post(path, "", &request.to_string());
        let expected = read(&exchange(address, &bytes).await);
        let gateway = gateways[case % gateways.len()].address;
        let mut found = read(&exchange(gateway, &bytes).await);
        if found.finish == ["stop"] && found.usage.len() == 1 {
            // An engine counts up to where a stop sequence begins, we up to where it ends.
            let tokens = |read: &Read| read.usage[0]["completion_tokens"].as_u64();
            assert!(tokens(&found) >= tokens(&expected), "{request}: {found:?} {expected:?}");
            assert_eq!(found.usage[0]["prompt_tokens"], expected.usage[0]["prompt_tokens"]);
            found.usage.clone_from(&expected.usage);
        }
        assert_eq!(found, expected, "case {case}: {request}");
    });
    compared.buffer_unordered(AT_ONCE).collect::<()>().await;
    let asked = engine::Engine::requests(&engine).len();
    assert_eq!(asked, 0, "nothing goes on");
    // They were in segments: far more requests than answers.
    let last = exchange(address, &post("/v1/chat/completions", "", whole)).await;
    let id = last.split_once("x-request-id: chatcmpl-").expect("a name").1;
    let id: usize = id.split_once('\r').expect("a line").0.parse().expect("a number");
    assert!(id > 10 * CASES, "{id} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_continued_passes_as_it_is() {
    let (engine, address) = demo(fast()).await;
    let gateway = start(segmented(address, 5)).await;
    let tools = r#"{"stream": true, "max_tokens": 40, "tools": [{"type": "function"}],
        "messages": [{"role": "user", "content": "Hi"}]}"#;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", tools)).await;
    let (_, body) = unchunked(&answer);
    assert_eq!(body.matches("\"content\":\"").count(), 41, "the role and 40 tokens");
    let whole = r#"{"max_tokens": 40, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", whole)).await;
    assert!(answer.contains("\"object\":\"chat.completion\""), "{answer}");
    let (text, _) =
        unchunked(&exchange(gateway.address, &post("/v1/chat/completions", "", "{")).await);
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert_eq!(engine.tokens().generated, 80);
}

/// An engine that thinks aloud first: a text alone does not continue that.
#[tokio::test(flavor = "multi_thread")]
async fn thoughts_are_asked_for_as_a_whole() {
    let engine = script(|mut stream, head| async move {
        let request = body(&mut stream, &head).await.unwrap_or_default();
        let is_whole = !request.contains("\"max_tokens\":5");
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let chunk = |delta: &str| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
        let mut answer = head.to_owned() + &chunk(r#"{"role":"assistant","content":""}"#);
        answer += &chunk(r#"{"reasoning_content":"Hm."}"#);
        if is_whole {
            answer += &chunk(r#"{"content":"Hi."}"#);
            answer += "data: [DONE]\n\n";
        }
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let gateway = start(segmented(engine, 5)).await;
    let chat =
        r#"{"stream": true, "max_tokens": 40, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", chat)).await;
    let found = read(&answer);
    assert_eq!((found.text.as_str(), found.roles, found.done), ("Hi.", 1, 1), "{answer}");
    assert_eq!(answer.matches("Hm.").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_continue_ends_its_stream() {
    let check = async |refusal: &'static str, expected: &str| {
        let engine = script(move |mut stream, head| async move {
            let request = body(&mut stream, &head).await.unwrap_or_default();
            let answer = if request.contains("continue_final_message") {
                let length = refusal.len();
                format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\n\r\n{refusal}")
            } else {
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
                 data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n\
                 data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
                 data: [DONE]\n\n"
                    .to_owned()
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let gateway = start(segmented(engine, 5)).await;
        let chat = r#"{"stream": true, "messages": [{"role": "user", "content": "Hi"}]}"#;
        let answer = exchange(gateway.address, &post("/v1/chat/completions", "", chat)).await;
        assert!(answer.contains("Hi") && answer.contains(expected), "{answer}");
    };
    check("unknown field continue_final_message", "\"code\":\"engine_not_continued\"").await;
    check("This model's maximum context length is 10 tokens.", "\"finish_reason\":\"length\"")
        .await;
}

/// An engine that says "Hi", and goes on only behind so many refusals, which it counts.
async fn full(refusals: usize, refusal: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let engine = script(move |mut stream, mut head| {
        let counted = Arc::clone(&counted);
        async move {
            while let Some(request) = body(&mut stream, &head).await.filter(|_| !head.is_empty())
            {
                let chunk = |choice: &str| format!("data: {{\"choices\":[{choice}]}}\n\n");
                let (text, end) = if !request.contains("continue_final_message") {
                    ("Hi", "length")
                } else if counted.fetch_add(1, Ordering::Relaxed) < refusals {
                    let refusal = format!("HTTP/1.1 {refusal}\r\ncontent-length: 2\r\n\r\n{{}}");
                    let _ = stream.write_all(refusal.as_bytes()).await;
                    head = crate::support::head(&mut stream).await;
                    continue;
                } else {
                    (" there", "stop")
                };
                let mut events = chunk(&format!(r#"{{"delta":{{"content":"{text}"}}}}"#));
                events += &chunk(&format!(r#"{{"delta":{{}},"finish_reason":"{end}"}}"#));
                events += "data: [DONE]\n\n";
                let length = events.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{events}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                head = crate::support::head(&mut stream).await;
            }
        }
    })
    .await;
    (engine, count)
}

/// A continuation comes behind all others, and an engine may be full by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_continuation_that_there_is_no_room_for_is_asked_for_again() {
    let check = async |refusals: usize, refusal: &'static str, expected: &str, asked: usize| {
        let (engine, count) = full(refusals, refusal).await;
        let gateway = start(segmented(engine, 5)).await;
        let chat = r#"{"stream": true, "messages": [{"role": "user", "content": "Hi"}]}"#;
        let answer = exchange(gateway.address, &post("/v1/chat/completions", "", chat)).await;
        assert!(answer.contains("Hi") && answer.contains(expected), "{answer}");
        assert_eq!(count.load(Ordering::Relaxed), asked, "{refusal}");
    };
    let whole = "\"finish_reason\":\"stop\"";
    let given_up = "\"code\":\"engine_not_continued\"";
    check(1, "503 Service Unavailable", whole, 2).await;
    check(1, "429 Too Many Requests\r\nretry-after: 1", whole, 2).await;
    check(2, "429 Too Many Requests\r\nretry-after: 0", whole, 3).await;
    check(1, "429 Too Many Requests\r\nretry-after: 3600", given_up, 1).await;
    check(1, "500 Internal Server Error\r\nretry-after: 0", given_up, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_answer_holds_while_its_continuation_is_asked_for() {
    let (engine, count) = full(5, "503 Service Unavailable").await;
    let requests =
        RequestLimits { total_time: Duration::from_millis(800), ..RequestLimits::default() };
    let gateway = start(Settings { requests, ..segmented(engine, 5) }).await;
    let chat = r#"{"stream": true, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", chat)).await;
    assert!(answer.contains("Hi") && answer.contains("\"total_time_exceeded\""), "{answer}");
    assert!(count.load(Ordering::Relaxed) < 5, "it was not asked to the last");
}

/// What was generated and not handed on, while nothing is.
fn at_most_a_segment_waits(engine: &Engine, gateway: &Running) {
    let (generated, streams) = (engine.tokens().generated, gateway.gateway.streams());
    let waiting = generated - streams[0].sent;
    assert!(waiting <= u64::from(SEGMENT), "{waiting} of {generated} tokens wait: {streams:?}");
}

/// Tokens that the engine has generated, and those that have reached the client.
fn wasted(engine: &Engine, answer: &str) -> (u64, u64) {
    let received = answer.matches("\"content\":\"").count().saturating_sub(1);
    (engine.tokens().generated, received as u64)
}

fn long_chat(tokens: u32) -> Vec<u8> {
    let request = json!({"stream": true, "ignore_eos": true, "max_tokens": tokens,
        "temperature": 0, "seed": 3, "messages": [{"role": "user", "content": "Hi"}]});
    post("/v1/chat/completions", "", &request.to_string())
}

fn paced(engine: SocketAddr, hold_max: Duration) -> Settings {
    let tps = |rate| Tps::try_new(rate).expect("valid");
    let range = TpsRange::try_new(tps(5.0), tps(MOST)).expect("in order");
    let pace = Some(Pace { range, hold_max, ..free() });
    Settings { pace, ..segmented(engine, SEGMENT) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_costs_a_segment_and_its_credit() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let gateway = in_lab(&lab, paced(address, Duration::from_secs(8))).await;
    let client = client(&lab, gateway.address, &long_chat(100_000));
    until("tokens flow", || engine.tokens().generated > 150).await;
    lab.set(spec.blackout()).expect("running");
    sleep(Duration::from_millis(5800)).await;
    assert!(engine.requests().is_empty(), "it waits: {:?}", engine.requests());
    at_most_a_segment_waits(&engine, &gateway);
    until("given up", || gateway.gateway.streams().is_empty()).await;
    drop(gateway);
    drop(lab);
    let (generated, received) = wasted(&engine, &client.join().expect("no panic"));
    let wasted = generated - received;
    assert!(received > 100, "{received} of {generated}");
    assert!(wasted as f64 <= f64::from(SEGMENT) + CREDIT, "{wasted} of {generated} for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_blackout_no_more_than_a_segment_is_asked_for() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let gateway = in_lab(&lab, paced(address, Duration::from_secs(60))).await;
    let client = client(&lab, gateway.address, &long_chat(300));
    until("tokens flow", || engine.tokens().generated > 150).await;
    let before = engine.tokens().generated;
    lab.set(spec.clone().blackout()).expect("running");
    let silent = Instant::now();
    sleep(Duration::from_millis(5800).saturating_sub(silent.elapsed())).await;
    at_most_a_segment_waits(&engine, &gateway);
    let more = engine.tokens().generated - before;
    assert!(more as f64 <= f64::from(SEGMENT) + CREDIT, "{more} tokens into the silence");
    lab.set(spec).expect("running");
    let answer = client.join().expect("no panic");
    let alone = exchange(address, &long_chat(300)).await;
    assert_eq!(read(&answer), read(&alone));
}
