//! The engine and its clients over real sockets: what the kernels say of the tokens.

use std::net::SocketAddr;
use std::time::Duration;

use netdiag_lab::client::{self, Load};
use netdiag_lab::engine::{Engine, Finish, Model, RequestState, RequestView, Settings};
use netdiag_lab::metrics::{Ending, Reader, Summary, TokenCounts};
use netdiag_telemetry::Tps;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// For what must happen, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A quick engine: a step of 2 ms, and a token for everybody.
fn quick() -> Model {
    Model {
        step: Duration::from_millis(2),
        step_per_seat: Duration::ZERO,
        step_per_prompt_token: Duration::ZERO,
        ..Model::default()
    }
}

async fn start(model: Model) -> (Engine, SocketAddr) {
    let settings = Settings { model, ..Settings::default() };
    let engine = Engine::try_new(settings).expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let serving = engine.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    (engine, address)
}

fn load(target: SocketAddr) -> Load {
    Load {
        target,
        streams: 4,
        ramp: Duration::from_millis(100),
        duration: Duration::from_secs(2),
        model: "netdiag-demo".to_owned(),
        prompt: "Tell me about the keepers.".to_owned(),
        output_tokens: 50..=150,
        reader: reader(),
        leavers: 0.0,
        patience: Duration::from_secs(1),
        seed: 7,
    }
}

fn reader() -> Reader {
    Reader { rate: Tps::try_new(10.0).expect("valid"), expected_ttft: Duration::from_secs(1) }
}

/// Sends a request for a streamed answer of `tokens` tokens.
async fn ask(address: SocketAddr, tokens: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let body = format!(
        r#"{{"model": "netdiag-demo", "prompt": "x", "max_tokens": {tokens}, "ignore_eos": true, "stream": true}}"#
    );
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("send");
    stream
}

/// The engine's view of its one request once `is` holds of it.
async fn when(engine: &Engine, id: &str, is: impl Fn(&RequestView) -> bool) -> RequestView {
    let wait = async {
        loop {
            if let Ok(view) = engine.request(id)
                && is(&view)
            {
                return view;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?}", engine.request(id)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_receive_is_what_was_acknowledged() {
    let (engine, address) = start(quick()).await;
    let outcome = client::run(load(address), Instant::now(), |_| TcpSocket::new_v4()).await;
    let outcome = outcome.expect("valid");
    let mut records = Vec::new();
    // By client, and each one's in their order: a step back in time is the next client's first.
    let clients = outcome.streams.chunk_by(|a, b| a.submitted <= b.submitted);
    let begun: Vec<_> = clients.map(|streams| streams[0].submitted).collect();
    assert!(begun.len() == 4 && begun.is_sorted(), "{begun:?}");
    for stream in &outcome.streams {
        assert_eq!(stream.failure, None);
        assert!(stream.address.is_some_and(|address| address.ip().is_loopback()));
        let id = stream.request_id.as_deref().expect("answered");
        let view = engine.request(id).expect("known");
        assert_eq!(view.peer, stream.address);
        assert_eq!(view.output_tokens, stream.output_tokens);
        assert!(view.tokens.balances(), "{view:?}");
        let received = stream.deliveries.len() as u64;
        match stream.ending {
            Ending::Complete => {
                assert_eq!(received, u64::from(stream.output_tokens));
                let all =
                    TokenCounts { generated: received, acked: received, ..Default::default() };
                assert_eq!(view.tokens, all);
            }
            Ending::Cut(at) => {
                assert_eq!(at, Duration::from_secs(2));
                // The client's kernel may take its time to say so.
                when(&engine, id, |view| view.tokens.acked >= received).await;
            }
            other => panic!("{other:?}"),
        }
        assert!(stream.deliveries.is_sorted());
        records.push(stream.record(reader(), view.tokens));
    }
    let summary = Summary::of(&records, engine.tokens(), Duration::from_secs(2));
    // Four streams at 2 ms a token for 2 s are at most 4000 tokens; a busy machine makes fewer.
    assert!(summary.tokens.generated > 400, "{summary:?}");
    assert_eq!((summary.failed, summary.tokens.wasted), (0, 0), "{summary:?}");
    assert!(summary.qoe_mean > Some(0.9), "{summary:?}");
    // The clients are still there, and still read by their kernels.
    assert!(engine.tokens().balances());
    drop(outcome);
    let gone = async {
        while engine.tokens().in_flight > 0 || !engine.requests().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("settled");
    assert!(engine.tokens().balances());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_is_one_segment() {
    let (_, address) = start(quick()).await;
    let mut stream = ask(address, 200).await;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("[DONE]") {
        let length =
            timeout(PATIENCE, stream.read(&mut buffer)).await.expect("more").expect("read");
        text.push_str(std::str::from_utf8(&buffer[..length]).expect("ASCII"));
    }
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("x-request-id: cmpl-0"),
        "{head}"
    );
    assert_eq!(body.matches("data: ").count(), 202);
    // The handshake, an ACK of the request, the head, the tokens, the end; perhaps the chunk that ends the body.
    let segments = netdiag_tcpinfo::read(&stream).expect("TCP_INFO").segs_in.expect("counted");
    assert!((203..=205).contains(&segments), "{segments} segments");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_aborts_its_request_at_once() {
    let (engine, address) = start(quick()).await;
    let mut latencies = Vec::new();
    for round in 0..20 {
        let stream = ask(address, 100_000).await;
        let id = format!("cmpl-{round}");
        when(&engine, &id, |view| view.tokens.generated > 5).await;
        // Unread bytes make it a reset, none make it a FIN.
        if round % 2 == 0 {
            let mut head = [0; 256];
            stream.try_read(&mut head).expect("the head");
        }
        let closed = Instant::now();
        drop(stream);
        let view = when(&engine, &id, |view| view.state == RequestState::Finished).await;
        latencies.push(closed.elapsed());
        assert_eq!(view.finish_reason, Some(Finish::Abort));
        let view = when(&engine, &id, |view| view.tokens.in_flight == 0).await;
        assert!(view.tokens.balances(), "{view:?}");
    }
    latencies.sort_unstable();
    assert!(latencies[10] < Duration::from_millis(50), "{latencies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_goes_on_for_a_client_that_does_not_read() {
    let (engine, address) = start(Model { step: Duration::from_micros(50), ..quick() }).await;
    let stream = ask(address, 60_000).await;
    let view = when(&engine, "cmpl-0", |view| view.state == RequestState::Finished).await;
    assert_eq!(view.finish_reason, Some(Finish::Length));
    // Some megabytes of events fit into no socket buffer of loopback.
    assert_eq!(view.tokens.generated, 60_000);
    assert!(view.tokens.in_flight > 10_000, "{view:?}");
    let acked = view.tokens.acked;
    assert!(acked > 100, "the client's kernel took what it has room for: {view:?}");
    drop(stream);
    let view = when(&engine, "cmpl-0", |view| view.tokens.in_flight == 0).await;
    assert!(view.tokens.wasted > 10_000 && view.tokens.balances(), "{view:?}");
    assert_eq!(engine.tokens(), view.tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn impatient_clients_leave_a_stream_that_stalls() {
    let (engine, address) = start(quick()).await;
    let (leavers, patience) = (1.0, Duration::from_millis(300));
    let load =
        Load { streams: 2, leavers, patience, output_tokens: 100_000..=100_000, ..load(address) };
    let pausing = engine.clone();
    let pauser = tokio::spawn(async move {
        sleep(Duration::from_millis(700)).await;
        for request in pausing.requests() {
            pausing.pause(&request.id).expect("running");
        }
    });
    let outcome = client::run(load, Instant::now(), |_| TcpSocket::new_v4()).await.expect("valid");
    pauser.await.expect("no panic");
    let left: Vec<_> =
        outcome.streams.iter().filter(|s| matches!(s.ending, Ending::Left(_))).collect();
    assert_eq!(left.len(), 2, "{:?}", outcome.streams.iter().map(|s| s.ending).collect::<Vec<_>>());
    for stream in left {
        let Ending::Left(at) = stream.ending else { continue };
        let waited = at - *stream.deliveries.last().expect("tokens");
        assert!(waited >= patience && waited < 4 * patience, "{waited:?}");
        let view = engine.request(stream.request_id.as_deref().expect("answered"));
        assert_eq!(view.expect("known").finish_reason, Some(Finish::Abort));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_misbehave_are_failures_with_a_reason() {
    let check = async |answer: &'static [u8], expected: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let target = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            // Its head has come when its first bytes have; the rest is of no interest.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        });
        let duration = Duration::from_millis(900);
        let load = Load { streams: 1, duration, ..load(target) };
        let outcome =
            client::run(load, Instant::now(), |_| TcpSocket::new_v4()).await.expect("valid");
        server.await.expect("no panic");
        assert_eq!(outcome.streams[0].ending, Ending::Failed);
        let failure = outcome.streams[0].failure.as_deref().expect("a reason");
        assert!(failure.contains(expected), "{failure}");
    };
    check(b"", "HTTP: ").await;
    check(b"nonsense\r\n\r\n", "HTTP: ").await;
    check(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "the server answered 503").await;
    check(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\ndata: {oops\n", "`{oops`").await;
    check(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n:a\n", "ended before it was complete")
        .await;
    check(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n:a\n", "HTTP: ").await;
}
