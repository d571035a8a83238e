//! How a gateway ends under load: nobody is cut off in the middle of an event.

use std::time::Duration;

use netdiag_gateway::Settings;
use netdiag_lab::engine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{
    PATIENCE, Running, demo, exchange, get, post, script, settings, start, unchunked,
};

/// Streams of this many tokens, and what their clients have in the end.
async fn streams(gateway: &mut Running, count: usize, tokens: usize) -> Vec<String> {
    let body = format!(
        r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    let request = post("/v1/chat/completions", "", &body);
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        stream.write_all(&request).await.expect("sends");
        let mut first = vec![0; 1];
        stream.read_exact(&mut first).await.expect("has begun");
        clients.push(tokio::spawn(async move {
            timeout(PATIENCE, stream.read_to_end(&mut first))
                .await
                .expect("an end")
                .expect("reads");
            String::from_utf8_lossy(&first).into_owned()
        }));
    }
    gateway.stop();
    let mut ends = Vec::new();
    for client in clients {
        let (head, body) = unchunked(&client.await.expect("no panic"));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        for event in body.split_terminator("\n\n") {
            let data =
                event.strip_prefix("data: ").unwrap_or_else(|| panic!("an event: {event:?}"));
            let json = serde_json::from_str::<serde_json::Value>(data);
            assert!(data == "[DONE]" || json.is_ok(), "{data}");
        }
        assert!(body.ends_with("\n\n"), "{body}");
        let last = body.trim_end().rsplit("\n\n").next().expect("an event").to_owned();
        ends.push(last);
    }
    timeout(PATIENCE, &mut gateway.task).await.expect("ends").expect("no panic");
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_end_in_time_are_whole() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let mut gateway = start(settings(&[engine])).await;
    let ends = streams(&mut gateway, 20, 40).await;
    assert!(ends.iter().all(|end| end == "data: [DONE]"), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_get_a_last_event() {
    let (counts, engine) = demo(engine::Settings::default()).await;
    let drain = Duration::from_millis(300);
    let mut gateway = start(Settings { drain, ..settings(&[engine]) }).await;
    let ends = streams(&mut gateway, 20, 100_000).await;
    assert!(ends.iter().all(|end| end.contains("\"code\":\"gateway_draining\"")), "{ends:?}");
    timeout(PATIENCE, async {
        while counts.occupancy().admitted > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the engine's work ends with them");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_new_is_let_in_and_who_waits_is_told() {
    let silent = script(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let drain = Duration::from_millis(500);
    let mut gateway = start(Settings { drain, ..settings(&[silent]) }).await;
    let address = gateway.address;
    let mut kept = TcpStream::connect(address).await.expect("connects");
    let waiting = tokio::spawn(async move { exchange(address, &get("/v1/models")).await });
    // An idle connection ends, one that waits for an answer is told that there will be none.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.stop();
    let answer = waiting.await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("gateway_draining"), "{answer}");
    let mut rest = Vec::new();
    timeout(PATIENCE, kept.read_to_end(&mut rest)).await.expect("an end").expect("reads");
    timeout(PATIENCE, &mut gateway.task).await.expect("ends").expect("no panic");
    assert!(TcpStream::connect(address).await.is_err(), "still listening");
}

/// Pools of connections open some before they need them.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_said_anything_holds_up_nothing() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let drain = 2 * PATIENCE;
    let mut gateway = start(Settings { drain, ..settings(&[engine]) }).await;
    let mut kept = TcpStream::connect(gateway.address).await.expect("connects");
    // Behind it in the queue, so that it is being served.
    exchange(gateway.address, &get("/v1/models")).await;
    gateway.stop();
    timeout(PATIENCE, &mut gateway.task).await.expect("ends").expect("no panic");
    timeout(PATIENCE, kept.read_to_end(&mut Vec::new())).await.expect("an end").expect("reads");
}
