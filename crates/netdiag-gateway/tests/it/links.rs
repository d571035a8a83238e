//! Clients behind links that fall silent, and behind links that carry little. As root.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netdiag_gateway::{Gateway, Pace, Settings};
use netdiag_lab::engine::{self, Engine};
use netdiag_lab::{Lab, LabError, LinkSpec, ServerSide};

use crate::support::{PATIENCE, demo, post, settings, unchunked};

/// A lab with one client, or `None` where it cannot be had.
fn lab(spec: LinkSpec) -> Option<Lab> {
    match Lab::start(spec, ServerSide::Namespace) {
        Ok(lab) => Some(lab),
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoTun(_))) => {
            let test = std::thread::current();
            let test = test.name().unwrap_or("link test");
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {error} (needs root)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A gateway whose clients come over the lab's link, while its engine is beside it.
async fn serve(lab: &Lab, pace: Pace) -> (Engine, Gateway, SocketAddr) {
    let (counts, engine) = demo(engine::Settings::default()).await;
    let gateway = Gateway::try_new(Settings { pace: Some(pace), ..settings(&[engine]) });
    let gateway = gateway.expect("valid");
    let listener = lab.on_server(|| TcpListener::bind((lab.server_ip(), 0)).expect("bind"));
    let listener = listener.expect("server");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let serving = gateway.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    (counts, gateway, address)
}

/// Asks for a stream from behind the link.
fn ask(lab: &Lab, gateway: SocketAddr, tokens: u32) -> TcpStream {
    let body = format!(
        r#"{{"stream": true, "seed": 3, "ignore_eos": true, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    let link = &lab.links()[0];
    let stream = link.on_client(|| TcpStream::connect(gateway).expect("connects")).expect("client");
    stream.set_read_timeout(Some(3 * PATIENCE)).expect("a timeout");
    (&stream).write_all(&post("/v1/chat/completions", "", &body)).expect("sends");
    stream
}

async fn until(what: &str, is_so: impl Fn() -> bool) -> Instant {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_held_within_a_second_and_then_given_up() {
    let link = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(link.clone()) else { return };
    let hold_max = Duration::from_secs(3);
    let (counts, gateway, address) = serve(&lab, Pace { hold_max, ..crate::paced::free() }).await;
    let stream = ask(&lab, address, 20_000);
    let reading = stream.try_clone().expect("a descriptor");
    std::thread::spawn(move || std::io::copy(&mut &reading, &mut std::io::sink()));
    let view = || gateway.streams().first().map(|stream| (stream.generated, stream.held));
    until("tokens", || view().is_some_and(|(tokens, _)| tokens > 30)).await;
    lab.set(link.blackout()).expect("running");
    let silent = Instant::now();
    let held = until("a hold", || view().is_some_and(|(_, held)| held)).await - silent;
    assert!(held < Duration::from_secs(1), "held after {held:?}");
    let given_up = until("the end of the work", || counts.aborted().requests == 1).await - silent;
    // From when the hold began, which was told of a moment later.
    assert!(given_up < hold_max + Duration::from_millis(1200), "given up after {given_up:?}");
    assert!(gateway.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_clean_link_carries_all_that_a_fast_engine_generates() {
    let link = LinkSpec::delayed(Duration::from_millis(50)).expect("possible");
    let Some(lab) = lab(link) else { return };
    let (_, _, address) = serve(&lab, crate::paced::free()).await;
    let tokens = 400;
    let stream = ask(&lab, address, tokens);
    let asked = Instant::now();
    let read = move || {
        let mut answer = String::new();
        (&stream).read_to_string(&mut answer).expect("reads");
        assert!(unchunked(&answer).1.ends_with("data: [DONE]\n\n"), "{answer}");
    };
    tokio::task::spawn_blocking(read).await.expect("no panic");
    let rate = f64::from(tokens) / asked.elapsed().as_secs_f64();
    println!("{rate:.1} tokens/s over 100 ms");
    // The demo engine's for one request, less the first round trips.
    assert!(rate > 30.0, "{rate} tokens/s");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrow_link_carries_is_more_text_and_less_frame() {
    // A sixth of what the engine's answer takes in its own frames: eight tokens/s of some 240 bytes.
    let link = LinkSpec::delayed(Duration::from_millis(30)).expect("possible");
    let narrow = link.clone().with_rate(16_000).expect("possible");
    let Some(lab) = lab(link) else { return };
    let (_, _, address) = serve(&lab, crate::paced::free()).await;
    let text = |mut stream: TcpStream| {
        let began = Instant::now();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        let (_, body) = unchunked(&answer);
        let events: Vec<serde_json::Value> = body
            .split_terminator("\n\n")
            .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
            .collect();
        let content = |event: &serde_json::Value| {
            event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
        };
        let text: String = events.iter().map(content).collect();
        assert_eq!(events.last().expect("events")["choices"][0]["finish_reason"], "length");
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
        (text, events.len(), began.elapsed())
    };
    let tokens = 250;
    let wide = ask(&lab, address, tokens);
    let (whole, events, _) =
        tokio::task::spawn_blocking(move || text(wide)).await.expect("no panic");
    assert!(events > 245, "one for each token: {events}");
    lab.set(narrow).expect("running");
    let slow = ask(&lab, address, tokens);
    let (same, fewer, took) =
        tokio::task::spawn_blocking(move || text(slow)).await.expect("no panic");
    assert_eq!(same, whole);
    println!("{tokens} tokens in {fewer} events and {took:?}, {events} without the narrow link");
    assert!(fewer < events / 2, "{fewer} events of {events}");
    let in_frames = Duration::from_secs_f64(f64::from(tokens) * 240.0 * 8.0 / 16_000.0);
    assert!(took < in_frames / 2, "{took:?}, {in_frames:?} in frames of their own");
}
