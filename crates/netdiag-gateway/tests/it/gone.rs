//! A client that leaves: its engine learns of it at once, whatever was going on.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use netdiag_gateway::Adapter;
use netdiag_http::Exposure;
use netdiag_lab::engine::{Engine, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::streams::admin;
use crate::support::{PATIENCE, Running, before, demo, post, script, settings, start};

/// Clients that leave, in each way.
const CLIENTS: usize = 50;

/// Tries.
const ROUNDS: usize = 5;

/// What the issue promises.
const WITHIN: Duration = Duration::from_millis(50);

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum How {
    /// It closes its connection.
    Fin,
    /// It ends its half of it, and would still read.
    HalfClose,
    /// It is killed with bytes unread.
    Rst,
}

async fn leave(mut stream: TcpStream, how: How) -> Option<TcpStream> {
    match how {
        How::Fin => drop(stream),
        How::HalfClose => {
            stream.shutdown().await.expect("half closed");
            return Some(stream);
        }
        How::Rst => {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    }
    None
}

/// Runs rounds of clients until one is within the bound: what else the machine does only makes it worse.
async fn best_of(how: How, mut once: impl AsyncFnMut() -> Duration) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut times = Vec::new();
        for _ in 0..CLIENTS {
            times.push(once().await);
        }
        times.sort();
        // Of so few, the 99th percentile is the last but one.
        let p99 = times[CLIENTS - 2];
        if p99 <= WITHIN {
            return;
        }
        rounds.push((times[CLIENTS / 2], p99));
    }
    panic!("{how:?}: medians and 99th percentiles {rounds:?}");
}

fn long_chat() -> Vec<u8> {
    let body = r#"{"model": "netdiag-demo", "stream": true, "ignore_eos": true, "max_tokens": 100000,
        "messages": [{"role": "user", "content": "Hi"}]}"#;
    post("/v1/chat/completions", "", body)
}

/// Time until the engine has nothing to do and the gateway has no stream, of one client that leaves in the middle of its. Between two
/// segments the one alone would say nothing.
async fn while_streaming(gateway: &Running, engine: &Engine, how: How) -> Duration {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&long_chat()).await.expect("sends");
    let mut bytes = [0; 1024];
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"content\":\"") || seen.len() < 2000 {
        let read = stream.read(&mut bytes).await.expect("reads");
        seen.extend_from_slice(&bytes[..read]);
    }
    let left = Instant::now();
    let _half = leave(stream, how).await;
    timeout(PATIENCE, async {
        while !engine.requests().is_empty() || !gateway.gateway.streams().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("aborted");
    left.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_stream() {
    let (engine, address) = demo(Settings::default()).await;
    let gateway = before(address).await;
    for how in [How::Fin, How::HalfClose, How::Rst] {
        best_of(how, async || while_streaming(&gateway, &engine, how).await).await;
    }
    // The connection to the engine went with each of them.
    assert_eq!(engine.occupancy().admitted, 0);
}

/// The same for engines that are held in other ways.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_segment_or_of_a_stream_that_may_pause() {
    let (engine, address) = demo(Settings::default()).await;
    for adapter in [Adapter::Segment(NonZeroU32::MIN.saturating_add(7)), Adapter::Netdiag] {
        let gateway = start(netdiag_gateway::Settings { adapter, ..settings(&[address]) }).await;
        for how in [How::Fin, How::Rst] {
            best_of(how, async || while_streaming(&gateway, &engine, how).await).await;
        }
        let generated = engine.tokens().generated;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(engine.tokens().generated, generated, "{adapter:?}: nobody asks for more");
    }
}

/// The same before the engine has answered: it sees its connection end.
#[tokio::test(flavor = "multi_thread")]
async fn while_it_waits() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let engine = script(move |mut stream, head| {
        let sender = sender.clone();
        async move {
            let _ = crate::support::body(&mut stream, &head).await;
            let _ = sender.send(Instant::now());
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = sender.send(Instant::now());
        }
    })
    .await;
    let gateway = before(engine).await;
    for how in [How::Fin, How::HalfClose, How::Rst] {
        let mut once = async || {
            let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
            stream.write_all(&long_chat()).await.expect("sends");
            events.recv().await.expect("the request");
            let left = Instant::now();
            let _half = leave(stream, how).await;
            timeout(PATIENCE, events.recv()).await.expect("in time").expect("the end") - left
        };
        best_of(how, &mut once).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_be_ended_by_its_name() {
    let (engine, address) = demo(Settings::default()).await;
    let gateway = before(address).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&long_chat()).await.expect("sends");
    let head = crate::support::head(&mut stream).await;
    let id = head.lines().find_map(|line| line.strip_prefix("x-netdiag-stream-id: "));
    let id = id.unwrap_or_else(|| panic!("a name in {head}"));
    let shown = gateway.gateway.streams()[0].id.clone();
    assert!(id.starts_with(&shown) && id.len() - shown.len() == 20, "{shown} of {id}");
    let delete = |id: &str| {
        format!("DELETE /v1/netdiag/streams/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    };
    // Who sees the list does not know the name.
    let answer = crate::support::exchange(gateway.address, delete(&shown).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let answer = crate::support::exchange(gateway.address, delete(id).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end").expect("reads");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("\"code\":\"stopped\"") && rest.ends_with("0\r\n\r\n"), "{rest}");
    timeout(PATIENCE, async {
        while engine.aborted().requests == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("aborted");
    let again = crate::support::exchange(gateway.address, delete(id).as_bytes()).await;
    assert!(again.starts_with("HTTP/1.1 404"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_the_gateway_may_end_a_stream_of_the_list() {
    let (engine, address) = demo(Settings::default()).await;
    let gateway = before(address).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&long_chat()).await.expect("sends");
    crate::support::head(&mut stream).await;
    let listed = admin(&gateway.gateway, "/v1/netdiag/streams").await;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let shown = listed["streams"][0]["id"].as_str().expect("a name").to_owned();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let router = gateway.gateway.admin(Exposure::try_new(listen, None, false).expect("loopback"));
    let delete = |id: &str| {
        let request = hyper::Request::delete(format!("/v1/netdiag/streams/{id}"));
        request.header("host", "localhost").body(axum::body::Body::empty()).expect("valid")
    };
    let other = router.clone().oneshot(delete("st_0123456789ab")).await.expect("infallible");
    assert_eq!(other.status(), 404);
    let answer = router.oneshot(delete(&shown)).await.expect("infallible");
    assert_eq!(answer.status(), 204);
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end").expect("reads");
    assert!(String::from_utf8_lossy(&rest).contains("\"code\":\"stopped\""));
    crate::held::until("aborted", || engine.aborted().requests == 1).await;
}
