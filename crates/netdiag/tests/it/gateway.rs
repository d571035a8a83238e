//! `netdiag gateway`, in front of the lab's demo engine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use netdiag_lab::engine::{Engine, Settings};
use rustix::process::Signal;
use serde_json::Value;

use crate::dashboard::dashboard;
use crate::dashboard_page::Look;
use crate::support::{DEADLINE, Running, get, netdiag, until};

/// A demo engine on a thread of its own.
pub(crate) fn engine() -> (Engine, SocketAddr) {
    let engine = Engine::try_new(Settings::default()).expect("valid");
    let (sender, receiver) = std::sync::mpsc::channel();
    let serving = engine.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
            sender.send(listener.local_addr().expect("bound")).expect("waited for");
            serving.serve(listener, std::future::pending()).await;
        });
    });
    (engine, receiver.recv().expect("an address"))
}

pub(crate) fn gateway(engine: SocketAddr, args: &[&str]) -> Running {
    let url = format!("http://{engine}");
    let mut command = netdiag(["gateway", "--listen", "127.0.0.1:0", "--upstream", &url]);
    command.args(args);
    Running::start(command)
}

/// The same, and where it listens for clients and for those who run it.
pub(crate) fn gateway_with_admin(
    engine: SocketAddr,
    args: &[&str],
) -> (Running, SocketAddr, SocketAddr) {
    let mut running = gateway(engine, &[&["--admin-listen", "127.0.0.1:0"], args].concat());
    let line = running.line_with("gateway on http://");
    let found = |words: &str| -> SocketAddr {
        let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("{words} in {line}"));
        let end = rest.find([';', ' ']).unwrap_or(rest.len());
        rest[..end].parse().expect("an address")
    };
    let (clients, admin) = (found("gateway on http://"), found("operation on http://"));
    (running, clients, admin)
}

/// Asks for a stream of so many tokens.
pub(crate) fn ask(gateway: SocketAddr, tokens: u32) -> TcpStream {
    let body = format!(
        r#"{{"model": "netdiag-demo", "stream": true, "ignore_eos": true, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#
    );
    let mut stream = TcpStream::connect(gateway).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-secret\r\n\
         connection: close\r\nx-netdiag-report: 1\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sends");
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    text
}

#[test]
fn streams_pass_and_are_told_of() {
    let (engine, address) = engine();
    let (running, clients, admin) = gateway_with_admin(address, &["--log-level", "debug"]);
    let text = rest(ask(clients, 20));
    assert!(text.contains("data: [DONE]") && text.contains(": netdiag {"), "{text}");

    let long = ask(clients, 4000);
    let streams = || -> Value {
        let (status, body) = get(admin, "/v1/netdiag/streams");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    };
    until("a stream with tokens", || {
        streams()["streams"][0]["generated"].as_u64().filter(|&tokens| tokens > 3)
    });
    assert_eq!(streams()["streams"][0]["model"], "netdiag-demo");
    assert_eq!(get(admin, "/readyz").0, 200);
    drop(long);
    until("the engine's work to end", || (engine.aborted().requests == 1).then_some(()));
    let metrics = until("the streams' ends", || {
        let (_, metrics) = get(admin, "/metrics");
        metrics.contains("streams_ended_total{end=\"client_gone\"} 1").then_some(metrics)
    });
    let ttft = "gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name=\"chat\",\
        gen_ai_request_model=\"netdiag-demo\"} 2";
    assert!(metrics.contains(ttft), "{metrics}");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    let stderr = stderr.join("\n");
    assert!(stderr.contains("stream ended") && !stderr.contains("sk-secret"), "{stderr}");
}

#[test]
fn sigterm_cuts_nobody_in_the_middle_of_an_event() {
    let (_, address) = engine();
    let mut running = gateway(address, &["--drain", "0.5"]);
    let clients = running.address_of("gateway on");
    let streams: Vec<TcpStream> = (0..10)
        .map(|_| {
            // Of ten of these, none has to wait for a place in the engine.
            let mut stream = ask(clients, 20_000);
            stream.read_exact(&mut [0; 1000]).expect("has begun");
            stream
        })
        .collect();
    let readers: Vec<_> =
        streams.into_iter().map(|stream| std::thread::spawn(|| rest(stream))).collect();
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    for reader in readers {
        let text = reader.join().expect("no panic");
        assert!(text.contains("\"code\":\"gateway_draining\""), "{text}");
        assert!(text.ends_with("\n\n\r\n0\r\n\r\n"), "{text}");
    }
}

#[test]
fn an_engine_that_is_not_there_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let nobody = listener.local_addr().expect("bound");
    drop(listener);
    let mut running = gateway(nobody, &[]);
    let clients = running.address_of("gateway on");
    running.line_with("engine is left out");
    let (status, body) = get(clients, "/v1/models");
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("engine_unreachable"), "{body}");
    running.end_by(Signal::INT);
}

#[test]
fn the_dashboard_lists_its_streams() {
    let (_engine, address) = engine();
    let mut running = gateway(address, &["--admin-listen", "127.0.0.1:0"]);
    let line = running.line_with("gateway on http://");
    let found = |words: &str| {
        let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("{words} in {line}"));
        rest.split([';', ' ']).next().unwrap_or_default().to_owned()
    };
    let clients: SocketAddr = found("gateway on http://").parse().expect("an address");
    let admin = found("operation on ");
    let mut stream = ask(clients, 4000);
    let mut head = [0; 4096];
    let length = stream.read(&mut head).expect("an answer");
    let head = String::from_utf8_lossy(&head[..length]);
    let id = head.lines().find_map(|line| line.strip_prefix("x-netdiag-stream-id: "));
    let id = id.unwrap_or_else(|| panic!("no name in {head}"));
    let (_dashboard, page) = dashboard(&["--gateway", &admin]);
    let listed: Value = serde_json::from_str(&get(page, "/api/gateway").1).expect("JSON");
    let first = &listed["streams"][0];
    assert_eq!(listed["total"], 1, "{listed}");
    // Whoever knows the whole name may take the stream.
    let shown = first["id"].as_str().expect("a name");
    assert!(id.starts_with(shown) && shown.len() < id.len(), "{listed}");
    assert!(first.get("cause").is_some() && first["model"] == "netdiag-demo", "{listed}");
    let test = "gateway::the_dashboard_lists_its_streams";
    let folder = std::env::var("NETDIAG_TEST_PICTURES").ok();
    let more: Vec<&str> = std::iter::once(shown).chain(folder.as_deref()).collect();
    let Some(mut look) = Look::start(test, "gateway.js", page, &more) else { return };
    look.expect("listed");
    drop(stream);
    look.tell("gone");
    look.end();
}
