//! The example, as a client sees it.

#[path = "../../../examples/embedded.rs"]
#[allow(dead_code)] // its `main`
mod embedded;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use netdiag_embed::Pacing;
use serde_json::Value;

fn ask(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("TCP");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("open");
    BufReader::new(socket)
}

fn running(address: SocketAddr) -> Vec<Value> {
    let mut answer = String::new();
    ask(address, "/streams").read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let all: Value = serde_json::from_str(body).expect("JSON");
    all.as_array().expect("a list").clone()
}

#[test]
fn the_handler_paces_its_own_connection() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let pacing = Pacing::try_new(embedded::settings().expect("valid")).expect("valid");
    runtime.spawn(embedded::serve(listener, pacing));

    // 40 tokens: a lead of half a second at up to 50 a second, and then as fast as it is read, at 16.
    let began = Instant::now();
    let mut lines = ask(address, "/generate?tokens=40").lines();
    let mut indices = Vec::new();
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some(event) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(event).expect("JSON");
            indices.push(event["index"].as_u64().expect("a number"));
        }
    }
    assert_eq!(indices, (0..40).collect::<Vec<_>>());
    let took = began.elapsed();
    assert!((0.75..10.0).contains(&took.as_secs_f64()), "{took:?}");

    // One that leaves in the midst of it is taken out.
    let mut leaver = ask(address, "/generate?tokens=100000");
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        leaver.read_line(&mut line).expect("a line");
    }
    let streams = running(address);
    assert_eq!(streams.len(), 1, "{streams:?}");
    assert_eq!(streams[0][0], leaver.get_ref().local_addr().expect("connected").to_string());
    assert!(streams[0][1]["admitted"].as_u64() >= Some(1), "{streams:?}");
    drop(leaver);
    let began = Instant::now();
    while !running(address).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "a stream without a client");
        std::thread::sleep(Duration::from_millis(20));
    }
}
