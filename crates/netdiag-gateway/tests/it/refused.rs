//! What clients may not do: requests that two readers understand differently, endless ones, and too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netdiag_gateway::{RequestLimits, Settings};
use netdiag_http::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{
    CHAT, PATIENCE, Running, before, exchange, get, post, script, settings, start,
};

/// An engine that answers, and counts the requests that reach it.
async fn counting() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let engine = script(move |mut stream, head| {
        let counted = Arc::clone(&counted);
        async move {
            // Whose body never ends whole is no request to anybody.
            if crate::support::body(&mut stream, &head).await.is_none() {
                return;
            }
            // Whatever was smuggled would be seen as a request of its own.
            counted.fetch_add(head.matches("HTTP/1.1").count(), Ordering::Relaxed);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = stream.write_all(answer).await;
            let next = crate::support::head(&mut stream).await;
            counted.fetch_add(usize::from(!next.is_empty()), Ordering::Relaxed);
        }
    });
    (engine.await, count)
}

/// Sends it and asks for something else on another connection: the gateway must not have suffered.
async fn survives(gateway: &Running, request: &[u8]) -> String {
    let answer = exchange(gateway.address, request).await;
    let next = exchange(gateway.address, &get("/next")).await;
    assert!(next.starts_with("HTTP/1.1 200"), "{next}");
    answer
}

#[tokio::test]
async fn smuggling_is_refused_before_any_engine_sees_it() {
    let vectors: &[(&str, &str)] = &[
        (
            "length and coding",
            "POST / HTTP/1.1\nhost: x\ncontent-length: 5\ntransfer-encoding: chunked\n\n0\n\nGET /smuggled HTTP/1.1\nhost: x\n\n",
        ),
        (
            "coding and length",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\ncontent-length: 5\n\n0\n\nGET /smuggled HTTP/1.1\nhost: x\n\n",
        ),
        ("two lengths", "POST / HTTP/1.1\nhost: x\ncontent-length: 5\ncontent-length: 6\n\nhello!"),
        ("a list of lengths", "POST / HTTP/1.1\nhost: x\ncontent-length: 5, 5\n\nhello"),
        ("a signed length", "POST / HTTP/1.1\nhost: x\ncontent-length: +5\n\nhello"),
        ("no length", "POST / HTTP/1.1\nhost: x\ncontent-length: \n\n"),
        (
            "a coding after chunked",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked, identity\n\n0\n\n",
        ),
        ("an unknown coding", "POST / HTTP/1.1\nhost: x\ntransfer-encoding: xchunked\n\n0\n\n"),
        (
            "two codings",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: gzip\ntransfer-encoding: chunked\n\n0\n\n",
        ),
        ("a coding in HTTP/1.0", "POST / HTTP/1.0\nhost: x\ntransfer-encoding: chunked\n\n0\n\n"),
        (
            "a space before the colon",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding : chunked\n\n0\n\n",
        ),
        (
            "a folded header",
            "POST / HTTP/1.1\nhost: x\nx-a: b\n transfer-encoding: chunked\n\n0\n\n",
        ),
        (
            "a bad chunk size",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n-5\nhello\n0\n\n",
        ),
        (
            "a chunk size of hexadecimal notation",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n0x5\nhello\n0\n\n",
        ),
        (
            "an enormous chunk size",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\nffffffffffffffff1\nhello\n0\n\n",
        ),
        (
            "a chunk that is too long",
            "POST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\n\n2\nhello\n0\n\n",
        ),
        ("no host", "GET / HTTP/1.1\n\n"),
        ("two hosts", "GET / HTTP/1.1\nhost: x\nhost: y\n\n"),
        ("another host in the target", "GET http://y/ HTTP/1.1\nhost: x\n\n"),
        ("a host with a path", "GET / HTTP/1.1\nhost: x/y\n\n"),
        ("a tunnel", "CONNECT x:443 HTTP/1.1\nhost: x:443\n\n"),
        ("a null in a value", "GET / HTTP/1.1\nhost: x\nx-a: b\0c\n\n"),
        ("a bare return in a value", "GET / HTTP/1.1\nhost: x\nx-a: b\rx-b: c\n\n"),
        ("no version", "GET /\n\n"),
        ("another version", "GET / HTTP/1.2\nhost: x\n\n"),
        ("no HTTP", "\x16\x03\x01\x02\n\n"),
    ];
    let (engine, reached) = counting().await;
    let gateway = before(engine).await;
    for (name, vector) in vectors {
        reached.store(0, Ordering::Relaxed);
        let raw = vector.replace('\n', "\r\n");
        let answer = survives(&gateway, raw.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "400" | "501"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
        // The next request alone.
        let seen = reached.load(Ordering::Relaxed);
        assert!(seen == 1, "{name}: {seen} requests reached the engine");
    }
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_refused() {
    let (engine, _) = counting().await;
    let requests = RequestLimits { body_bytes: 4 << 20, ..RequestLimits::default() };
    let gateway = start(Settings { requests, ..settings(&[engine]) }).await;
    // Several, where it depends on how the request comes.
    let check = async |request: Vec<u8>, statuses: &str| {
        let answer = survives(&gateway, &request).await;
        let start: String = answer.chars().take(300).collect();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.split('|').any(|one| one == status), "{statuses}: {start}");
    };
    let headers = |line: &str, times| {
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", line.repeat(times)).into_bytes()
    };
    check(headers("x: y\r\n", 10_000), "431").await;
    check(headers(&format!("x: {}\r\n", "y".repeat(100_000)), 1), "431").await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    check(long.into_bytes(), "414|431").await;
    check(post("/v1/chat/completions", "", &"x".repeat(5 << 20)), "413").await;
    let endless = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let endless = [
        endless,
        b"100000\r\n"
            .iter()
            .chain(&[b'x'; 1 << 20])
            .chain(b"\r\n")
            .copied()
            .collect::<Vec<u8>>()
            .repeat(8),
    ]
    .concat();
    check(endless, "413").await;
    check(b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "400").await;
    check(b"GET / HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n".to_vec(), "400").await;
    check(b"GET / HTTP/1.1\r\nh\xc3\xa9: x\r\n\r\n".to_vec(), "400").await;
    let websocket =
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    check(websocket.to_vec(), "501").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_in_a_body_are_the_engines_matter() {
    let (engine, reached) = counting().await;
    let gateway = before(engine).await;
    let mut request = post("/v1/chat/completions", "", "\u{0}\u{0}");
    let length = request.len();
    request[length - 2..].copy_from_slice(b"\xff\xfe");
    let answer = exchange(gateway.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(reached.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let (engine, reached) = counting().await;
    let soon = Duration::from_millis(200);
    let limits = Limits { head_time: soon, ..netdiag_gateway::default_limits() };
    let requests = RequestLimits { body_time: soon, ..RequestLimits::default() };
    let gateway = start(Settings { limits, requests, ..settings(&[engine]) }).await;
    // Nothing, a part of a head, a part of HTTP/2's first words.
    for start in [
        &b""[..],
        b"GET / HTTP/1.1\r\nhost",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let began = std::time::Instant::now();
        exchange(gateway.address, start).await;
        assert!(began.elapsed() < PATIENCE / 4, "{start:?} took {:?}", began.elapsed());
    }
    // A part of a body that is read first, and of one that is passed on.
    for length in [10, 2 << 20] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\nhello");
        let answer = exchange(gateway.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(reached.load(Ordering::Relaxed) <= 1, "a body that was read first never came");
}

#[tokio::test]
async fn too_many_requests_and_connections_are_told_so() {
    let hangs = script(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let requests = RequestLimits { at_once: 2, ..RequestLimits::default() };
    let limits = Limits { connections: 4, ..netdiag_gateway::default_limits() };
    let gateway = start(Settings { limits, requests, ..settings(&[hangs]) }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        stream.write_all(&post("/v1/chat/completions", "", CHAT)).await.expect("sends");
        held.push(stream);
    }
    let busy = async {
        loop {
            let answer = exchange(gateway.address, &get("/v1/models")).await;
            if answer.starts_with("HTTP/1.1 503") {
                return answer;
            }
        }
    };
    // The other two may still be on their way, and then this one hangs instead.
    let answer = timeout(PATIENCE, busy).await.expect("busy");
    assert!(answer.contains("retry-after: 1") && answer.contains("gateway_busy"), "{answer}");
    for _ in 0..2 {
        held.push(TcpStream::connect(gateway.address).await.expect("connects"));
    }
    let answer = exchange(gateway.address, &get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connections"), "{answer}");
}

#[tokio::test]
async fn one_address_may_not_ask_too_often() {
    let (engine, count) = counting().await;
    let rate = std::num::NonZeroU32::new(2);
    let limits = Limits { rate, ..netdiag_gateway::default_limits() };
    let gateway = start(Settings { limits, ..settings(&[engine]) }).await;
    let ask = async || exchange(gateway.address, &post("/v1/messages", "", CHAT)).await;
    let mut answered = 0;
    let refused = loop {
        let answer = ask().await;
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        answered += 1;
        assert!(answered < 100, "nobody is refused");
    };
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1\r\n"),
        "{refused}"
    );
    assert!(refused.contains("rate_limit_error") && refused.contains("connection: close"));
    assert_eq!(count.load(Ordering::Relaxed), answered, "a refused request is no engine's");
    let passes = async { while !ask().await.starts_with("HTTP/1.1 200") {} };
    timeout(PATIENCE, passes).await.expect("served again");
}

#[tokio::test]
async fn a_token_is_asked_for_and_not_passed_on() {
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let engine = script(move |mut stream, head| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").expect("written");
    let token = netdiag_http::Token::read(&path).expect("a token");
    let listen = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let exposure = netdiag_http::Exposure::try_new(listen, Some(token), false).expect("guarded");
    let gateway = start(Settings { exposure, ..settings(&[engine]) }).await;
    let ask = async |header: &str| {
        exchange(gateway.address, &post("/v1/chat/completions", header, CHAT)).await
    };
    for wrong in ["", "authorization: Bearer 0123456789abcdeX\r\n", "x-api-key: x\r\n"] {
        let answer = ask(wrong).await;
        assert!(
            answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate"),
            "{answer}"
        );
    }
    // Guessing is answered for a while; the right one always is.
    let guesses = async { while !ask("x-api-key: x\r\n").await.starts_with("HTTP/1.1 429") {} };
    timeout(PATIENCE, guesses).await.expect("it has an end");
    for right in [
        "authorization: bearer 0123456789abcdef\r\n",
        "x-api-key: 0123456789abcdef\r\n",
        "authorization: Bearer 0123456789abcdef\r\nx-api-key: 0123456789abcdef\r\n",
    ] {
        assert!(ask(right).await.starts_with("HTTP/1.1 200"));
        let head = heads.recv().await.expect("reached it");
        assert!(!head.contains("0123456789abcdef"), "{head}");
    }
    assert!(heads.try_recv().is_err());
}
