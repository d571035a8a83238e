//! What engines do wrong, and what their clients are told.

use std::time::Duration;

use netdiag_gateway::RequestLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{CHAT, before, exchange, get, post, says, script, settings, start, unchunked};

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The status of a chat, its code, and that nothing of the engine is told.
async fn refusal(gateway: std::net::SocketAddr, engine: std::net::SocketAddr) -> (u16, String) {
    let answer = exchange(gateway, &post("/v1/chat/completions", "", CHAT)).await;
    let (head, body) = unchunked(&answer);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!answer.contains(&engine.port().to_string()), "{answer}");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    (status, body["error"]["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn without_an_answer_the_status_says_why() {
    let check = async |engine, status: u16, code: &str| {
        let gateway = before(engine).await;
        assert_eq!(refusal(gateway.address, engine).await, (status, code.to_owned()));
    };
    // Bound and let go: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let nobody = listener.local_addr().expect("bound");
    drop(listener);
    check(nobody, 502, "engine_unreachable").await;
    check(says("").await, 502, "engine_no_answer").await;
    check(says("HTTP/1.1 200 OK\r\ncontent-ty").await, 502, "engine_no_answer").await;
    check(says("\x16\x03\x01 this is no HTTP\r\n\r\n").await, 502, "engine_malformed_answer").await;
    check(says("HTTP/1.1 abc OK\r\n\r\n").await, 502, "engine_malformed_answer").await;
    check(
        says("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab").await,
        502,
        "engine_malformed_answer",
    )
    .await;
    let reset = script(|stream, _| async move {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    });
    check(reset.await, 502, "engine_no_answer").await;
    let endless = script(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-y: zzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n").await.is_ok() {}
    });
    check(endless.await, 502, "engine_malformed_answer").await;
}

#[tokio::test]
async fn an_engine_that_never_answers_is_given_up() {
    let silent = script(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let requests =
        RequestLimits { head_time: Duration::from_millis(100), ..RequestLimits::default() };
    let gateway = start(netdiag_gateway::Settings { requests, ..settings(&[silent]) }).await;
    assert_eq!(refusal(gateway.address, silent).await, (504, "engine_timeout".to_owned()));
    let other = exchange(gateway.address, &get("/other")).await;
    assert!(
        other.starts_with("HTTP/1.1 504") && other.contains("application/problem+json"),
        "{other}"
    );
}

#[tokio::test]
async fn an_error_of_the_engine_passes() {
    let engine = says("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops").await;
    let gateway = before(engine).await;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.ends_with("oops"), "{answer}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_event() {
    let first = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let check = async |path: &str, rest: &str, event: &str| {
        let head = format!("{STREAM}transfer-encoding: chunked\r\n\r\n{}", chunk(first));
        let gateway = before(says(head + rest).await).await;
        let (head, body) = unchunked(&exchange(gateway.address, &post(path, "", CHAT)).await);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let last =
            body.strip_prefix(first).unwrap_or_else(|| panic!("the first event in {body:?}"));
        assert!(last.starts_with(event) && last.ends_with("}\n\n"), "{last:?}");
        assert!(last.contains("broke off"), "{last}");
        assert_eq!(last.matches("\n\n").count(), 1, "{last:?}");
    };
    let half = chunk("data: {\"choices\":[{\"del");
    check("/v1/chat/completions", "", "data: {\"error\":{").await;
    check("/v1/chat/completions", &half, "data: {\"error\":{").await;
    check("/v1/completions", "zzz\r\n", "data: {\"error\":{").await;
    check("/v1/messages", &half, "event: error\ndata: {\"error\":{").await;
    check("/v1/responses", "5\r\nda", "event: error\ndata: {\"code\":\"engine_broke_off\"").await;
}

#[tokio::test]
async fn other_answers_that_break_off_are_cut_off() {
    let engine = says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let answer = exchange(before(engine).await.address, &get("/file")).await;
    assert!(answer.contains("content-length: 100") && answer.ends_with("half"), "{answer}");
    let engine = says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let answer = exchange(before(engine).await.address, &get("/file")).await;
    assert!(answer.ends_with("4\r\nhalf\r\n"), "{answer}");
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends_with_an_event() {
    let silent = script(|mut stream, _| async move {
        let head =
            format!("{STREAM}transfer-encoding: chunked\r\n\r\n{}", chunk("data: 1\n\ndata"));
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let check = async |requests, code: &str| {
        let gateway = start(netdiag_gateway::Settings { requests, ..settings(&[silent]) }).await;
        let request = post("/v1/chat/completions", "", CHAT);
        let (_, body) = unchunked(&exchange(gateway.address, &request).await);
        assert!(body.starts_with("data: 1\n\ndata: {\"error\"") && body.contains(code), "{body}");
    };
    let soon = Duration::from_millis(200);
    check(RequestLimits { silent_time: soon, ..RequestLimits::default() }, "engine_timeout").await;
    check(RequestLimits { total_time: soon, ..RequestLimits::default() }, "total_time_exceeded")
        .await;
}

#[tokio::test]
async fn what_is_no_event_stream_after_all_passes_as_bytes() {
    let endless = "x".repeat(17 << 20);
    let engine = says(format!("{STREAM}content-length: {}\r\n\r\n{endless}", endless.len())).await;
    let gateway = before(engine).await;
    let answer = exchange(gateway.address, &post("/v1/chat/completions", "", CHAT)).await;
    assert!(unchunked(&answer).1 == endless);
}
