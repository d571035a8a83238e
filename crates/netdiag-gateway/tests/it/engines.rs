//! Several engines: who is asked, who is asked next, and who is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netdiag_gateway::HealthCheck;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{CHAT, PATIENCE, exchange, get, post, says, script, settings, start};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An engine that counts the requests which it breaks off.
async fn breaks_off() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let engine = script(move |stream, head| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { drop((stream, head)) }
    });
    (engine.await, count)
}

#[tokio::test]
async fn another_engine_is_asked_before_the_first_byte_and_only_then() {
    let check = async |request: Vec<u8>, status: &str, asked_twice: bool| {
        let (broken, count) = breaks_off().await;
        let gateway = start(settings(&[broken, says(OK).await])).await;
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(exchange(gateway.address, &request).await);
        }
        assert!(count.load(Ordering::Relaxed) >= 1);
        let good = statuses.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
        assert_eq!(good, if asked_twice { 2 } else { 1 }, "{} {statuses:?}", request.len());
        assert!(statuses.iter().any(|answer| answer.starts_with(status)), "{statuses:?}");
    };
    check(post("/v1/chat/completions", "", CHAT), "HTTP/1.1 200", true).await;
    check(get("/v1/models"), "HTTP/1.1 200", true).await;
    // Who knows what these do.
    check(post("/v1/responses", "", CHAT), "HTTP/1.1 502", false).await;
    check(post("/v1/files", "", "x"), "HTTP/1.1 502", false).await;
    // Too long to be sent again.
    check(post("/v1/chat/completions", "", &"x".repeat(2 << 20)), "HTTP/1.1 502", false).await;
}

#[tokio::test]
async fn where_nobody_listens_any_request_goes_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let nobody = listener.local_addr().expect("bound");
    drop(listener);
    let engine = script(|mut stream, head| async move {
        let length =
            crate::support::body(&mut stream, &head).await.expect("a body").len().to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}", length.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let gateway = start(settings(&[nobody, engine.await])).await;
    for _ in 0..4 {
        let answer = exchange(gateway.address, &post("/v1/files", "", &"x".repeat(2 << 20))).await;
        assert!(answer.ends_with("\r\n\r\n2097152"), "{answer}");
    }
}

#[tokio::test]
async fn an_engine_that_comes_back_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let late = listener.local_addr().expect("bound");
    drop(listener);
    let health = HealthCheck { every: Duration::from_millis(20), ..HealthCheck::default() };
    let gateway = start(netdiag_gateway::Settings { health, ..settings(&[late]) }).await;
    assert!(exchange(gateway.address, &get("/")).await.starts_with("HTTP/1.1 502"));
    let listener = TcpListener::bind(late).await.expect("bind");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = crate::support::head(&mut stream).await;
            let _ = stream.write_all(OK.as_bytes()).await;
        }
    });
    let back = async {
        while !gateway.gateway.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("well again");
    assert!(exchange(gateway.address, &get("/")).await.ends_with("ok"));
}

#[tokio::test]
async fn requests_go_where_the_fewest_are() {
    let hangs = script(|stream: TcpStream, _| async move {
        tokio::time::sleep(PATIENCE).await;
        drop(stream);
    })
    .await;
    let gateway = start(settings(&[hangs, says(OK).await])).await;
    let address = gateway.address;
    // One of the first two hangs; while it does, all others are answered.
    let mut first: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { exchange(address, &get("/")).await })).collect();
    let (answer, done, _) = futures_util::future::select_all(&mut first).await;
    assert!(answer.expect("no panic").ends_with("ok"));
    for _ in 0..10 {
        assert!(exchange(address, &get("/")).await.ends_with("ok"));
    }
    first.swap_remove(done);
    first.iter().for_each(tokio::task::JoinHandle::abort);
}
