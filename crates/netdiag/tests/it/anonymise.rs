//! `--anonymise`: over real connections of clients with addresses of their own, nothing that a process shows, writes, logs or sends
//! has one of those addresses in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netdiag_lab::Broker;
use rustix::process::Signal;
use serde_json::Value;

use crate::dashboard::dashboard;
use crate::gateway::{engine, gateway, gateway_with_admin};
use crate::support::{DEADLINE, Running, csv_path, get, hint, netdiag, until};

/// The clients. Loopback has room for addresses that nobody else has.
const CLIENTS: [&str; 2] = ["127.66.55.44", "127.77.66.55"];

/// What begins every pseudonym.
const NETWORK: &str = "fd6e:6574:6469:";

/// The forms in which a client's address could be told: as an address, as a level of a subject, as a mapped one, in hexadecimal.
const TRACES: [&str; 8] = [
    "127.66.55.44",
    "127.77.66.55",
    "127-66-55-44",
    "127-77-66-55",
    "127_66_55_44",
    "127_77_66_55",
    "7f42:372c",
    "7f4d:4237",
];

/// Panics if a client can be found in what `place` says.
fn check(place: &str, told: &str) {
    for trace in TRACES {
        assert!(!told.contains(trace), "{place} has {trace}:\n{told}");
    }
}

/// A connection from a client's address.
fn connect_from(client: &str, server: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let stream = runtime.expect("a runtime").block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(client.parse().expect("an address"), 0)).expect("bound");
        let stream = socket.connect(server).await.expect("connected");
        stream.into_std().expect("a stream")
    });
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

/// A server that writes to each client, which reads, until all of it is dropped.
struct Streams {
    port: u16,
    clients: Vec<SocketAddr>,
}

impl Streams {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut clients = Vec::new();
        for client in CLIENTS {
            let mut reader = connect_from(client, address);
            let (mut writer, peer) = listener.accept().expect("accepted");
            clients.push(peer);
            std::thread::spawn(move || {
                while writer.write_all(b"token").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while reader.read(&mut bytes).is_ok_and(|read| read > 0) {}
            });
        }
        Self { port: address.port(), clients }
    }
}

/// Everything that is said on the bus, from now on.
fn listen(broker: &Broker) -> Arc<Mutex<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("connects");
    let hello = "CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPING\r\n";
    stream.write_all(hello.as_bytes()).expect("subscribes");
    let heard = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&heard);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // The broker's own word has our address, which is another client's.
            if !line.starts_with("INFO ") {
                told.lock().expect("no panic").push_str(&format!("{line}\n"));
            }
        }
    });
    until("the subscription", || heard.lock().expect("no panic").contains("PONG").then_some(()));
    heard
}

/// The events of a stream until one has been heard that contains `text`.
fn events(address: SocketAddr, path: &str, text: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("asks");
    let mut told = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.expect("a line");
        told.push_str(&line);
        told.push('\n');
        if line.contains(text) {
            return told;
        }
    }
    panic!("no `{text}` in {told}");
}

/// The peers in a list of streams.
fn peers(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).expect("JSON");
    let streams = list["streams"].as_array().expect("a list");
    streams.iter().map(|stream| stream["peer"].as_str().expect("an address").to_owned()).collect()
}

#[test]
fn up_knows_clients_and_shows_none() {
    let streams = Streams::start();
    let broker = Broker::start().expect("a NATS server");
    let bus = listen(&broker);
    let (folder, csv) = csv_path();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").expect("written");
    let start = |more: &[&str]| -> Running {
        let port = streams.port.to_string();
        let fixed =
            ["up", "--loopback", "--listen", "127.0.0.1:0", "--port", &port, "--interval", "0.2"];
        let mut up = netdiag(fixed.iter().chain(more));
        up.env("NETDIAG_NO_DASHBOARD", "false");
        up.args(["--dashboard-listen", "127.0.0.1:0", "--log-level", "trace"]);
        Running::start(up)
    };
    let (secret, csv_flag) = (secret.to_str().expect("text"), csv.to_str().expect("text"));
    let url = broker.url();
    let hidden = ["--anonymise", "--anonymise-key-file", secret];
    let publish = ["--bus", &url, "--bus-scope", "host,peer,stream", "--csv", csv_flag];
    let mut up = start(&[&hidden[..], &publish].concat());
    let (hints, page) = (up.address(), up.address_of("dashboard on"));
    until("telemetry", || (get(hints, "/readyz").0 == 200).then_some(()));
    let list = until("the streams", || {
        let (_, list) = get(hints, "/v1/streams");
        let measured = !list.contains("nothing observed yet");
        (peers(&list).len() == CLIENTS.len() && measured).then_some(list)
    });
    check("/v1/streams", &list);
    assert!(peers(&list).iter().all(|peer| peer.starts_with(&format!("[{NETWORK}"))), "{list}");

    // Who knows the client is answered by that, and learns no pseudonym; who knows the pseudonym, too.
    for (client, shown) in streams.clients.iter().zip(CLIENTS) {
        let of_peer = hint(hints, &format!("?peer={shown}"));
        assert_eq!(of_peer["scope"], format!("peer {shown}"));
        assert!(of_peer["source"].is_string(), "{of_peer}");
        let of_stream = hint(hints, &format!("?peer={client}"));
        assert_eq!(of_stream["scope"], format!("stream {client}"));
        assert!(of_stream["source"].is_string(), "{of_stream}");
        assert!(!format!("{of_peer}{of_stream}").contains(NETWORK), "{of_peer} {of_stream}");
    }
    let unknown = hint(hints, "?peer=127.1.2.3");
    assert!(!unknown.to_string().contains(NETWORK), "{unknown}");
    assert_eq!(unknown["reason"], "no flow to 127.1.2.3 is known");
    for peer in peers(&list) {
        let found = hint(hints, &format!("?peer={peer}"));
        assert!(found["source"].is_string(), "{found}");
        assert_eq!(found["scope"], format!("stream {peer}"));
    }

    check("/v1/hint", &hint(hints, "").to_string());
    check("/v1/events", &events(hints, "/v1/events?rows=true", "current_tps"));
    for (client, pseudonym) in streams.clients.iter().zip(peers(&list)) {
        let of_pseudonym = events(hints, &format!("/v1/events?peer={pseudonym}"), "current_tps");
        check("/v1/events of a pseudonym", &of_pseudonym);
        assert!(of_pseudonym.contains(&pseudonym), "{of_pseudonym}");
        // Who asks by an address is told of that, and no pseudonym.
        let of_client = events(hints, &format!("/v1/events?peer={client}"), "current_tps");
        assert!(of_client.contains(&format!("stream {client}")), "{of_client}");
        assert!(!of_client.contains(NETWORK), "{of_client}");
    }
    check("/metrics", &get(hints, "/metrics").1);
    let shown = until("the page's streams", || {
        let (status, list) = get(page, "/api/streams");
        (status == 200 && peers(&list).len() == CLIENTS.len()).then_some(list)
    });
    check("/api/streams", &shown);
    check("/api/events", &events(page, "/api/events", "current_tps"));
    check("the dashboard's /metrics", &get(page, "/metrics").1);
    until("hints of both on the bus", || {
        let heard = bus.lock().expect("no panic");
        // An address is written without colons in subjects.
        let streams = heard.matches("\"scope\":\"stream [fd6e:6574:6469:").count();
        (streams >= CLIENTS.len() && heard.contains("\"scope\":\"peer fd6e:6574:6469:"))
            .then_some(())
    });
    check("the bus", &bus.lock().expect("no panic"));
    let (status, told) = up.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    check("the log", &told.join("\n"));
    let rows = std::fs::read_to_string(&csv).expect("the file");
    assert!(rows.lines().count() > 1);
    check("the CSV", &rows);

    // The same secret gives the same pseudonyms, another one others.
    let again = |more: &[&str]| {
        let mut up = start(more);
        let hints = up.address();
        let list = until("the streams", || {
            let (_, list) = get(hints, "/v1/streams");
            (peers(&list).len() == CLIENTS.len()).then_some(list)
        });
        peers(&list)
    };
    assert_eq!(again(&hidden), peers(&list));
    let other = again(&["--anonymise"]);
    assert!(other.iter().all(|peer| peer.contains(NETWORK)), "{other:?}");
    assert!(other.iter().all(|peer| !list.contains(peer.as_str())), "{other:?}");
    // What this test is about is there without the flag.
    assert!(again(&[]).iter().all(|peer| TRACES.iter().any(|trace| peer.contains(trace))));
}

#[test]
fn connections_that_were_not_measured_yet_are_shown_under_pseudonyms() {
    let streams = Streams::start();
    // No interval ends while this lasts. Without --port each connection is seen from both ends.
    let fixed = ["up", "--loopback", "--listen", "127.0.0.1:0", "--interval", "60", "--window"];
    let mut up = Running::start(netdiag(fixed.iter().chain(&["120", "--anonymise"])));
    let hints = up.address();
    let list = until("both ends of both", || {
        let list = get(hints, "/v1/streams").1;
        let ends = streams.clients.iter().filter(|client| {
            let port = format!("]:{}\"", client.port());
            list.matches(&port).count() >= 2
        });
        (ends.count() == CLIENTS.len()).then_some(list)
    });
    assert!(list.contains("no telemetry yet"), "{list}");
    check("/v1/streams", &list);
}

#[test]
fn what_others_list_is_shown_under_pseudonyms() {
    let streams = Streams::start();
    let port = streams.port.to_string();
    let mut up =
        Running::start(netdiag(["up", "--loopback", "--listen", "127.0.0.1:0", "--port", &port]));
    let hints = up.address();
    let (_engine, address) = engine();
    let (_running, clients, admin) = gateway_with_admin(address, &[]);
    let _streaming = ask_from(CLIENTS[0], clients);
    let flags = ["--hints", &format!("http://{hints}"), "--gateway", &format!("http://{admin}")];
    let (viewer, page) = dashboard(&[&flags[..], &["--anonymise"]].concat());
    for (path, count) in [("/api/streams", CLIENTS.len()), ("/api/gateway", 1)] {
        let list = until(path, || {
            let (status, list) = get(page, path);
            (status == 200 && peers(&list).len() == count).then_some(list)
        });
        check(path, &list);
        assert!(peers(&list).iter().all(|peer| peer.contains(NETWORK)), "{list}");
    }
    let (status, told) = viewer.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    check("the log", &told.join("\n"));
}

/// Asks a gateway for a stream that goes on for a while.
fn ask_from(client: &str, gateway: SocketAddr) -> TcpStream {
    let body = r#"{"model": "netdiag-demo", "stream": true, "ignore_eos": true, "max_tokens": 3000, "messages": [{"role": "user", "content": "Hi"}]}"#;
    let mut stream = connect_from(client, gateway);
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-netdiag-report: 1\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sends");
    stream.read_exact(&mut [0; 500]).expect("has begun");
    stream
}

#[test]
fn a_gateway_tells_nobody_who_its_clients_are() {
    let (_engine, address) = engine();
    let (mut running, clients, admin) =
        gateway_with_admin(address, &["--anonymise", "--log-level", "trace"]);
    let streaming = ask_from(CLIENTS[0], clients);
    let list = get(admin, "/v1/netdiag/streams").1;
    check("/v1/netdiag/streams", &list);
    assert!(peers(&list).len() == 1 && list.contains(NETWORK), "{list}");
    check("/metrics", &get(admin, "/metrics").1);
    // One that ends, and one that is refused.
    drop(streaming);
    running.line_with("stream ended");
    let mut refused = connect_from(CLIENTS[1], clients);
    let wrong = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nlast-event-id: x\r\nx-netdiag-stream-id: st_0123456789abcdef0123456789abcdef\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    refused.write_all(wrong.as_bytes()).expect("sends");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).expect("answers");
    check("the answer", &answer);
    let (status, told) = running.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    let told = told.join("\n");
    check("the log", &told);
    assert!(told.contains(&format!("peer=[{NETWORK}")), "{told}");
}

#[test]
fn a_key_without_pseudonyms_is_told() {
    let upstream = ["--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let mut gateway = with(netdiag(["gateway"]), &upstream);
    gateway.env("NETDIAG_ANONYMISE_KEY_FILE", "/no/such");
    let told = Running::start(gateway).line_with("has no effect without --anonymise");
    assert!(told.contains("/no/such (NETDIAG_ANONYMISE_KEY_FILE)"), "{told}");
}

#[test]
fn engines_are_told_pseudonyms() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut running = gateway(address, &["--anonymise"]);
    let clients = running.address_of("gateway on");
    let mut client = connect_from(CLIENTS[0], clients);
    let asked = "GET /v1/models HTTP/1.1\r\nhost: x\r\nforwarded: for=192.0.2.9\r\nconnection: close\r\n\r\n";
    client.write_all(asked.as_bytes()).expect("sends");
    // Questions after its health come as well.
    let head = until("the request", || {
        let (mut engine, _) = listener.accept().expect("a connection");
        engine.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut head = String::new();
        let mut lines = BufReader::new(engine.try_clone().expect("a socket"));
        while !head.ends_with("\r\n\r\n") {
            lines.read_line(&mut head).expect("a head");
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        engine.write_all(answer).expect("answers");
        head.starts_with("GET /v1/models").then_some(head)
    });
    check("the engine", &head);
    assert!(head.contains(&format!("x-forwarded-for: {NETWORK}")), "{head}");
}

#[test]
fn telemetry_files_have_no_addresses_to_hide() {
    // `agent` and `serve` have no such flag, because they know no client: this is what that rests on.
    let streams = Streams::start();
    let (_folder, csv) = csv_path();
    let port = streams.port.to_string();
    let agent =
        netdiag(["agent", "--loopback", "--port", &port, "--duration", "1", "--interval", "0.2"]);
    let agent = with(agent, &["--log-level", "trace", "--csv", csv.to_str().expect("text")]);
    let (status, told) = Running::start(agent).end();
    assert!(status.success(), "{told:?}");
    check("the agent's log", &told.join("\n"));
    check("the CSV", &std::fs::read_to_string(&csv).expect("the file"));
    let serve = netdiag(["serve", "--port", "0", "--csv", csv.to_str().expect("text")]);
    let mut serve = Running::start(with(serve, &["--log-level", "trace"]));
    let hints = serve.address();
    for path in ["/", "/v1/streams", "/metrics"] {
        check(path, &get(hints, path).1);
    }
}

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args).stdin(Stdio::null());
    command
}
