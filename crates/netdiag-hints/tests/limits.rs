//! The server's limits over real sockets: what a client can send, hold and wait for.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use netdiag_hints::{Board, Options, router};
use netdiag_http::{Exposure, GivenUp, Limits, serve};
use netdiag_pacer::{Hint, TpsRange, WhenStale};
use netdiag_telemetry::{Scope, Tps};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    given_up: GivenUp,
    task: tokio::task::JoinHandle<()>,
    boards: watch::Sender<Arc<Board>>,
}

fn board(range: TpsRange) -> Arc<Board> {
    let host = Hint::unknown(range, &Scope::Host, "test");
    Arc::new(Board::new(host, BTreeMap::new(), Vec::new(), Some(Instant::now())))
}

fn range() -> TpsRange {
    let tps = |n| Tps::try_new(n).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

async fn start(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let boards = watch::Sender::new(board(range()));
    let given_up = GivenUp::default();
    let options = Options {
        range: range(),
        stale_after: Duration::from_secs(60),
        when_stale: WhenStale::Max,
        exposure: Exposure::try_new(address, None, false).expect("loopback"),
        bus: None,
        given_up: given_up.clone(),
        exports: None,
        pseudonyms: None,
    };
    let (stop, stopped) = oneshot::channel();
    let router = router(boards.subscribe(), options);
    let task = tokio::spawn(serve(listener, router, limits, given_up.clone(), async {
        let _ = stopped.await;
    }));
    Server { address, stop, given_up, task, boards }
}

/// Sends `bytes` and reads until the server closes the connection.
async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(bytes).await.expect("send");
    let mut answer = Vec::new();
    // A reset after the answer (unread input) is as good as an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(extra: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{extra}\r\n").into_bytes()
}

#[tokio::test]
async fn requests_within_the_limits_are_answered() {
    let server = start(Limits::default()).await;
    let answer = exchange(&server, &get("")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"current_tps\":80.0"),
        "{answer}"
    );
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let server = start(Limits::default()).await;
    let check = async |request: Vec<u8>, expected: &str| {
        let answer = exchange(&server, &request).await;
        assert!(answer.starts_with(expected), "{answer}");
    };
    check(get(&format!("x: {}\r\n", "y".repeat(20_000))), "HTTP/1.1 431").await;
    check(get(&"x: y\r\n".repeat(100)), "HTTP/1.1 431").await;
    check(get("content-length: 1000000\r\n"), "HTTP/1.1 413").await;
    check(get("transfer-encoding: chunked\r\n"), "HTTP/1.1 413").await;
    check(b"nonsense\r\n\r\n".to_vec(), "HTTP/1.1 400").await;
    // And it still serves.
    check(get(""), "HTTP/1.1 200").await;
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let limits = Limits { head_time: Duration::from_millis(200), ..Limits::default() };
    let server = start(limits).await;
    assert_eq!(exchange(&server, b"GET / HTTP/1.1\r\nhost: lo").await, "");
    let idle = exchange(&server, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let server = start(Limits { connections: 2, ..Limits::default() }).await;
    let held = [
        TcpStream::connect(server.address).await.expect("connect"),
        TcpStream::connect(server.address).await.expect("connect"),
    ];
    let answer = exchange(&server, &[]).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    drop(held);
    // The places come free as soon as the server notices.
    timeout(PATIENCE, async {
        while !exchange(&server, &get("")).await.starts_with("HTTP/1.1 200") {}
    })
    .await
    .expect("served again");
}

#[tokio::test]
async fn a_stuck_event_client_neither_grows_nor_blocks_the_server() {
    let server = start(Limits::default()).await;
    let mut stuck = TcpStream::connect(server.address).await.expect("connect");
    stuck.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("send");
    // Megabytes of events that nobody reads; only the newest board is ever kept.
    for _ in 0..10_000 {
        server.boards.send_replace(board(range()));
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&server.boards.borrow()), 1);
    assert!(exchange(&server, &get("")).await.starts_with("HTTP/1.1 200"));
    // Stopping does not wait for it either.
    server.stop.send(()).expect("running");
    timeout(PATIENCE, server.task).await.expect("stops").expect("no panic");
}

#[tokio::test]
async fn clients_that_do_not_read_lose_their_place() {
    let limits =
        Limits { connections: 2, send_time: Duration::from_millis(500), ..Limits::default() };
    let server = start(limits).await;
    // Far more answers than fit into the buffers on the way.
    let requests = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2000);
    let mut stuck = Vec::new();
    for _ in 0..limits.connections {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        // The server stops reading when it cannot send, so not all may leave.
        let _ = timeout(Duration::from_millis(500), stream.write_all(&requests)).await;
        stuck.push(stream);
    }
    let start = Instant::now();
    while !exchange(&server, &get("")).await.starts_with("HTTP/1.1 200 OK") {
        assert!(start.elapsed() < 2 * PATIENCE, "still busy");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(server.given_up.count() >= 1, "{:?}", server.given_up);
    drop(stuck);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_ask_again() {
    let limits = Limits { rate: NonZeroU32::new(5), ..Limits::default() };
    let server = start(limits).await;
    let mut refused = None;
    for _ in 0..20 {
        let answer = exchange(&server, &get("")).await;
        if !answer.starts_with("HTTP/1.1 200") {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("twenty connections are made within three seconds");
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1\r\n"),
        "{refused}"
    );
    assert!(refused.contains("\"status\":429") && server.given_up.too_often() >= 1, "{refused}");
    // It is a visitor's and not a connection's, and it passes.
    timeout(PATIENCE, async {
        while !exchange(&server, &get("")).await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("served again");
}
