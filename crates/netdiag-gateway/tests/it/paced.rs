//! Streams at the pace of their clients' paths.

use std::time::{Duration, Instant};

use netdiag_gateway::{Pace, Settings};
use netdiag_lab::engine;
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, demo, exchange, post, settings, start, unchunked};

fn tps(rate: f64) -> Tps {
    Tps::try_new(rate).expect("valid")
}

/// A pace that a clean path never notices.
pub(crate) fn free() -> Pace {
    let range = TpsRange::try_new(tps(1.0), tps(10_000.0)).expect("in order");
    Pace { range, reading: None, hold_max: Duration::from_secs(60) }
}

fn long(tokens: u32) -> Vec<u8> {
    let body = format!(
        r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    post("/v1/chat/completions", "", &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_spaced_at_the_greatest_rate() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let range = TpsRange::try_new(tps(1.0), tps(20.0)).expect("in order");
    let pace = Some(Pace { range, ..free() });
    let gateway = start(Settings { pace, ..settings(&[engine]) }).await;
    let began = Instant::now();
    let (_, body) = unchunked(&exchange(gateway.address, &long(30)).await);
    let took = began.elapsed();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    assert_eq!(body.matches("\"content\":\"").count(), 31, "the role and 30 tokens");
    assert!(took > Duration::from_millis(1300), "{took:?} for 30 tokens at 20 tokens/s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_engine_is_not_slowed_on_a_clean_path() {
    let model = engine::Model {
        step: Duration::from_millis(1),
        step_per_seat: Duration::ZERO,
        ..engine::Model::default()
    };
    let (_, engine) = demo(engine::Settings { model, ..engine::Settings::default() }).await;
    let gateway = start(Settings { pace: Some(free()), ..settings(&[engine]) }).await;
    let request = long(2000);
    let took = async |address| {
        let began = Instant::now();
        let (_, body) = unchunked(&exchange(address, &request).await);
        assert!(body.ends_with("data: [DONE]\n\n"));
        began.elapsed()
    };
    let (direct, passed) = (took(engine).await, took(gateway.address).await);
    println!("2000 tokens in {direct:?}, and in {passed:?} through the gateway");
    assert!(passed < direct * 3 / 2, "{passed:?}, {direct:?} without it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_held_and_then_given_up() {
    // As fast as it gets, so that buffers fill within seconds.
    let model = engine::Model {
        step: Duration::from_millis(1),
        step_per_seat: Duration::ZERO,
        ..engine::Model::default()
    };
    let (counts, engine) = demo(engine::Settings { model, ..engine::Settings::default() }).await;
    let pace = Some(Pace { hold_max: Duration::from_millis(500), ..free() });
    let gateway = start(Settings { pace, ..settings(&[engine]) }).await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(gateway.address).await.expect("connects");
    stream.write_all(&long(200_000)).await.expect("sends");
    let held = async {
        while !gateway.gateway.streams().first().is_some_and(|stream| stream.held) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, held).await.expect("held");
    let given_up = async {
        while counts.aborted().requests == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, given_up).await.expect("given up");
    assert!(gateway.gateway.streams().is_empty());
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_client_that_leaves_is_noticed_at_once() {
    let (counts, engine) = demo(engine::Settings::default()).await;
    let range = TpsRange::try_new(tps(0.1), tps(0.2)).expect("in order");
    let gateway =
        start(Settings { pace: Some(Pace { range, ..free() }), ..settings(&[engine]) }).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&long(1000)).await.expect("sends");
    // The first token is there; the next would come in five seconds.
    while gateway.gateway.streams().first().is_none_or(|stream| stream.generated < 16) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = Instant::now();
    drop(stream);
    while counts.aborted().requests == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(left.elapsed() < Duration::from_millis(500), "{:?}", left.elapsed());
}
