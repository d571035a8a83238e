//! Streams that share an HTTP/2 connection: paced together, held together, given up one by one.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use netdiag_gateway::{Adapter, Pace, Settings};
use netdiag_lab::engine::{self, RequestState};
use netdiag_lab::{Lab, LinkSpec};
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::held::{in_lab, lab, until};
use crate::paced::free;
use crate::support::{PATIENCE, Running, demo, settings, start};

type Sender = http2::SendRequest<Full<Bytes>>;

/// A connection whose streams have so much room each until their bodies are read.
async fn connected(io: TcpStream, window: u32) -> Sender {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(io))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &Sender, tokens: u32, extra: &str) -> Response<Incoming> {
    let mut sender = sender.clone();
    let body = format!(
        r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "seed": 5, "temperature": 0,
        "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    let request =
        Request::post("http://localhost/v1/chat/completions").header("x-netdiag-report", extra);
    let request = request.body(Full::new(Bytes::from(body))).expect("valid");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response
}

async fn all(response: Response<Incoming>) -> String {
    let body = timeout(PATIENCE * 3, response.into_body().collect()).await.expect("in time");
    String::from_utf8_lossy(&body.expect("a body").to_bytes()).into_owned()
}

fn fast() -> engine::Settings {
    let step = Duration::from_millis(1);
    let model = engine::Model { step, step_per_seat: Duration::ZERO, ..engine::Model::default() };
    engine::Settings { model, ..engine::Settings::default() }
}

async fn over(lab: &Lab, gateway: &Running) -> Sender {
    let io = lab
        .on_client(|| std::net::TcpStream::connect(gateway.address).expect("connects"))
        .expect("a namespace");
    io.set_nonblocking(true).expect("a socket");
    connected(TcpStream::from_std(io).expect("a socket"), 1 << 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_has_the_greatest_rate_and_no_more() {
    let (_, engine) = demo(fast()).await;
    let tps = |rate| Tps::try_new(rate).expect("valid");
    let range = TpsRange::try_new(tps(1.0), tps(20.0)).expect("in order");
    let gateway =
        start(Settings { pace: Some(Pace { range, ..free() }), ..settings(&[engine]) }).await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    let sender = connected(io, 1 << 20).await;
    let began = Instant::now();
    let streams = (0..5).map(|_| async { all(ask(&sender, 30, "1").await).await });
    for body in futures_util::future::join_all(streams).await {
        let (_, report) = body.split_once("data: [DONE]\n\n: netdiag ").expect("a report");
        let report: serde_json::Value = serde_json::from_str(report.trim_end()).expect("JSON");
        assert_eq!(report["tokens"]["sent"], 30, "{report}");
        let acked = report["tokens"]["acked"].as_u64().expect("a number");
        assert!((25..=30).contains(&acked), "{report}");
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1300), "{took:?} for 30 tokens at 20 tokens/s");
    // One after the other they would take seven seconds.
    assert!(took < Duration::from_secs(4), "{took:?} for five times 30 tokens at 20 tokens/s");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_blackout_all_streams_of_a_connection_are_held() {
    let spec = LinkSpec::delayed(Duration::from_millis(25)).expect("possible");
    let Some(lab) = lab(spec.clone()) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let told = Settings { adapter: Adapter::Netdiag, pace: Some(free()), ..settings(&[address]) };
    let gateway = in_lab(&lab, told).await;
    let sender = over(&lab, &gateway).await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(tokio::spawn(all(ask(&sender, 200, "0").await)));
    }
    until("tokens flow", || engine.tokens().acked > 100).await;
    lab.set(spec.clone().blackout()).expect("running");
    let silent = Instant::now();
    let paused = || {
        let requests = engine.requests();
        requests.len() == 4 && requests.iter().all(|r| r.state == RequestState::Paused)
    };
    let held = until("paused", paused).await - silent;
    assert!(held <= Duration::from_secs(1), "all of them after {held:?}");
    lab.set(spec).expect("running");
    for body in bodies {
        let body = body.await.expect("no panic");
        assert!(body.ends_with("data: [DONE]\n\n"), "{}", &body[body.len() - 300..]);
    }
    assert_eq!(engine.tokens().generated, 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrow_link_carries_is_shared() {
    let link = LinkSpec::delayed(Duration::from_millis(30)).expect("possible");
    // Half of what the engine generates, in events of eight tokens.
    let narrow = link.clone().with_rate(24_000).expect("possible");
    let Some(lab) = lab(link) else { return };
    let (engine, address) = demo(engine::Settings::default()).await;
    let settings = Settings { pace: Some(free()), ..settings(&[address]) };
    let gateway = in_lab(&lab, settings).await;
    let sender = over(&lab, &gateway).await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(tokio::spawn(all(ask(&sender, 5000, "0").await)));
    }
    let sent = || gateway.gateway.streams().iter().map(|s| s.sent).collect::<Vec<_>>();
    until("all go", || sent().len() == 4 && sent().iter().all(|&sent| sent > 30)).await;
    lab.set(narrow).expect("running");
    // The queue of the path fills.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = sent();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let shares: Vec<u64> = sent().iter().zip(&before).map(|(now, then)| now - then).collect();
    println!("{shares:?} in 6 s, {} generated", engine.tokens().generated);
    let (least, most) = (shares.iter().min().expect("some"), shares.iter().max().expect("some"));
    assert!(*least > 20 && least * 3 >= most * 2, "{shares:?}");
    bodies.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Over HTTP/1.1 the socket shows it; here the connection goes on, and only the stream's window is shut.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_window_stays_shut_is_held_and_then_given_up() {
    for pause in [false, true] {
        let (engine, address) = demo(fast()).await;
        let hold_max = Duration::from_millis(1500);
        let pace = Some(Pace { hold_max, ..free() });
        let adapter = if pause { Adapter::Netdiag } else { Adapter::Generic };
        let gateway = start(Settings { pace, adapter, ..settings(&[address]) }).await;
        let io = TcpStream::connect(gateway.address).await.expect("connects");
        let sender = connected(io, 8 * 1024).await;
        let began = Instant::now();
        let mut stuck = ask(&sender, 100_000, "0").await;
        until("held", || gateway.gateway.streams().iter().any(|stream| stream.held)).await;
        if pause {
            let paused =
                || engine.requests().first().is_some_and(|r| r.state == RequestState::Paused);
            until("paused", paused).await;
        }
        // Others of the connection do not notice.
        let other = all(ask(&sender, 100, "0").await).await;
        assert!(other.ends_with("data: [DONE]\n\n"), "{other}");
        until("given up", || engine.aborted().requests == 1).await;
        let after = began.elapsed();
        assert!(after >= hold_max && after < hold_max * 2, "after {after:?}");
        assert!(gateway.gateway.streams().is_empty());
        // A client that reads at last has what was sent, and no end that looks like one.
        let end = async {
            loop {
                match stuck.body_mut().frame().await {
                    Some(Ok(frame)) => drop(frame),
                    other => return other.map(|frame| frame.is_err()),
                }
            }
        };
        assert_eq!(timeout(PATIENCE, end).await.expect("in time"), Some(true), "it is reset");
        let other = all(ask(&sender, 10, "0").await).await;
        assert!(other.ends_with("data: [DONE]\n\n"), "{other}");
    }
}
