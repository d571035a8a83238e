//! The demo engine of `netdiag-lab` paced as any engine would be: by polling a real hint server.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netdiag_lab::client::{self, Load};
use netdiag_lab::engine::{Engine, HintServer, Settings};
use netdiag_lab::metrics::Reader;
use netdiag_telemetry::Tps;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

use crate::support::{Running, csv_path, netdiag};

/// Tokens/s that a client gets from the engine during two seconds.
async fn rate(engine: SocketAddr) -> f64 {
    let load = Load {
        target: engine,
        streams: 1,
        ramp: Duration::ZERO,
        duration: Duration::from_secs(2),
        model: Settings::default().name,
        prompt: "Hello".to_owned(),
        output_tokens: 1000..=1000,
        reader: Reader {
            rate: Tps::try_new(10.0).expect("a rate"),
            expected_ttft: Duration::from_secs(1),
        },
        leavers: 0.0,
        patience: Duration::ZERO,
        seed: 1,
    };
    let outcome = client::run(load, Instant::now(), |_| TcpSocket::new_v4()).await.expect("valid");
    let [stream] = &*outcome.streams else { panic!("{:?}", outcome.streams) };
    assert_eq!(stream.failure, None);
    let (first, last) = (stream.deliveries[0], stream.deliveries[stream.deliveries.len() - 1]);
    (stream.deliveries.len() - 1) as f64 / (last - first).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_follows_a_hint_server_and_runs_free_without_one() {
    let (_folder, csv) = csv_path();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let text = format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n{now},20000,21000,0\n");
    std::fs::write(&csv, text).expect("file");
    let mut command = netdiag(["serve", "--port", "0", "--max-tps", "15", "--stale-after", "600"]);
    command.arg("--csv").arg(&csv);
    let mut hints = Running::start(command);
    let server = HintServer::try_new(hints.address(), None, Duration::from_millis(50));
    let server = server.expect("valid");

    let engine = Engine::try_new(Settings::default()).expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let (serving, following) = (engine.clone(), engine);
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    tokio::spawn(async move { following.follow(&server, TcpSocket::new_v4).await });

    let paced = rate(address).await;
    assert!((12.0..18.0).contains(&paced), "{paced} tokens/s at 15");
    hints.end_by(Signal::TERM);
    let free = rate(address).await;
    assert!(free > 25.0, "{free} tokens/s without a hint server");
}
