//! Clients whose connection is lost, and that come back for their stream, or do not.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use netdiag_gateway::{Adapter, Pace, Settings};
use netdiag_lab::LinkSpec;
use netdiag_lab::engine::{self, RequestState};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::held::{in_lab, lab, until};
use crate::paced::free;
use crate::streams::admin;
use crate::support::{
    CHAT, PATIENCE, Running, demo, exchange, get, post, script, settings, start, unchunked,
};

/// Streams that are cut in every way, and how often each.
const STREAMS: usize = 40;
const CUTS: usize = 4;

pub(crate) fn resumable(engine: SocketAddr, window: Duration) -> Settings {
    Settings { resume_window: Some(window), pace: Some(free()), ..settings(&[engine]) }
}

pub(crate) fn fast() -> engine::Settings {
    let step = Duration::from_millis(2);
    let model = engine::Model { step, step_per_seat: Duration::ZERO, ..engine::Model::default() };
    engine::Settings { model, ..engine::Settings::default() }
}

pub(crate) fn asks(tokens: u32) -> String {
    format!(
        r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "seed": 5, "temperature": 0,
        "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    )
}

fn chat(tokens: u32, extra: &str) -> Vec<u8> {
    post("/v1/chat/completions", extra, &asks(tokens))
}

fn resume(id: &str, last: &str) -> Vec<u8> {
    let last = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
    format!("GET /v1/netdiag/streams/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{last}\r\n")
        .into_bytes()
}

fn delete(id: &str) -> Vec<u8> {
    String::from_utf8(get(&format!("/v1/netdiag/streams/{id}")))
        .expect("text")
        .replacen("GET", "DELETE", 1)
        .into_bytes()
}

/// What a client has of a stream that reads event streams as browsers do.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) last: String,
    pub(crate) data: Vec<String>,
}

impl Seen {
    /// Takes what has come on one connection, up to the last whole event.
    fn take(&mut self, answer: &str) {
        let Some((head, chunks)) = answer.split_once("\r\n\r\n") else { return };
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let id = head.lines().find_map(|line| line.strip_prefix("x-netdiag-stream-id: "));
        assert!(head.contains("x-accel-buffering: no"), "{head}");
        self.take_events(id.expect("a name"), &whole(chunks));
    }

    /// The same without the frames of HTTP/1.1.
    pub(crate) fn take_events(&mut self, id: &str, body: &str) {
        assert!(self.id.is_empty() || self.id == id, "{id} is not {}", self.id);
        self.id = id.to_owned();
        for event in body.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n")) {
            let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            let last = field("id: ").unwrap_or_else(|| panic!("no id in {event}"));
            self.data.push(data.to_owned());
            // One more than the one before, so that none is lost and none comes twice.
            assert_eq!(last, format!("{}.{}", self.id, self.data.len()), "{event}");
            self.last = last.to_owned();
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.data.last().is_some_and(|data| data == "[DONE]")
    }

    pub(crate) fn text(&self) -> String {
        let text = |data: &String| {
            let chunk: serde_json::Value = serde_json::from_str(data).ok()?;
            Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
        };
        self.data.iter().filter_map(text).collect()
    }
}

/// What has come of a chunked body, in whatever place it was cut.
fn whole(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        body.push_str(rest.get(..size).unwrap_or(rest));
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    body
}

/// Reads so many bytes of an answer, or all of it.
async fn read(stream: &mut TcpStream, bytes: usize) -> String {
    let mut answer = vec![0; bytes];
    let mut have = 0;
    let reading = async {
        while have < bytes {
            match stream.read(&mut answer[have..]).await {
                Ok(read) if read > 0 => have += read,
                _ => break,
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("in time");
    String::from_utf8_lossy(&answer[..have]).into_owned()
}

async fn open(gateway: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.expect("connects");
    stream.write_all(request).await.expect("sends");
    stream
}

/// A client that has lost its connection after some events.
async fn lost(gateway: &Running, tokens: u32) -> Seen {
    let mut seen = Seen::default();
    let mut stream = open(gateway.address, &chat(tokens, "")).await;
    seen.take(&read(&mut stream, 4000).await);
    drop(stream);
    until("parked", || gateway.gateway.streams().iter().any(|stream| stream.parked)).await;
    seen
}

async fn has_metric(gateway: &Running, line: &str) {
    let text = admin(&gateway.gateway, "/metrics").await;
    assert!(text.contains(line), "{line} in {text}");
}

/// A stream that is cut at random bytes, in every way that connections end, and goes on in each way that there is.
async fn cut_and_resumed(gateway: SocketAddr, mut random: StdRng, tokens: u32) -> Seen {
    let mut seen = Seen::default();
    let mut request = chat(tokens, "");
    let mut deserted = Vec::new();
    for _ in 0..CUTS {
        let mut stream = open(gateway, &request).await;
        seen.take(&read(&mut stream, random.random_range(600..6000)).await);
        if seen.is_done() {
            break;
        }
        match random.random_range(0..3) {
            0 => drop(stream),
            1 => {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).expect("a socket");
            }
            // Nobody tells the gateway that this one is dead.
            _ => deserted.push(stream),
        }
        let number = seen.last.rsplit_once('.').map_or("0", |(_, number)| number);
        request = match random.random_range(0..3) {
            0 => resume(&seen.id, number),
            1 => resume(&seen.id, &seen.last),
            // Before the first event there is no id to repeat the request with.
            _ if seen.last.is_empty() => resume(&seen.id, ""),
            _ => chat(tokens, &format!("Last-Event-ID: {}\r\n", seen.last)),
        };
    }
    if !seen.is_done() {
        seen.take(&exchange(gateway, &request).await);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_anywhere_is_the_same_in_the_end() {
    for adapter in
        [Adapter::Generic, Adapter::Segment(NonZeroU32::MIN.saturating_add(15)), Adapter::Netdiag]
    {
        let (engine, address) = demo(fast()).await;
        let window = Duration::from_secs(20);
        let gateway = start(Settings { adapter, ..resumable(address, window) }).await;
        let tokens = 80;
        let alone = exchange(gateway.address, &chat(tokens, "")).await;
        let mut undisturbed = Seen::default();
        undisturbed.take(&alone);
        assert!(undisturbed.is_done() && undisturbed.text().len() > 100, "{undisturbed:?}");
        let before = engine.tokens().generated;
        let cut = (0..STREAMS).map(|stream| {
            let random = StdRng::seed_from_u64(stream as u64);
            cut_and_resumed(gateway.address, random, tokens)
        });
        for seen in futures_util::future::join_all(cut).await {
            assert!(seen.is_done(), "{seen:?}");
            assert!(seen.text() == undisturbed.text(), "{adapter:?}: {}", seen.text());
        }
        // Nothing was asked for twice.
        let generated = engine.tokens().generated - before;
        assert_eq!(generated, (STREAMS as u64) * u64::from(tokens), "{adapter:?}");
        assert_eq!(engine.aborted().requests, 0, "{adapter:?}");
        until("nobody is left", || gateway.gateway.streams().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_engine_waits_for_the_client_and_is_then_aborted() {
    let (engine, address) = demo(fast()).await;
    let window = Duration::from_millis(1500);
    let settings = Settings { adapter: Adapter::Netdiag, ..resumable(address, window) };
    let gateway = start(settings).await;
    let seen = lost(&gateway, 100_000).await;
    let left = Instant::now();
    let paused = || engine.requests().first().is_some_and(|r| r.state == RequestState::Paused);
    until("paused", paused).await;
    let generated = engine.tokens().generated;
    sleep(Duration::from_millis(400)).await;
    // What was in its step when it was told.
    assert!(engine.tokens().generated <= generated + 1, "it goes on");
    has_metric(&gateway, "netdiag_gateway_streams_parked 1").await;
    let listed = admin(&gateway.gateway, "/v1/netdiag/streams").await;
    assert!(listed.contains(r#""parked":true"#), "{listed}");
    until("aborted", || engine.aborted().requests == 1).await;
    let aborted = left.elapsed();
    assert!(aborted >= window - Duration::from_millis(100), "after {aborted:?}");
    assert!(aborted <= window + Duration::from_secs(1), "after {aborted:?}");
    assert!(gateway.gateway.streams().is_empty());
    let answer = exchange(gateway.address, &resume(&seen.id, &seen.last)).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no_such_stream"), "{answer}");
    has_metric(&gateway, "netdiag_gateway_streams_expired_total 1").await;
    has_metric(&gateway, "netdiag_gateway_streams_parked 0").await;
    has_metric(&gateway, "netdiag_gateway_streams_resumed_total 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_come_back_costs_a_segment() {
    let (engine, address) = demo(fast()).await;
    let segment = 16;
    let adapter = Adapter::Segment(NonZeroU32::MIN.saturating_add(segment - 1));
    let window = Duration::from_millis(1500);
    let gateway = start(Settings { adapter, ..resumable(address, window) }).await;
    let seen = lost(&gateway, 100_000).await;
    // What it has and what it was sent meanwhile, besides what is left of a segment.
    sleep(Duration::from_millis(300)).await;
    let generated = engine.tokens().generated;
    let sent = gateway.gateway.streams()[0].sent;
    assert!(generated <= sent + u64::from(segment), "{generated} of which {sent} were sent");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(engine.tokens().generated, generated, "it is asked for more");
    until("expired", || gateway.gateway.streams().is_empty()).await;
    assert_eq!(engine.tokens().generated, generated);
    assert!(!seen.data.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_stream_may_be_ended_at_once() {
    let (engine, address) = demo(fast()).await;
    let gateway = start(resumable(address, Duration::from_secs(60))).await;
    let seen = lost(&gateway, 100_000).await;
    assert_eq!(engine.aborted().requests, 0);
    let answer = exchange(gateway.address, &delete(&seen.id)).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    until("aborted", || engine.aborted().requests == 1).await;
    for request in [delete(&seen.id), resume(&seen.id, &seen.last)] {
        let answer = exchange(gateway.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_streams_end_with_the_gateway() {
    let (engine, address) = demo(fast()).await;
    let mut gateway = start(resumable(address, Duration::from_secs(60))).await;
    lost(&gateway, 100_000).await;
    gateway.stop();
    until("aborted", || engine.aborted().requests == 1).await;
    timeout(PATIENCE, &mut gateway.task).await.expect("ends").expect("no panic");
    assert!(gateway.gateway.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_client_has_the_stream_and_the_older_is_told() {
    let (_, address) = demo(fast()).await;
    let gateway = start(resumable(address, Duration::from_secs(20))).await;
    let mut older = open(gateway.address, &chat(200, "")).await;
    let mut seen = Seen::default();
    let begun = read(&mut older, 4000).await;
    seen.take(&begun);
    let newer = exchange(gateway.address, &resume(&seen.id, &seen.last)).await;
    seen.take(&newer);
    assert!(seen.is_done(), "{seen:?}");
    let rest = read(&mut older, 1 << 20).await;
    assert!(rest.contains("\"code\":\"taken_over\"") && rest.ends_with("0\r\n\r\n"), "{rest}");
    // It still can be had for a while, since what was sent may not have arrived.
    let mut again = Seen { id: seen.id.clone(), ..Seen::default() };
    again.take(&exchange(gateway.address, &resume(&seen.id, "")).await);
    assert_eq!(again.data, seen.data);
    assert!(gateway.gateway.streams().is_empty(), "what is finished is not listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_place_in_a_stream_is_refused() {
    let (_, address) = demo(fast()).await;
    let gateway = start(resumable(address, Duration::from_secs(20))).await;
    let seen = lost(&gateway, 1000).await;
    let check = async |request: Vec<u8>, status: &str, code: &str| {
        let answer = exchange(gateway.address, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    };
    let other = format!("st_{}", "0".repeat(32));
    check(resume(&other, ""), "404", "no_such_stream").await;
    check(resume("x", ""), "404", "no_such_stream").await;
    check(resume(&seen.id, &format!("{other}.1")), "400", "malformed_request").await;
    check(resume(&seen.id, "one"), "400", "malformed_request").await;
    check(resume(&seen.id, "100000"), "400", "malformed_request").await;
    let named = |id: &str| format!("last-event-id: {id}\r\n");
    check(chat(10, &named(&format!("{other}.1"))), "404", "no_such_stream").await;
    let elsewhere = post("/v1/completions", &named(&seen.last), &asks(10));
    check(elsewhere, "404", "no_such_stream").await;
    let put = resume(&seen.id, "");
    let put = String::from_utf8(put).expect("text").replacen("GET", "PUT", 1);
    check(put.into_bytes(), "405", "wrong_method").await;
    // It is still there, and what is no id of ours is the engine's.
    let mut rest = seen;
    rest.take(&exchange(gateway.address, &resume(&rest.id, &rest.last)).await);
    assert!(rest.is_done());
    let answer = exchange(gateway.address, &chat(5, &named("17"))).await;
    assert!(answer.contains(&format!("{}\r\n", "200 OK")) && answer.contains("[DONE]"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_too_far_back_is_gone() {
    let event = format!("data: {}\n\n", "x".repeat(1000));
    let engine = script(move |mut stream, head| {
        let event = event.clone();
        async move {
            let _ = crate::support::body(&mut stream, &head).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(event.repeat(1000).as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let gateway = start(resumable(engine, Duration::from_secs(20))).await;
    let mut stream = open(gateway.address, &post("/v1/chat/completions", "", CHAT)).await;
    let mut answer = Vec::new();
    let all = async {
        while !answer.ends_with(b".1000\n\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.expect("reads") > 0);
        }
    };
    timeout(PATIENCE, all).await.expect("in time");
    let mut seen = Seen::default();
    seen.take(&String::from_utf8_lossy(&answer));
    let back = |events: usize| resume(&seen.id, &format!("{}", seen.data.len() - events));
    let gone = exchange(gateway.address, &back(500)).await;
    assert!(gone.starts_with("HTTP/1.1 410") && gone.contains("event_not_kept"), "{gone}");
    // As much as may have been lost with the connection is there.
    let mut again = open(gateway.address, &back(220)).await;
    let again = read(&mut again, 220 * 1000).await;
    assert!(again.contains(&format!("id: {}.781\n", seen.id)), "{}", &again[..400]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_window_nothing_is_added_and_nothing_kept() {
    let (engine, address) = demo(fast()).await;
    let gateway = start(settings(&[address])).await;
    let mut stream = open(gateway.address, &chat(100_000, "")).await;
    let answer = read(&mut stream, 4000).await;
    assert!(!whole(answer.split_once("\r\n\r\n").expect("a head").1).contains("id: "), "{answer}");
    drop(stream);
    until("aborted", || engine.aborted().requests == 1).await;
    assert!(gateway.gateway.streams().is_empty());
    let answer = exchange(gateway.address, &resume("x", "")).await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: DELETE\r\n"), "{answer}");
    let (head, _) = unchunked(&exchange(gateway.address, &chat(3, "")).await);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// A client that has gone to another network, of which its old one tells nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fell_silent_comes_back_on_another_connection() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let pace = Some(Pace { hold_max: Duration::from_secs(1), ..free() });
    let settings = Settings { pace, ..resumable(address, Duration::from_secs(20)) };
    let gateway = in_lab(&lab, Settings { adapter: Adapter::Netdiag, ..settings }).await;
    let client = lab.on_client(|| std::net::TcpStream::connect(gateway.address).expect("connects"));
    let client = client.expect("a namespace");
    client.set_nonblocking(true).expect("a socket");
    let mut client = TcpStream::from_std(client).expect("a socket");
    client.write_all(&chat(200, "")).await.expect("sends");
    let mut begun = Seen::default();
    begun.take(&read(&mut client, 2000).await);
    until("tokens flow", || engine.tokens().acked > 30).await;
    lab.set(spec.blackout()).expect("running");
    until("parked", || gateway.gateway.streams().iter().any(|stream| stream.parked)).await;
    assert_eq!(engine.requests().first().map(|r| r.state), Some(RequestState::Paused));
    let mut seen = Seen::default();
    seen.take(&exchange(gateway.address, &resume(&begun.id, "")).await);
    assert!(seen.is_done(), "{seen:?}");
    assert_eq!(engine.tokens().generated, 200);
}
