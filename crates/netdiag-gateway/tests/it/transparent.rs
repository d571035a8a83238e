//! What passes unchanged, and what is added.

use tokio::io::AsyncWriteExt as _;

use crate::support::{before, exchange, get, post, says, script, settings, start, unchunked};

/// The head that the engine gets for a request.
async fn seen(request: &[u8]) -> String {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let engine = script(move |mut stream, head| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(head);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n").await;
        }
    })
    .await;
    let gateway = before(engine).await;
    let answer = exchange(gateway.address, request).await;
    assert!(answer.contains(" 204 No Content\r\nx-a: b\r\n"), "{answer}");
    assert!(!answer.contains("content-length") && !answer.contains("chunked"), "{answer}");
    receiver.recv().await.expect("the request came")
}

#[tokio::test]
async fn a_request_reaches_the_engine_as_it_was_sent() {
    let head = seen(
        b"PURGE /a%20b/../c?d=e&f HTTP/1.1\r\nHost: api.example:8443\r\nX-Custom: Caf\xc3\xa9\r\n\
        Authorization: Bearer sk-1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
        Keep-Alive: 5\r\nUpgrade: h2c\r\n\r\n",
    )
    .await;
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines[0], "PURGE /a%20b/../c?d=e&f HTTP/1.1");
    let has = |line: &str| assert!(lines.contains(&line), "{line} in {head}");
    has("x-custom: Café");
    has("authorization: Bearer sk-1");
    has("te: trailers");
    has("x-forwarded-for: 127.0.0.1");
    has("x-forwarded-proto: http");
    has("x-forwarded-host: api.example:8443");
    for name in ["traceparent: 00-", "x-request-id: ", "host: 127.0.0.1:"] {
        assert!(lines.iter().any(|line| line.starts_with(name)), "{name} in {head}");
    }
    for name in ["x-hop", "keep-alive", "upgrade", "connection", "content-length"] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name} in {head}");
    }
}

#[tokio::test]
async fn absolute_targets_and_http_1_0_are_understood() {
    let head = seen(
        b"GET http://api.example/x HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-forwarded-host: api.example\r\n"), "{head}");
    let head = seen(b"GET /y HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("GET /y HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn bodies_pass_with_their_length_or_in_chunks() {
    let engine = script(|mut stream, head| async move {
        let body = crate::support::body(&mut stream, &head).await.expect("a body");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let gateway = before(engine).await;
    let long = "x".repeat(3 << 20);
    for body in ["", "hello", &long] {
        let (head, answer) =
            unchunked(&exchange(gateway.address, &post("/upload", "", body)).await);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(answer == body, "{} bytes of {}", answer.len(), body.len());
    }
    let chunked = b"POST /upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n1;extension=1\r\n!\r\n0\r\n\r\n";
    let (head, answer) = unchunked(&exchange(gateway.address, chunked).await);
    assert_eq!(answer, "hello!");
    // Whose length may have been given twice ends its connection.
    assert!(head.contains("connection: close"), "{head}");
    // 100 Continue is ours to say.
    let expecting = post("/upload", "expect: 100-continue\r\n", "hello");
    let answer = exchange(gateway.address, &expecting).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn answers_pass_as_they_are() {
    let check = async |engine: &str, request: &[u8], expected: &[&str]| {
        let gateway = before(says(engine.replace('\n', "\r\n")).await).await;
        let answer = exchange(gateway.address, request).await;
        for part in expected {
            assert!(answer.contains(&part.replace('\n', "\r\n")), "{part:?} in {answer:?}");
        }
        answer
    };
    let ok = "HTTP/1.1 200 OK\ncontent-length: 5\nx-request-id: theirs\nkeep-alive: 5\nx-hop: 1\nconnection: x-hop\n\nhello";
    let answer = check(
        ok,
        &get("/"),
        &["HTTP/1.1 200 OK\n", "content-length: 5\n", "x-request-id: theirs\n", "\n\nhello"],
    )
    .await;
    assert!(!answer.contains("keep-alive") && !answer.contains("x-hop"), "{answer}");
    // The length of what a GET would get.
    let head = b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer =
        check("HTTP/1.1 200 OK\ncontent-length: 1234\n\n", head, &["content-length: 1234\n"]).await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    check(
        "HTTP/1.1 304 Not Modified\netag: \"a\"\ncontent-length: 7\n\n",
        &get("/"),
        &["HTTP/1.1 304", "etag: \"a\"\n"],
    )
    .await;
    check("HTTP/1.1 500 Oh\ncontent-length: 2\n\nno", &get("/"), &["HTTP/1.1 500", "\n\nno"]).await;
    check(
        "HTTP/1.1 103 Early Hints\nlink: x\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        &get("/"),
        &["HTTP/1.1 200", "\n\nok"],
    )
    .await;
    // Until the end of the connection.
    check("HTTP/1.1 200 OK\n\nall of it", &get("/"), &["all of it"]).await;
    let trailers =
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntrailer: x-sum\n\n5\nhello\n0\nx-sum: 1\n\n";
    let wanting = b"GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
    check(trailers, wanting, &["5\nhello\n0\nx-sum: 1\n\n"]).await;
}

#[tokio::test]
async fn a_connection_to_an_engine_is_used_again() {
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&connections);
    let engine = script(move |mut stream, mut head| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move {
            // The fourth request comes on a connection that closes in this very moment.
            for _ in 0..3 {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if head.is_empty() || stream.write_all(answer).await.is_err() {
                    return;
                }
                head = crate::support::head(&mut stream).await;
            }
        }
    })
    .await;
    let gateway = start(settings(&[engine])).await;
    for _ in 0..9 {
        let answer = exchange(gateway.address, &get("/")).await;
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 3);
}
