//! `netdiag up` answers with the whole contract, exposes nothing by accident, and ends cleanly.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Running, complaint, csv_path, get, hint, netdiag, output, rows, until};

const FIELDS: [&str; 14] = [
    "current_tps",
    "sleep_seconds",
    "target_tps",
    "min_tps",
    "max_tps",
    "health",
    "anomaly",
    "anomaly_score",
    "state",
    "reason",
    "hold",
    "scope",
    "age_seconds",
    "source",
];

fn up(args: &[&str]) -> Running {
    let fixed = ["up", "--listen", "127.0.0.1:0", "--interval", "0.1", "--window", "1"];
    Running::start(netdiag(fixed.iter().chain(args)))
}

#[test]
fn every_field_of_the_contract_is_answered() {
    let mut running = up(&[]);
    let address = running.address();
    for path in ["/", "/v1/hint"] {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{body}");
        let hint: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let found: Vec<&String> = hint.as_object().expect("an object").keys().collect();
        assert!(FIELDS.iter().all(|field| hint.get(field).is_some()), "{found:?}");
        assert_eq!((&hint["min_tps"], &hint["max_tps"]), (&5.0.into(), &80.0.into()));
    }
    // Once there is telemetry, the source is named and the server ready.
    let hint =
        until("telemetry", || Some(hint(address, "")).filter(|hint| hint["source"].is_string()));
    assert_ne!(hint["state"], "stale", "{hint}");
    assert!(hint["age_seconds"].as_f64().is_some_and(|age| age < 2.0), "{hint}");
    let (status, _) = get(address, "/readyz");
    assert_eq!(status, 200);
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn streams_and_peers_have_hints() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let (_server, _) = listener.accept().expect("accepts");
    let selected = port.to_string();
    let mut running = up(&["--source", "sockdiag", "--loopback", "--port", &selected]);
    let address = running.address();
    let peer = client.local_addr().expect("an address");
    let stream = until("the stream", || {
        let (_, body) = get(address, "/v1/streams");
        let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        (all["total"] == 1).then(|| all["streams"][0].clone())
    });
    assert_eq!(stream["peer"], peer.to_string());
    assert_eq!(hint(address, "?peer=127.0.0.1")["scope"], "peer 127.0.0.1");
    assert_eq!(hint(address, &format!("?peer={peer}"))["scope"], format!("stream {peer}"));
    drop((client, listener));
}

#[test]
fn rows_can_be_written_beside() {
    let (_folder, path) = csv_path();
    let mut running = up(&["--csv", path.to_str().expect("text")]);
    running.address();
    until("three rows", || (rows(&path).len() >= 3).then_some(()));
    let (status, stderr) = running.end_by(Signal::INT);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn hints_outlive_a_file_that_cannot_grow() {
    let (_folder, path) = csv_path();
    // A limit on the size of files stands in for a full disk: the kernel refuses the write (EFBIG).
    let mut command = std::process::Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 2; \
                  exec \"$0\" up --listen 127.0.0.1:0 --interval 0.01 --window 1 --csv \"$1\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_netdiag")]).arg(&path);
    let mut running = Running::start(command);
    let address = running.address();
    running.line_with("hints go on without the file");
    let fresh = hint(address, "");
    assert_ne!(fresh["state"], "stale", "{fresh}");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn open_event_streams_do_not_delay_the_end() {
    use std::io::{Read as _, Write as _};
    let mut running = up(&[]);
    let address = running.address();
    let mut events = TcpStream::connect(address).expect("connects");
    write!(events, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("asks");
    let mut some = [0; 16];
    events.read_exact(&mut some).expect("an answer");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let check = |args: &[&str]| {
        let output = output(netdiag(args));
        assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
        let told = complaint(&output);
        assert!(told.contains(&address) && told.contains("--listen ADDR:PORT"), "{told}");
    };
    check(&["up", "--listen", &address]);
    let (_, port) = address.rsplit_once(':').expect("a port");
    check(&["serve", "--port", port]);
}

#[test]
fn nothing_is_exposed_by_accident() {
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "short").expect("file");
    let token = token.to_str().expect("text");
    let check = |args: &[&str], told: &str| {
        let output = output(netdiag(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", complaint(&output));
        assert!(complaint(&output).contains(told), "{args:?}: {}", complaint(&output));
    };
    for command in ["up", "serve"] {
        check(&[command, "--listen", "0.0.0.0:0"], "--auth-token-file, or --no-auth");
        check(&[command, "--listen", "[::]:0"], "--no-auth");
        check(&[command, "--auth-token-file", token], "shorter than 16");
        check(&[command, "--auth-token-file", "/no/such"], "/no/such");
        check(&[command, "--listen", "nowhere"], "--listen nowhere");
        check(&[command, "--listen", "192.0.2.1:0", "--no-auth"], "no such address");
        check(&[command, "--min-tps", "90"], "--min-tps 90 is above --max-tps 80 (the default)");
        for bad in ["0", "-5", "nan", "inf", "1e9", "fast"] {
            let flag = format!("--max-tps={bad}");
            check(&[command, &flag], &format!("--max-tps {bad}"));
        }
        check(
            &[command, "--when-stale", "stop"],
            "--when-stale stop: must be one of max, min, hold",
        );
    }
    check(&["serve", "--port", "65536"], "--port 65536: must be a TCP port");
}

/// Streams of small writes over loopback, one token each, until they are dropped.
struct Streams {
    over: Arc<AtomicBool>,
    port: u16,
}

impl Streams {
    fn start(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            let (mut server, _) = listener.accept().expect("accepts");
            server.set_nodelay(true).expect("a socket");
            let stop = Arc::clone(&over);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && server.write_all(&[b'.'; 230]).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
        Self { over, port }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_engine_is_shared_among_its_streams() {
    let streams = Streams::start(3);
    let port = streams.port.to_string();
    let fixed = ["up", "--listen", "127.0.0.1:0", "--loopback", "--source", "sockdiag"];
    let more = ["--port", &port, "--capacity-tps", "90"];
    let mut running = Running::start(netdiag(fixed.iter().chain(&more)));
    let address = running.address();
    let shares = until("a share for each", || {
        let (_, body) = get(address, "/v1/streams");
        let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let streams = all["streams"].as_array().expect("a list").clone();
        let rate = |stream: &serde_json::Value| stream["hint"]["current_tps"].as_f64();
        let shares: Vec<f64> = streams.iter().filter_map(rate).collect();
        (shares.len() == 3 && shares.iter().all(|share| *share < 45.0)).then_some(shares)
    });
    assert!(shares.iter().all(|share| (29.0..=31.0).contains(share)), "{shares:?}");
    let hint = hint(address, "");
    let each = hint["current_tps"].as_f64().expect("a rate");
    assert!((29.0..=31.0).contains(&each), "{hint}");
    let told = hint["reason"].as_str().expect("a reason");
    assert!(told.starts_with("3 streams: 3 clear; 9"), "{told}");
    running.end_by(Signal::TERM);
}
