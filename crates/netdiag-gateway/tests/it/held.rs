//! Clients that take nothing, and engines that are told so.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netdiag_gateway::{Adapter, Pace, Settings};
use netdiag_lab::engine::{self, Engine, RequestState};
use netdiag_lab::{Lab, LabError, LinkSpec, ServerSide};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::paced::free;
use crate::streams::admin;
use crate::support::{PATIENCE, Running, demo, post, script, settings, start, start_on, unchunked};

/// What the issue promises for a client that has fallen silent.
const PAUSED_WITHIN: Duration = Duration::from_secs(1);

/// How late a busy machine may make anything.
const SLACK: Duration = Duration::from_millis(500);

fn told(engine: SocketAddr) -> Settings {
    Settings { adapter: Adapter::Netdiag, pace: Some(free()), ..settings(&[engine]) }
}

fn request(tokens: u32) -> Vec<u8> {
    let body = format!(
        r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "seed": 5, "temperature": 0,
        "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    post("/v1/chat/completions", "", &body)
}

/// An engine as fast as it gets, so that buffers fill within seconds.
fn fast() -> engine::Settings {
    let step = Duration::from_millis(1);
    let model = engine::Model { step, step_per_seat: Duration::ZERO, ..engine::Model::default() };
    engine::Settings { model, ..engine::Settings::default() }
}

/// A client that reads nothing for now, and has little room.
async fn idle_client(gateway: SocketAddr, request: &[u8]) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(gateway).await.expect("connects");
    stream.write_all(request).await.expect("sends");
    stream
}

pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) -> Instant {
    let waited = timeout(PATIENCE, async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not in time");
    Instant::now()
}

fn state(engine: &Engine) -> Option<RequestState> {
    engine.requests().first().map(|request| request.state)
}

/// Calls to engines that had this outcome.
async fn calls(gateway: &Running, order: &str, outcome: &str) -> u32 {
    let text = admin(&gateway.gateway, "/metrics").await;
    let name = "netdiag_gateway_engine_calls_total";
    let line = format!("{name}{{order=\"{order}\",outcome=\"{outcome}\"}} ");
    let count = text.lines().find_map(|text| text.strip_prefix(&line));
    count.map_or(0, |count| count.parse().expect("a number"))
}

async fn until_called(gateway: &Running, order: &str, outcome: &str) {
    let waited = timeout(PATIENCE, async {
        while calls(gateway, order, outcome).await == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{order} {outcome}: not in time");
}

/// The text of a chat's stream.
fn text(body: &str) -> String {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: {"));
    let chunks = data.map(|data| format!("{{{data}"));
    let chunks = chunks.map(|data| serde_json::from_str::<serde_json::Value>(&data).expect("JSON"));
    chunks.map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap_or("").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_pauses_while_its_client_reads_nothing() {
    let (engine, address) = demo(fast()).await;
    let gateway = start(told(address)).await;
    let tokens = 5_000;
    let mut client = idle_client(gateway.address, &request(tokens)).await;
    until("paused", || state(&engine) == Some(RequestState::Paused)).await;
    let generated = engine.tokens().generated;
    sleep(Duration::from_millis(300)).await;
    // What was in its step when it was told.
    assert!(engine.tokens().generated <= generated + 1, "it goes on");
    let mut answer = String::new();
    let read = timeout(PATIENCE, client.read_to_string(&mut answer)).await;
    read.expect("an end").expect("reads");
    let (_, body) = unchunked(&answer);
    assert!(body.ends_with("data: [DONE]\n\n"), "{}", &body[body.len() - 300..]);
    let alone = crate::support::exchange(address, &request(tokens)).await;
    assert!(text(&body) == text(&unchunked(&alone).1), "the text is another");
    assert_eq!(engine.aborted().requests, 0);
    assert!(calls(&gateway, "resume", "done").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_be_told_is_held_as_any_other() {
    let engine = stubborn(&["pause"]).await;
    let gateway = start(told(engine)).await;
    let mut client = idle_client(gateway.address, &request(1)).await;
    until_called(&gateway, "pause", "refused").await;
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.expect("an end").expect("reads");
    assert!(answer.contains("data: [DONE]"), "{}", &answer[answer.len() - 300..]);
    assert_eq!(calls(&gateway, "resume", "refused").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_be_told_to_go_on_ends_its_stream() {
    let engine = stubborn(&["resume"]).await;
    let gateway = start(told(engine)).await;
    let mut client = idle_client(gateway.address, &request(1)).await;
    until_called(&gateway, "pause", "done").await;
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.expect("an end").expect("reads");
    assert!(answer.contains("engine_not_resumed"), "{}", &answer[answer.len() - 300..]);
}

/// Its answer says that it failed, so nobody knows whether it has.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_may_have_paused_is_told_to_go_on() {
    let goes_on = Arc::new(Notify::new());
    let engine = script(move |mut stream, head| {
        let goes_on = Arc::clone(&goes_on);
        async move {
            let _ = crate::support::body(&mut stream, &head).await;
            if let Some(order) = head.strip_prefix("POST /v1/netdiag/requests/r-1/") {
                let status = if order.starts_with("resume ") { 200 } else { 503 };
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                if status == 200 {
                    goes_on.notify_one();
                }
                return;
            }
            let _ = stream.write_all(NAMED.as_bytes()).await;
            let _ = stream.write_all(WORD.repeat(10_000).as_bytes()).await;
            goes_on.notified().await;
            let _ = stream.write_all(b"data: [DONE]\n\n").await;
        }
    })
    .await;
    let gateway = start(told(engine)).await;
    let mut client = idle_client(gateway.address, &request(1)).await;
    until_called(&gateway, "pause", "failed").await;
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.expect("an end").expect("reads");
    assert!(answer.contains("data: [DONE]"), "{}", &answer[answer.len() - 300..]);
}

/// What an engine begins with that has named its request, and one of its events.
const NAMED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: r-1\r\n\
                     connection: close\r\n\r\n";
const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n";

/// An engine that sends more than buffers take, and answers 404 to these calls.
async fn stubborn(refuses: &'static [&'static str]) -> SocketAddr {
    script(move |mut stream, head| async move {
        let _ = crate::support::body(&mut stream, &head).await;
        if head.starts_with("POST /v1/netdiag/requests/r-1/") {
            let refused = refuses.iter().any(|order| head.contains(&format!("/{order} ")));
            let status = if refused { "404 Not Found" } else { "200 OK" };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            return;
        }
        let _ = stream.write_all(NAMED.as_bytes()).await;
        let _ = stream.write_all(WORD.repeat(10_000).as_bytes()).await;
        if refuses.contains(&"resume") {
            // Paused, it says no more.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let _ = stream.write_all(b"data: [DONE]\n\n").await;
    })
    .await
}

/// A lab whose server is here, or `None` where it cannot be had.
pub(crate) fn lab(spec: LinkSpec) -> Option<Lab> {
    match Lab::start(spec, ServerSide::Host) {
        Ok(lab) => Some(lab),
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoTun(_))) => {
            let test = std::thread::current();
            let test = test.name().unwrap_or("held").to_owned();
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {error} (needs root)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Reads all that comes to a client in the lab, on a thread of its own.
pub(crate) fn client(
    lab: &Lab,
    gateway: SocketAddr,
    request: &[u8],
) -> std::thread::JoinHandle<String> {
    let mut stream = lab
        .on_client(|| std::net::TcpStream::connect(gateway).expect("connects"))
        .expect("a namespace");
    stream.write_all(request).expect("sends");
    // Nobody tells one whose link is gone that there will be no more.
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        // A connection that is given up ends in an error.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

/// A gateway that the lab's client reaches.
pub(crate) async fn in_lab(lab: &Lab, settings: Settings) -> Running {
    let listener = TcpListener::bind((lab.server_ip(), 0)).await.expect("bind");
    start_on(settings, listener).await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_blackout_an_engine_pauses_and_goes_on() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let gateway = in_lab(&lab, told(address)).await;
    let client = client(&lab, gateway.address, &request(200));
    until("tokens flow", || engine.tokens().acked > 30).await;
    lab.set(spec.clone().blackout()).expect("running");
    let silent = Instant::now();
    let paused = until("paused", || state(&engine) == Some(RequestState::Paused)).await;
    assert!(paused - silent <= PAUSED_WITHIN, "paused after {:?}", paused - silent);
    sleep(Duration::from_millis(5800).saturating_sub(silent.elapsed())).await;
    assert_eq!(state(&engine), Some(RequestState::Paused));
    lab.set(spec).expect("running");
    let body = unchunked(&client.join().expect("no panic")).1;
    assert!(body.ends_with("data: [DONE]\n\n"), "{}", &body[body.len() - 300..]);
    assert_eq!(engine.tokens().generated, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_aborts_when_its_client_was_silent_for_too_long() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let hold_max = Duration::from_secs(2);
    let (engine, address) = demo(engine::Settings::default()).await;
    let pace = Some(Pace { hold_max, ..free() });
    let gateway = in_lab(&lab, Settings { pace, ..told(address) }).await;
    let _client = client(&lab, gateway.address, &request(100_000));
    until("tokens flow", || engine.tokens().acked > 30).await;
    lab.set(spec.blackout()).expect("running");
    let silent = Instant::now();
    until("paused", || state(&engine) == Some(RequestState::Paused)).await;
    let paused = silent.elapsed();
    assert!(paused <= PAUSED_WITHIN, "paused after {paused:?}");
    until("aborted", || engine.aborted().requests == 1).await;
    let aborted = silent.elapsed();
    assert!(aborted >= hold_max && aborted <= paused + hold_max + SLACK, "after {aborted:?}");
}
