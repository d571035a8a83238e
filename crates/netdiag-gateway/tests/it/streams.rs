//! Event streams: the same bytes, the same events, however they come; and what is said at their end.

use netdiag_gateway::{Gateway, Settings};
use netdiag_http::Exposure;
use netdiag_lab::engine;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::support::{CHAT, before, demo, exchange, post, script, settings, start, unchunked};

/// As much of an answer as a test needs, with everything that events may have.
const ANSWER: &str = ": hello\n\nevent: x\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"b\\n\\n\"}}]}\r\n\r\ndata: two\ndata: lines\n\n\
    id: 7\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// An engine that sends the answer in these pieces.
async fn in_pieces(stream: &mut TcpStream, cuts: &[usize]) {
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.expect("sends");
    for cut in cuts.windows(2) {
        let piece = &ANSWER[cut[0]..cut[1]];
        if !piece.is_empty() {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).await.expect("sends");
            tokio::task::yield_now().await;
        }
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sends");
}

#[test]
fn bytes_are_the_engines_wherever_they_are_cut() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (sender, receiver) = std::sync::mpsc::channel::<Vec<usize>>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
    let gateway = runtime.block_on(async {
        let engine = script(move |mut stream, _| {
            let cuts = receiver.lock().expect("alone").recv().expect("cuts");
            async move {
                stream.set_nodelay(true).expect("a socket");
                in_pieces(&mut stream, &cuts).await;
            }
        })
        .await;
        before(engine).await
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
    let cuts = prop::collection::vec(0..=ANSWER.len(), 0..20);
    let tested = runner.run(&cuts, |mut cuts| {
        cuts.extend([0, ANSWER.len()]);
        cuts.sort_unstable();
        sender.send(cuts).expect("the engine is there");
        let request = post("/v1/chat/completions", "", CHAT);
        let answer = runtime.block_on(exchange(gateway.address, &request));
        prop_assert_eq!(unchunked(&answer).1, ANSWER);
        Ok(())
    });
    tested.expect("the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_engines_answer_is_the_same_with_and_without_the_gateway() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let gateway = before(engine).await;
    for (path, streamed) in
        [("/v1/chat/completions", true), ("/v1/completions", true), ("/v1/completions", false)]
    {
        let body = format!(
            r#"{{"stream": {streamed}, "seed": 5, "max_tokens": 30, "prompt": "x", "messages": [{{"role": "user", "content": "Hi"}}]}}"#
        );
        let request = post(path, "", &body);
        // Ids and times are each answer's own.
        let text = |answer: String| {
            let (_, body) = unchunked(&answer);
            let events = body.split("\n\n").filter_map(|event| {
                let data = event.strip_prefix("data: ").unwrap_or(event);
                let json: serde_json::Value = serde_json::from_str(data).ok()?;
                Some(json["choices"].to_string())
            });
            events.collect::<Vec<_>>()
        };
        let direct = text(exchange(engine, &request).await);
        let passed = text(exchange(gateway.address, &request).await);
        assert!(direct.len() > usize::from(streamed) * 20, "{direct:?}");
        assert_eq!(direct, passed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_how_it_went() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let gateway = start(Settings { pace: Some(crate::paced::free()), ..settings(&[engine]) }).await;
    let body = r#"{"stream": true, "ignore_eos": true, "max_tokens": 30, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let request = post("/v1/chat/completions", "x-netdiag-report: 1\r\n", body);
    let (head, answer) = unchunked(&exchange(gateway.address, &request).await);
    assert!(head.contains("x-netdiag-stream-id: st_"), "{head}");
    assert!(head.contains("x-accel-buffering: no"), "{head}");
    let (_, report) =
        answer.split_once("data: [DONE]\n\n: netdiag ").expect("a report behind the end");
    let report: serde_json::Value = serde_json::from_str(report.trim_end()).expect("JSON");
    assert_eq!(report["tokens"]["generated"], 30, "{report}");
    assert_eq!(report["tokens"]["sent"], 30, "{report}");
    assert_eq!(report["tokens"]["wasted"], 0, "{report}");
    for name in ["ttft_seconds", "tpot_seconds", "gap_p50_seconds", "gap_p99_seconds"] {
        assert!(report[name].as_f64().is_some_and(|time| time > 0.0), "{name} in {report}");
    }
    assert!(report["cause_seconds"]["engine"].as_f64().is_some(), "{report}");
    // Who does not is not.
    let (_, answer) =
        unchunked(&exchange(gateway.address, &post("/v1/chat/completions", "", body)).await);
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");

    let metrics = admin(&gateway.gateway, "/metrics").await;
    let has = |line: &str| assert!(metrics.contains(line), "{line} in {metrics}");
    has(
        "gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_request_model=\"\"} 2",
    );
    has("gen_ai_server_time_per_output_token_seconds_count");
    has("netdiag_gateway_tokens_total{fate=\"generated\"} 60");
    has("netdiag_gateway_streams_ended_total{end=\"complete\"} 2");
    has("netdiag_gateway_requests_total{api=\"chat\",status=\"200\"} 2");
    has("netdiag_gateway_engine_up{engine=\"http://127.0.0.1:");
    assert_eq!(admin(&gateway.gateway, "/livez").await, "ok\n");
    assert_eq!(admin(&gateway.gateway, "/readyz").await, "ok\n");
    assert_eq!(admin(&gateway.gateway, "/v1/netdiag/streams").await, r#"{"streams":[],"total":0}"#);
}

pub(crate) async fn admin(gateway: &Gateway, path: &str) -> String {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let router = gateway.admin(Exposure::try_new(listen, None, false).expect("loopback"));
    let request = axum::http::Request::get(path).body(axum::body::Body::empty()).expect("valid");
    let response = router.oneshot(request).await.expect("infallible");
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn long_silences_are_filled_with_comments() {
    let engine = script(|mut stream, _| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 22\r\n\r\ndata: 1\n\n";
        stream.write_all(head.as_bytes()).await.expect("sends");
        tokio::time::sleep(std::time::Duration::from_millis(350)).await;
        stream.write_all(b"data: [DONE]\n").await.expect("sends");
    })
    .await;
    let keep_alive = Some(std::time::Duration::from_millis(100));
    let gateway = start(Settings { keep_alive, ..settings(&[engine]) }).await;
    let (_, body) =
        unchunked(&exchange(gateway.address, &post("/v1/chat/completions", "", CHAT)).await);
    let comments = body.matches(": keep-alive\n\n").count();
    assert!((1..=4).contains(&comments), "{body}");
    assert_eq!(body.replace(": keep-alive\n\n", ""), "data: 1\n\ndata: [DONE]\n");
}
