//! Where answers end, however they come, and which connections are used again behind them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{PATIENCE, before, body, exchange, get, head, says, script, unchunked};

/// An engine that answers every request with these pieces and keeps its connections open, of which it counts those it had.
async fn keeps_open(pieces: Vec<Vec<u8>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let engine = script(move |mut stream, mut request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let pieces = pieces.clone();
        async move {
            let _ = stream.set_nodelay(true);
            while !request.is_empty() {
                for piece in &pieces {
                    let _ = stream.write_all(piece).await;
                    sleep(Duration::from_millis(1)).await;
                }
                request = head(&mut stream).await;
            }
        }
    });
    (engine.await, count)
}

/// Asks twice. The answers' bodies are `body`, and the second came on the connection of the first if `again`.
async fn check(method: &str, answer: &str, body: &str, again: bool) {
    for length in [answer.len(), 7] {
        check_in_pieces(length, method, answer, body, again).await;
    }
}

async fn check_in_pieces(length: usize, method: &str, answer: &str, body: &str, again: bool) {
    let request = String::from_utf8(get("/")).expect("text").replacen("GET", method, 1);
    let answer = answer.replace('\n', "\r\n").into_bytes();
    let pieces = answer.chunks(length).map(<[u8]>::to_vec).collect();
    let (engine, connections) = keeps_open(pieces).await;
    let gateway = before(engine).await;
    for _ in 0..2 {
        let answer = exchange(gateway.address, request.as_bytes()).await;
        let (head, found) = unchunked(&answer);
        assert_eq!(found, body, "{answer:?}");
        check_length(method, &head, body);
    }
    let connections = connections.load(Ordering::Relaxed);
    assert_eq!(connections, if again { 1 } else { 2 }, "in pieces of {length}: {answer:?}");
}

/// No client is told two lengths, or another than the body's.
fn check_length(method: &str, head: &str, body: &str) {
    let lines: Vec<_> =
        head.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
    assert!(lines.len() < 2, "{head}");
    if let [length] = lines[..]
        && method != "HEAD"
    {
        assert_eq!(length, body.len().to_string(), "{head}");
        assert!(!head.contains("transfer-encoding") && !head.contains(" 204 "), "{head}");
    }
}

#[tokio::test]
async fn an_answer_ends_where_its_head_says() {
    let ok = "HTTP/1.1 200 OK\n";
    check("GET", &format!("{ok}content-length: 5\n\nhello"), "hello", true).await;
    check("GET", &format!("{ok}content-length: 0\n\n"), "", true).await;
    let chunks = "transfer-encoding: chunked\n\n5;a=b\nhello\n1\n!\n0\n";
    check("GET", &format!("{ok}{chunks}\n"), "hello!", true).await;
    check("GET", &format!("{ok}trailer: x\n{chunks}x: y\n\n"), "hello!", true).await;
    check("HEAD", &format!("{ok}content-length: 1234\n\n"), "", true).await;
    check("HEAD", &format!("{ok}transfer-encoding: chunked\n\n"), "", true).await;
    check("GET", "HTTP/1.1 204 No Content\n\n", "", true).await;
    check("GET", "HTTP/1.1 304 Not Modified\ncontent-length: 7\n\n", "", true).await;
    let interim = "HTTP/1.1 103 Early Hints\nlink: </x>\n\n";
    check("GET", &format!("{interim}{interim}{ok}content-length: 2\n\nok"), "ok", true).await;
    let many = interim.repeat(64);
    check("GET", &format!("{many}{ok}content-length: 2\n\nok"), "ok", true).await;
}

/// Each is small, and says that the engine lives; without an end they would be all that it ever does.
#[tokio::test]
async fn interim_answers_without_an_end_are_no_answer() {
    let engine = script(|mut stream, _| async move {
        let interim = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(50);
        while stream.write_all(&interim).await.is_ok() {}
    })
    .await;
    let gateway = before(engine).await;
    let answer = exchange(gateway.address, &get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("engine_malformed_answer"), "{answer}");
    // What is one too many for sure, and then an answer.
    let engine =
        says("HTTP/1.1 102 Processing\r\n\r\n".repeat(65) + "HTTP/1.1 204 No Content\r\n\r\n");
    let gateway = before(engine.await).await;
    let answer = exchange(gateway.address, &get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

/// With HTTP/2 a client may say that it has ended in a frame of its own, behind the last byte of the length that it has told.
#[tokio::test]
async fn the_last_byte_of_an_upload_is_its_end() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let engine = script(move |mut stream, mut asked| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            while body(&mut stream, &asked).await.is_some_and(|body| body.len() == UPLOAD) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                asked = head(&mut stream).await;
            }
        }
    })
    .await;
    let gateway = before(engine).await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("HTTP/2");
    tokio::spawn(connection);
    for _ in 0..2 {
        let data = Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; UPLOAD])));
        // A stream does not know that it is over until it is asked once more.
        let request = Request::post("http://localhost/upload")
            .header("content-length", UPLOAD)
            .body(StreamBody::new(stream::iter([data])));
        let response = sender.send_request(request.expect("valid")).await.expect("an answer");
        let answer = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(answer, "ok");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

/// Bytes: more than are read before they are passed on.
const UPLOAD: usize = (1 << 20) + 1;

#[tokio::test]
async fn a_connection_about_which_anything_is_doubtful_is_not_used_again() {
    let length = "content-length: 2\n\nok";
    check("GET", &format!("HTTP/1.1 200 OK\nconnection: close\n{length}"), "ok", false).await;
    check("GET", &format!("HTTP/1.0 200 OK\nconnection: keep-alive\n{length}"), "ok", false).await;
    check("GET", BOTH, "okABCDEF", false).await;
}

/// Two rules for one body.
const BOTH: &str =
    "HTTP/1.1 200 OK\ncontent-length: 3\ntransfer-encoding: chunked\n\n8\nokABCDEF\n0\n\n";

#[tokio::test]
async fn lengths_that_are_told_twice_are_told_once() {
    let twice = "HTTP/1.1 200 OK\ncontent-length: 2\ncontent-length: 2\n\nok";
    check("GET", twice, "ok", true).await;
    check("GET", "HTTP/1.1 200 OK\ncontent-length: 2, 2\n\nok", "ok", true).await;
    check("HEAD", "HTTP/1.1 200 OK\ncontent-length: 2, 2\n\n", "", true).await;
    check("GET", "HTTP/1.1 204 No Content\ncontent-length: 2\n\n", "", true).await;
}

/// HTTP/2 has no way to tell where a body ends but its own, and refuses a length that is not the body's.
#[tokio::test]
async fn an_answer_over_http_2_ends_where_it_ends() {
    let check = async |answer: &str, body: &str, length: Option<&str>| {
        let (engine, _) = keeps_open(vec![answer.replace('\n', "\r\n").into_bytes()]).await;
        let gateway = before(engine).await;
        let io = TcpStream::connect(gateway.address).await.expect("connects");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::get("http://localhost/").body(Empty::<Bytes>::new());
        let response = sender.send_request(request.expect("valid")).await.expect("an answer");
        let lengths = response.headers().get_all("content-length").iter().collect::<Vec<_>>();
        assert_eq!(lengths, length.into_iter().collect::<Vec<_>>(), "{answer:?}");
        let found = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(found, body, "{answer:?}");
    };
    check(BOTH, "okABCDEF", None).await;
    check("HTTP/1.1 200 OK\ncontent-length: 2, 2\n\nok", "ok", Some("2")).await;
    check("HTTP/1.1 204 No Content\ncontent-length: 2\n\n", "", None).await;
    check("HTTP/1.1 304 Not Modified\ncontent-length: 2\n\n", "", Some("2")).await;
}

/// It would be the answer to the next request. What comes later than that is one, and no client can tell.
#[tokio::test]
async fn what_comes_behind_an_answer_is_no_other_answer() {
    let more = "HTTP/1.1 200 OK\ncontent-length: 4\n\nevil";
    let check = async |method: &str, answer: &str, body: &str| {
        let answer = answer.to_owned() + more;
        check_in_pieces(2 * answer.len(), method, &answer, body, false).await;
    };
    let length = "HTTP/1.1 200 OK\ncontent-length: 2\n\n";
    check("GET", &format!("{length}ok"), "ok").await;
    check("HEAD", length, "").await;
    check("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nok\n0\n\n", "ok").await;
    check("GET", "HTTP/1.1 204 No Content\n\n", "").await;
}

/// What is half sent goes on being sent while the answer comes: hyper keeps both.
#[tokio::test]
async fn an_answer_may_begin_before_its_request_has_ended() {
    let engine = script(|mut stream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head).await;
        let mut piece = [0; 64];
        loop {
            let length = stream.read(&mut piece).await.unwrap_or_default();
            let said = String::from_utf8_lossy(&piece[..length]).to_lowercase();
            let chunk = format!("{:x}\r\n{said}\r\n", said.len());
            if length == 0 || stream.write_all(chunk.as_bytes()).await.is_err() {
                return;
            }
            if said.ends_with("0\r\n\r\n") {
                let _ = stream.write_all(b"0\r\n\r\n").await;
            }
        }
    })
    .await;
    let gateway = before(engine).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    let request = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    let mut answer = String::new();
    for word in ["ALPHA", "BETA", "GAMMA"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).await.expect("sends");
        let echoed = async {
            while !answer.contains(&word.to_lowercase()) {
                let mut piece = [0; 256];
                let length = stream.read(&mut piece).await.expect("reads");
                assert!(length > 0, "it ended: {answer}");
                answer.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        };
        timeout(PATIENCE, echoed).await.expect("in time");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sends");
    let rest = async { stream.read_to_string(&mut answer).await };
    timeout(PATIENCE, rest).await.expect("in time").expect("reads");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_refusal_before_the_request_has_ended_passes() {
    let engine = script(|mut stream, _| async move {
        let refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig";
        let _ = stream.write_all(refusal).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = before(engine).await;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        let half =
            b"POST /upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(half).await.expect("sends");
        let mut answer = String::new();
        let whole = stream.read_to_string(&mut answer);
        timeout(PATIENCE, whole).await.expect("in time").expect("reads");
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("\r\n\r\nbig"), "{answer}");
    }
}
