//! The API without a socket, in paused time.

use std::time::Duration;

use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::engine::{Allowance, EngineSpec};

fn engine() -> Engine {
    Engine::start(EngineSpec::default(), Arc::new(|_| Allowance::FREE))
}

async fn send(engine: &Engine, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
    let response = engine.router().oneshot(request.expect("a request")).await.expect("an answer");
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(bytes.to_vec()).expect("text"))
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// The data of each event.
fn events(body: &str) -> Vec<&str> {
    let events = body.split_terminator("\n\n");
    events.map(|event| event.strip_prefix("data: ").expect("an event")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_chat_is_streamed_in_openais_shape() {
    let body = r#"{"model": "netdiag-demo", "messages": [{"role": "user", "content": "How are you?"}],
        "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true}}"#;
    let (status, text) = send(&engine(), Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(status, StatusCode::OK);
    let events = events(&text);
    assert_eq!((events.len(), events[8]), (9, "[DONE]"));
    let chunks: Vec<Value> = events[..8].iter().map(|event| json_of(event)).collect();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "chatcmpl-1")
    );
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let said: String = chunks[1..6]
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().expect("text"))
        .collect();
    assert_eq!(said.split_whitespace().count(), 5, "{said}");
    assert_eq!(
        chunks[6]["choices"][0],
        json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"})
    );
    assert_eq!(
        chunks[7]["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8})
    );
    assert_eq!(chunks[7]["choices"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn answers_can_be_had_whole() {
    let engine = engine();
    let body = r#"{"model": "netdiag-demo", "prompt": "Once upon a time", "max_tokens": 3}"#;
    let (status, text) = send(&engine, Method::POST, "/v1/completions", body).await;
    let answer = json_of(&text);
    assert_eq!((status, &answer["object"]), (StatusCode::OK, &json!("text_completion")));
    assert_eq!(answer["choices"][0]["text"].as_str().expect("text").split_whitespace().count(), 3);
    assert_eq!(answer["usage"]["total_tokens"], 7);
    let (_, counters) = send(&engine, Method::GET, "/v1/netdiag/counters", "").await;
    assert_eq!(json_of(&counters)["generated_tokens"], 3);
    let (_, models) = send(&engine, Method::GET, "/v1/models", "").await;
    assert!(models.contains("netdiag-demo") && models.contains("demo without a model"), "{models}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_paused_resumed_and_aborted() {
    let engine = engine();
    let body = r#"{"model": "netdiag-demo", "prompt": "x", "max_tokens": 1000, "stream": true}"#;
    let request = Request::post("/v1/completions").body(Body::from(body)).expect("a request");
    let mut body = engine.router().oneshot(request).await.expect("an answer").into_body();
    body.frame().await.expect("a first token").expect("a frame");
    let post = async |action: &str| {
        send(&engine, Method::POST, &format!("/v1/netdiag/requests/1/{action}"), "").await.0
    };
    let state = async || send(&engine, Method::GET, "/v1/netdiag/requests/1", "").await;
    assert_eq!(json_of(&state().await.1)["state"], "running");
    assert_eq!(post("pause").await, StatusCode::OK);
    // What was under way still comes.
    while tokio::time::timeout(Duration::from_secs(1), body.frame()).await.is_ok() {}
    assert_eq!(json_of(&state().await.1)["state"], "held");
    assert_eq!(post("resume").await, StatusCode::OK);
    body.frame().await.expect("another token").expect("a frame");
    assert_eq!(post("dance").await, StatusCode::NOT_FOUND);
    assert_eq!(post("abort").await, StatusCode::OK);
    while body.frame().await.is_some() {}
    assert_eq!(state().await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("abort").await, StatusCode::NOT_FOUND);
    assert_eq!(engine.totals().aborted, 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_ends_the_request() {
    let engine = engine();
    let body = r#"{"model": "netdiag-demo", "prompt": "x", "max_tokens": 1000, "stream": true}"#;
    let request = Request::post("/v1/completions").body(Body::from(body)).expect("a request");
    let mut body = engine.router().oneshot(request).await.expect("an answer").into_body();
    body.frame().await.expect("a first token").expect("a frame");
    drop(body);
    let then = engine.totals();
    assert_eq!((then.aborted, then.finished), (1, 0));
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(engine.totals(), then, "nothing is generated for nobody");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_refused_by_name() {
    let engine = engine();
    let check = async |path: &str, body: &str, status: u16, param: Value, told: &str| {
        let (found, text) = send(&engine, Method::POST, path, body).await;
        assert_eq!(found.as_u16(), status, "{body}: {text}");
        let error = &json_of(&text)["error"];
        assert_eq!(
            (&error["param"], &error["type"]),
            (&param, &json!("invalid_request_error")),
            "{text}"
        );
        assert!(error["message"].as_str().is_some_and(|message| message.contains(told)), "{text}");
    };
    let chat = "/v1/chat/completions";
    check(chat, "{", 400, Value::Null, "not JSON").await;
    check(chat, "[]", 400, Value::Null, "object").await;
    check(chat, "{}", 400, json!("model"), "netdiag-demo").await;
    check(chat, r#"{"model": "gpt"}"#, 404, json!("model"), "`gpt`").await;
    let with = |rest: &str| format!(r#"{{"model": "netdiag-demo", {rest}}}"#);
    check(chat, &with(r#""messages": []"#), 400, json!("messages"), "at least one").await;
    check(chat, &with(r#""messages": ["hi"]"#), 400, json!("messages"), "role").await;
    check("/v1/completions", &with(r#""prompt": 7"#), 400, json!("prompt"), "text").await;
    let prompt = |rest: &str| with(&format!(r#""prompt": "x", {rest}"#));
    for bad in ["0", "-1", "1.5", "\"9\"", "8193", "99999999999999999999"] {
        let body = prompt(&format!(r#""max_tokens": {bad}"#));
        check("/v1/completions", &body, 400, json!("max_tokens"), "from 1 to 8192").await;
    }
    check("/v1/completions", &prompt(r#""n": 2"#), 400, json!("n"), "one answer").await;
    check("/v1/completions", &prompt(r#""stream": 1"#), 400, json!("stream"), "true or false")
        .await;
    check("/v1/nowhere", "{}", 404, Value::Null, "no such path").await;
}
