//! The HTTP surface without sockets, in paused time: what the responses look like, and what controls do.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::super::{Model, RequestState, Settings};
use super::*;
use crate::metrics::TokenCounts;

/// An engine that generates for as long as the test runs.
fn engine_with(model: Model) -> Engine {
    let settings = Settings { model, ..Settings::default() };
    let engine = Engine::try_new(settings).expect("valid");
    let running = engine.clone();
    tokio::spawn(async move { running.run().await });
    engine
}

fn engine() -> Engine {
    engine_with(Model::default())
}

async fn ask(engine: &Engine, method: &str, path: &str, body: Value) -> Response {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::from(body.to_string())).expect("request");
    engine.router().oneshot(request).await.expect("a response")
}

async fn json_of(response: Response) -> Value {
    let body = response.into_body().collect().await.expect("body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

/// A streamed chat of so many tokens.
fn chat_of(tokens: u32) -> Value {
    json!({
        "model": "netdiag-demo",
        "messages": [{"role": "user", "content": "Tell me about the keepers"}],
        "max_tokens": tokens, "ignore_eos": true, "seed": 1, "stream": true,
    })
}

fn id_of(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().expect("text").to_owned()
}

/// The events of a body, as what follows `data: `.
async fn events(response: Response) -> Vec<String> {
    let body = response.into_body().collect().await.expect("body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    let events = text.strip_suffix("\n\n").expect("an empty line at the end").split("\n\n");
    events.map(|event| event.strip_prefix("data: ").expect("a data field").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_chat_streams_as_with_openai() {
    let engine = engine();
    let mut body = chat_of(3);
    body["stream_options"] = json!({"include_usage": true});
    let response = ask(&engine, "POST", "/v1/chat/completions", body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(
        response.headers()["server"].to_str().expect("text").starts_with("netdiag-demo-engine")
    );
    let id = id_of(&response);
    let mut events = events(response).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    for event in &events {
        assert_eq!(event["id"], id);
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["model"], "netdiag-demo");
        assert!(event["created"].as_u64() > Some(1_700_000_000));
    }
    let choices: Vec<_> = events.iter().map(|event| event["choices"][0].clone()).collect();
    assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
    for choice in &choices[1..4] {
        assert!(!choice["delta"]["content"].as_str().expect("text").is_empty());
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &Value::Null));
    }
    assert_eq!(choices[4]["delta"], json!({}));
    assert_eq!(choices[4]["finish_reason"], "length");
    assert_eq!(events.len(), 6);
    assert_eq!(events[4]["usage"], Value::Null);
    assert_eq!(events[5]["choices"], json!([]));
    let usage = json!({"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9});
    assert_eq!(events[5]["usage"], usage);
    let expected = TokenCounts { generated: 3, acked: 3, ..TokenCounts::default() };
    assert_eq!(engine.tokens(), expected);
}

#[tokio::test(start_paused = true)]
async fn whole_answers_are_the_streamed_ones() {
    let engine = engine();
    for (path, text_of, piece_of, object) in [
        (
            "/v1/chat/completions",
            "/choices/0/message/content",
            "/choices/0/delta/content",
            "chat.completion",
        ),
        ("/v1/completions", "/choices/0/text", "/choices/0/text", "text_completion"),
    ] {
        let mut body = chat_of(40);
        body["prompt"] = json!("Once upon a time");
        let streamed = events(ask(&engine, "POST", path, body.clone()).await).await;
        let pieces: String = streamed
            .iter()
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .filter_map(|event| Some(event.pointer(piece_of)?.as_str()?.to_owned()))
            .collect();
        body["stream"] = json!(false);
        let whole = ask(&engine, "POST", path, body).await;
        assert_eq!(whole.headers()["content-type"], "application/json");
        let whole = json_of(whole).await;
        assert_eq!(whole.pointer(text_of), Some(&json!(pieces)));
        assert_eq!(whole["object"], object);
        assert_eq!(whole["usage"]["completion_tokens"], 40);
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
    }
    let counts = engine.tokens();
    assert_eq!((counts.generated, counts.acked), (160, 160));
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_the_time_of_its_steps() {
    let engine = engine();
    let start = tokio::time::Instant::now();
    events(ask(&engine, "POST", "/v1/chat/completions", chat_of(100)).await).await;
    // Six prompt tokens of 50 µs once, and a step of 20.2 + 0.15 ms for each.
    let expected = Duration::from_micros(6 * 50 + 100 * 20_350);
    let took = start.elapsed();
    assert!(took >= expected && took < expected + Duration::from_millis(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_model_says_what_it_is() {
    let engine = engine();
    let list = json_of(ask(&engine, "GET", "/v1/models", Value::Null).await).await;
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("netdiag-demo")));
    assert!(list["data"][0]["description"].as_str().expect("text").contains("no model"));
    let one = json_of(ask(&engine, "GET", "/v1/models/netdiag-demo", Value::Null).await).await;
    assert_eq!(one, list["data"][0]);
    assert_eq!(ask(&engine, "GET", "/v1/models/gpt-4", Value::Null).await.status(), 404);
}

#[tokio::test(start_paused = true)]
async fn errors_have_openais_shape() {
    let engine = engine();
    let check = async |method: &str, path: &str, status: u16| {
        let response = ask(&engine, method, path, Value::Null).await;
        assert_eq!(response.status(), status, "{method} {path}");
        let error = json_of(response).await["error"].clone();
        let members: Vec<_> = error.as_object().expect("object").keys().cloned().collect();
        assert_eq!(members, ["code", "message", "param", "type"]);
    };
    check("POST", "/v1/chat/completions", 400).await;
    check("GET", "/v1/chat/completions", 405).await;
    check("GET", "/v2", 404).await;
    check("GET", "/v1/netdiag/requests/chatcmpl-7", 404).await;
    check("POST", "/v1/netdiag/requests/chatcmpl-7/pause", 404).await;
    let huge = json!({"model": "x".repeat(LARGEST_BODY)});
    assert_eq!(ask(&engine, "POST", "/v1/completions", huge).await.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_full_says_so() {
    let seats = std::num::NonZeroUsize::MIN;
    let engine = engine_with(Model { seats, queue: 1, ..Model::default() });
    let streams = [
        ask(&engine, "POST", "/v1/chat/completions", chat_of(5)).await,
        ask(&engine, "POST", "/v1/chat/completions", chat_of(5)).await,
    ];
    let refused = ask(&engine, "POST", "/v1/chat/completions", chat_of(5)).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &HeaderValue::from_static("1"))
    );
    let error = json_of(refused).await["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("overloaded")));
    for stream in streams {
        assert_eq!(events(stream).await.len(), 1 + 5 + 1 + 1);
    }
    let long = json!({"model": "netdiag-demo", "prompt": "x ".repeat(300_000)});
    let error = json_of(ask(&engine, "POST", "/v1/completions", long).await).await["error"].clone();
    assert_eq!(error["code"], "context_length_exceeded");
}

/// What `action` on the request answers, and the status.
async fn control(engine: &Engine, id: &str, action: &str) -> (u16, Value) {
    let path = format!("/v1/netdiag/requests/{id}/{action}");
    let response = ask(engine, "POST", &path, Value::Null).await;
    (response.status().as_u16(), json_of(response).await)
}

#[tokio::test(start_paused = true)]
async fn a_paused_request_generates_nothing_until_it_is_resumed() {
    let engine = engine();
    let response = ask(&engine, "POST", "/v1/chat/completions", chat_of(100)).await;
    let id = id_of(&response);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, view) = control(&engine, &id, "pause").await;
    assert_eq!((status, &view["state"]), (200, &json!("paused")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let path = format!("/v1/netdiag/requests/{id}");
    let paused = json_of(ask(&engine, "GET", &path, Value::Null).await).await;
    // The step under way is the last.
    let generated = paused["generated"].as_u64().expect("a number");
    assert!(generated <= view["generated"].as_u64().expect("a number") + 1, "{paused}");
    assert!((20..30).contains(&generated), "{paused}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(json_of(ask(&engine, "GET", &path, Value::Null).await).await, paused);
    let (status, view) = control(&engine, &id, "resume").await;
    assert_eq!((status, &view["state"]), (200, &json!("running")));
    assert_eq!(events(response).await.len(), 1 + 100 + 1 + 1);
    for action in ["pause", "resume"] {
        assert_eq!(control(&engine, &id, action).await.0, 409, "{action}");
    }
    // Nothing is to be done, and it is known how it ended.
    let (status, view) = control(&engine, &id, "abort").await;
    assert_eq!(
        (status, &view["state"], &view["finish_reason"]),
        (200, &json!("finished"), &json!("length"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_aborted_request_ends_with_what_was_generated() {
    let engine = engine();
    let response = ask(&engine, "POST", "/v1/chat/completions", chat_of(100)).await;
    let id = id_of(&response);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, view) = control(&engine, &id, "abort").await;
    assert_eq!(
        (status, &view["state"], &view["finish_reason"]),
        (200, &json!("finished"), &json!("abort"))
    );
    let events = events(response).await;
    let generated = view["generated"].as_u64().expect("a number");
    assert_eq!(events.len() as u64, 1 + generated + 1 + 1);
    assert!(events[events.len() - 2].contains(r#""finish_reason":"abort""#), "{events:?}");
    let expected = TokenCounts { generated, acked: generated, ..TokenCounts::default() };
    assert_eq!(engine.tokens(), expected);
    assert_eq!(engine.occupancy(), crate::engine::Occupancy::default());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_aborts_its_request() {
    let engine = engine();
    let mut response = ask(&engine, "POST", "/v1/chat/completions", chat_of(100)).await;
    let id = id_of(&response);
    for _ in 0..3 {
        // Each frame is one token; the first has the role before it.
        response.body_mut().frame().await.expect("a frame").expect("data");
    }
    tokio::time::sleep(Duration::from_millis(205)).await;
    drop(response);
    let view = engine.request(&id).expect("known");
    assert_eq!(
        (view.state, view.finish_reason),
        (RequestState::Finished, Some(super::super::Finish::Abort))
    );
    // Ten steps' tokens waited for a reader.
    let expected = TokenCounts { generated: 13, acked: 3, in_flight: 0, wasted: 10 };
    assert_eq!(view.tokens, expected);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(engine.tokens(), expected);
    let scraped = ask(&engine, "GET", "/metrics", Value::Null).await;
    assert!(scraped.headers()["content-type"].to_str().expect("text").contains("version=0.0.4"));
    let scraped = scraped.into_body().collect().await.expect("body").to_bytes();
    let scraped = std::str::from_utf8(&scraped).expect("UTF-8");
    for line in [
        "# TYPE netdiag_engine_generated_tokens_total counter",
        "netdiag_engine_generated_tokens_total 13",
        "netdiag_engine_acked_tokens_total 3",
        "netdiag_engine_wasted_tokens_total 10",
        "netdiag_engine_in_flight_tokens 0",
        "netdiag_engine_aborted_requests_total 1",
        "netdiag_engine_aborted_tokens_total 13",
        "netdiag_engine_queued_requests 0",
    ] {
        assert!(scraped.lines().any(|found| found == line), "no `{line}` in {scraped}");
    }

    // The same without streaming.
    let mut body = chat_of(100);
    body["stream"] = json!(false);
    let pending = ask(&engine, "POST", "/v1/chat/completions", body);
    assert!(tokio::time::timeout(Duration::from_millis(205), pending).await.is_err());
    assert_eq!(engine.tokens(), TokenCounts { generated: 23, acked: 3, in_flight: 0, wasted: 20 });
    assert_eq!(engine.requests(), []);
}

#[tokio::test(start_paused = true)]
async fn a_pace_holds_and_limits() {
    use netdiag_telemetry::Tps;

    use crate::engine::Pace;

    let engine = engine();
    let response = ask(&engine, "POST", "/v1/chat/completions", chat_of(200)).await;
    engine.pace(|_| Pace { rate: None, hold: true });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = engine.requests().remove(0);
    assert_eq!((view.state, view.tokens.generated), (RequestState::Held, 0));
    let rate = Tps::try_new(10.0).expect("valid");
    engine.pace(move |_| Pace { rate: Some(rate), hold: false });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let generated = engine.tokens().generated;
    assert!((99..=103).contains(&generated), "{generated} tokens in 10 s at 10 a second");
    engine.pace(|_| Pace::default());
    events(response).await;
    assert_eq!(engine.tokens().generated, 200);
}

#[tokio::test(start_paused = true)]
async fn the_length_of_an_answer_is_the_models_unless_it_is_told() {
    let settings =
        Settings { answer_tokens: NonZeroU32::new(12).expect("not zero"), ..Settings::default() };
    let engine = Engine::try_new(settings).expect("valid");
    let running = engine.clone();
    tokio::spawn(async move { running.run().await });
    let body = json!({"model": "netdiag-demo", "prompt": "Go on"});
    let whole = json_of(ask(&engine, "POST", "/v1/completions", body).await).await;
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
}

#[tokio::test(start_paused = true)]
async fn one_slow_reader_keeps_no_others_in_memory_and_their_counts_stay_known() {
    let engine = engine();
    let one = json!({"prompt": "x", "max_tokens": 1, "ignore_eos": true, "stream": true});
    // Generated, and never taken.
    let slow = ask(&engine, "POST", "/v1/completions", one.clone()).await;
    let most = super::super::REMEMBERED;
    for _ in 0..most + 100 {
        events(ask(&engine, "POST", "/v1/completions", one.clone()).await).await;
    }
    assert_eq!(engine.core().finished.len(), most);
    let first = "cmpl-1";
    assert!(engine.request(first).is_err(), "it is long ago");
    let expected = TokenCounts { generated: 1, acked: 1, ..TokenCounts::default() };
    assert_eq!(engine.counts(first), Some(expected));
    assert_eq!(engine.counts(&id_of(&slow)).map(|counts| counts.in_flight), Some(1));
    let tokens = engine.tokens();
    let all = most as u64 + 101;
    assert_eq!((tokens.generated, tokens.in_flight, tokens.acked), (all, 1, all - 1));
    for unknown in ["cmpl-999999", "chatcmpl-9999999999999999999999", "cmpl", ""] {
        assert_eq!(engine.counts(unknown), None, "{unknown}");
    }
    // The number is right, the kind is not.
    assert!(engine.request(&format!("chatcmpl-{all}")).is_err());
}
