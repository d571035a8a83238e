//! Two nodes, two processes that may lead, one NATS server, and real TCP streams whose servers go by their node's hints: over
//! emulated links for root, and else over loopback.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netdiag_lab::{Broker, Lab, LinkSpec, ServerSide};
use rustix::process::Signal;
use serde_json::Value;

use crate::dashboard::dashboard;
use crate::dashboard_page::Look;
use crate::support::{Running, complaint, get, hint, netdiag, output, skipped, until};

/// What the engine generates for all nodes together, tokens/s.
const CAPACITY: f64 = 60.0;

/// How long rates are measured for: long enough for a token more or less to be within what is asked.
const WINDOW: Duration = Duration::from_secs(8);

/// What a process may grow by while the broker is away, kB: pages that its allocator takes and keeps. `cargo xtask bench fleet`
/// looks for longer.
const GROWTH: u64 = 2048;

/// Bytes of a token.
const TOKEN: [u8; 40] = [b'x'; 40];

/// A node and its streams.
struct Node {
    running: Running,
    hints: SocketAddr,
    listener: TcpListener,
    streams: Vec<Stream>,
    /// Whose clients are at the other end of a link; on loopback without.
    lab: Option<Lab>,
}

/// A server that writes as many tokens as its hint says, to a client that reads them.
struct Stream {
    sent: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    fn start(broker: &Broker, name: &str, lab: Option<Lab>) -> Self {
        let (listener, place) = match &lab {
            Some(lab) => {
                let address = SocketAddr::new(lab.server_ip(), 0);
                let listener = lab.on_server(|| TcpListener::bind(address)).expect("enters");
                (listener.expect("a port"), vec!["--netns".into(), lab.server_netns().into()])
            }
            None => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                let port = listener.local_addr().expect("an address").port().to_string();
                (listener, ["--loopback", "--port", &port].map(OsString::from).to_vec())
            }
        };
        let capacity = CAPACITY.to_string();
        let fixed = ["up", "--listen", "127.0.0.1:0", "--min-tps", "0.5", "--reading-tps", "20"];
        let shared = ["--shared-engine", "e1", "--capacity-tps", &capacity];
        let mut command = netdiag(fixed.iter().chain(&shared));
        command.args(["--bus", &broker.url(), "--node", name]).args(place);
        let mut running = Running::start(command);
        let hints = running.address();
        Self { running, hints, listener, streams: Vec::new(), lab }
    }

    fn stream(&mut self) {
        let address = self.listener.local_addr().expect("an address");
        let client = match &self.lab {
            Some(lab) => lab.on_client(|| TcpStream::connect(address)).expect("enters"),
            None => TcpStream::connect(address),
        };
        let client = client.expect("connected");
        let (server, peer) = self.listener.accept().expect("accepted");
        let (sent, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ended, hints) = (Arc::clone(&sent), Arc::clone(&end), self.hints);
        let threads = vec![
            std::thread::spawn(move || read(client)),
            std::thread::spawn(move || generate(server, peer, hints, &counted, &ended)),
        ];
        self.streams.push(Stream { sent, end, threads });
    }
}

/// A link for each node's clients, both as long: text under way counts as their clients', so on a longer one streams would rightly have
/// less. On loopback, said so, without the right to make links.
fn links() -> [Option<Lab>; 2] {
    if !rustix::process::geteuid().is_root() {
        skipped("fleet: over emulated links", "needs root; it runs over loopback");
        return [None, None];
    }
    [(); 2].map(|()| {
        let link = LinkSpec::delayed(Duration::from_millis(20)).expect("a link");
        Some(Lab::start(link, ServerSide::default()).expect("a lab"))
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read(mut client: TcpStream) {
    let mut bytes = [0; 4096];
    while client.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

fn generate(
    mut server: TcpStream,
    peer: SocketAddr,
    hints: SocketAddr,
    sent: &AtomicU64,
    end: &AtomicBool,
) {
    server.set_nodelay(true).expect("a socket");
    let (mut due, mut rate) = (1.0, 1.0);
    let (mut last, mut asked) = (Instant::now(), None::<Instant>);
    while !end.load(Ordering::Relaxed) {
        let now = Instant::now();
        if asked.is_none_or(|asked| now.duration_since(asked) > Duration::from_millis(100)) {
            let hint = hint(hints, &format!("?peer={peer}"));
            rate = if hint["hold"] == true {
                0.0
            } else {
                hint["current_tps"].as_f64().unwrap_or(0.0)
            };
            asked = Some(now);
        }
        due = f64::min(due + rate * now.duration_since(last).as_secs_f64(), 5.0);
        last = now;
        while due >= 1.0 {
            if server.write_all(&TOKEN).is_err() {
                return;
            }
            sent.fetch_add(1, Ordering::Relaxed);
            due -= 1.0;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fleet(broker: &Broker, name: &str) -> (Running, SocketAddr) {
    let mut running = Running::start(netdiag([
        "fleet",
        "--bus",
        &broker.url(),
        "--node",
        name,
        "--listen",
        "127.0.0.1:0",
    ]));
    let address = running.address_of("fleet on");
    (running, address)
}

fn view(fleet: SocketAddr) -> Value {
    let (status, body) = get(fleet, "/v1/fleet");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// What a node's streams are given, tokens/s.
fn given(node: &Node) -> Vec<f64> {
    let (_, body) = get(node.hints, "/v1/streams");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let streams = body["streams"].as_array().expect("a list");
    streams.iter().map(|stream| stream["hint"]["current_tps"].as_f64().expect("a rate")).collect()
}

/// Waits until every stream is given its part.
fn wait_for_parts(nodes: &[&Node]) {
    let part = CAPACITY / nodes.iter().map(|node| node.streams.len()).sum::<usize>() as f64;
    let is_even = |node: &&Node| {
        let rates = given(node);
        rates.len() == node.streams.len()
            && rates.iter().all(|rate| (rate / part - 1.0).abs() < 0.02)
    };
    until("even parts", || nodes.iter().all(is_even).then_some(()));
}

/// Each stream's rate over a while, tokens/s; checks that they are even and within the capacity.
fn measure(nodes: &[&Node], what: &str) {
    let counts = || -> Vec<u64> {
        let streams = nodes.iter().flat_map(|node| &node.streams);
        streams.map(|stream| stream.sent.load(Ordering::Relaxed)).collect()
    };
    let (before, start) = (counts(), Instant::now());
    std::thread::sleep(WINDOW);
    let elapsed = start.elapsed().as_secs_f64();
    let rates: Vec<f64> = counts()
        .iter()
        .zip(&before)
        .map(|(after, before)| (after - before) as f64 / elapsed)
        .collect();
    let part = CAPACITY / rates.len() as f64;
    let near = 0.02 * part;
    assert!(rates.iter().all(|rate| (rate - part).abs() <= near), "{what}: {rates:?}");
    let sum: f64 = rates.iter().sum();
    assert!(sum <= CAPACITY * 1.001 + rates.len() as f64 / elapsed, "{what}: {sum}");
}

#[test]
fn two_nodes_share_an_engine_whatever_becomes_of_leaders_and_broker() {
    let mut broker = Broker::start().expect("nats-server");
    let (first, first_at) = fleet(&broker, "f1");
    until("a leader", || (view(first_at)["is_leader"] == true).then_some(()));
    let (second, second_at) = fleet(&broker, "f2");
    let [one, other] = links();
    let (mut a, mut b) = (Node::start(&broker, "a", one), Node::start(&broker, "b", other));
    a.stream();
    (0..3).for_each(|_| b.stream());
    wait_for_parts(&[&a, &b]);
    measure(&[&a, &b], "two nodes");
    let engine = view(first_at)["engines"][0].clone();
    assert_eq!((&engine["engine"], &engine["capacity_tps"]), (&"e1".into(), &CAPACITY.into()));
    assert!(engine["given_tps"].as_f64().is_some_and(|given| given <= CAPACITY + 1e-6), "{engine}");

    // The leader dies without a word.
    let died = Instant::now();
    first.end_by(Signal::KILL);
    until("another leader", || (view(second_at)["is_leader"] == true).then_some(()));
    assert!(died.elapsed() < Duration::from_secs(3), "{:?}", died.elapsed());
    measure(&[&a, &b], "after the leader's death");

    // The broker is away for longer than anything that was said on it holds.
    let memory = || [&second, &a.running, &b.running].map(|running| resident(running.pid()));
    let before = memory();
    broker.kill();
    measure(&[&a, &b], "without a broker");
    let (status, _) = get(second_at, "/readyz");
    assert_eq!(status, 503);
    broker.restart().expect("nats-server");
    let back = Instant::now();
    until("a leader again", || (view(second_at)["is_leader"] == true).then_some(()));
    until("both nodes again", || {
        let engines = view(second_at)["engines"].clone();
        let nodes = engines[0]["nodes"].as_array().cloned().unwrap_or_default();
        (nodes.len() == 2 && nodes.iter().all(|node| node["is_silent"] == false)).then_some(())
    });
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    for (after, before) in memory().into_iter().zip(before) {
        assert!(after <= before + GROWTH, "{after} kB after {before} kB");
    }

    // One node ends, and what it had is the other's.
    b.streams.clear();
    let (status, stderr) = b.running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    // As many as have readers for it all, who read 20 a second each.
    (0..3).for_each(|_| a.stream());
    // Not evenly at once: those that are new have nothing to read yet.
    until("all of it", || (given(&a).iter().sum::<f64>() > 0.98 * CAPACITY).then_some(()));
    for running in [second, a.running] {
        let (status, stderr) = running.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
    }
}

/// Memory of a process, kB.
fn resident(pid: u32) -> u64 {
    // Counted now, unlike the kernel's quick account in `status`.
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn the_dashboard_shows_the_fleet() {
    let broker = Broker::start().expect("nats-server");
    let (_fleet, at) = fleet(&broker, "f1");
    let [link, _] = links();
    let mut node = Node::start(&broker, "gpu1", link);
    (0..4).for_each(|_| node.stream());
    wait_for_parts(&[&node]);
    // Of three processes one is down, and one has another server, which is gone: the third knows all.
    let gone = Broker::start().expect("nats-server");
    let (_apart, apart) = fleet(&gone, "f2");
    until("a leader", || (view(apart)["is_leader"] == true).then_some(()));
    drop(gone);
    until("a loss", || (view(apart)["is_connected"] == false).then_some(()));
    let urls = ["127.0.0.1:1".to_owned(), apart.to_string(), at.to_string()];
    let urls = urls.map(|url| format!("http://{url}"));
    let named: Vec<&str> = urls.iter().flat_map(|url| ["--fleet", url]).collect();
    let (_dashboard, page) = dashboard(&named);
    let told: Value = until("a state", || {
        let told: Value = serde_json::from_str(&get(page, "/api/fleet").1).expect("JSON");
        (told["engines"][0]["nodes"][0]["state"] == "clear").then_some(told)
    });
    assert_eq!((&told["leader"], &told["is_connected"]), (&"f1".into(), &true.into()), "{told}");
    let engine = &told["engines"][0];
    assert_eq!((&engine["engine"], &engine["nodes"][0]["streams"]), (&"e1".into(), &4.into()));
    assert!(told["lease_seconds"].as_f64().is_some_and(|left| left > 0.0), "{told}");
    assert!(engine["history"]["given_tps"].as_array().is_some_and(|past| !past.is_empty()));
    let test = "fleet::the_dashboard_shows_the_fleet";
    let folder = std::env::var("NETDIAG_TEST_PICTURES").ok();
    let more: Vec<&str> = folder.as_deref().into_iter().collect();
    let Some(mut look) = Look::start(test, "fleet.js", page, &more) else { return };
    look.expect("shown");
    node.streams.clear();
    node.running.end_by(Signal::KILL);
    look.tell("killed");
    look.expect("silent");
    drop(broker);
    look.tell("apart");
    look.end();
}

#[test]
fn what_cannot_be_shared_is_told() {
    let check = |args: &[&str], told: &str| {
        let output = output(netdiag(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(complaint(&output).contains(told), "{}", complaint(&output));
    };
    check(&["up", "--shared-engine", "e1"], "--shared-engine e1 needs a bus: give --bus");
    check(
        &["up", "--shared-engine", "e1", "--bus", "nats://127.0.0.1:1", "--policy", "classic"],
        "--shared-engine e1 is for the carry policy",
    );
    check(&["up", "--node", "a.b"], "--node a.b");
    check(&["up", "--bus", "http://x"], "must be nats://HOST[:PORT]");
    check(&["up", "--bus", "http://me:hush@x"], "--bus http://…@x: must be nats://HOST[:PORT]");
    check(&["up", "--bus-ca", "/no/such"], "needs a bus");
    check(&["fleet", "--bus-token-file", "/no/such"], "/no/such");
    check(&["fleet", "--capacity", "e1"], "must be ENGINE=TPS");
    check(&["fleet", "--capacity", "e1=5,e1=6"], "--capacity e1 is given twice, as 5 and as 6");
    check(&["watch", "--scope", "world"], "must be host, peer or stream");
    check(&["dashboard", "--fleet", "nats://x"], "must be http://HOST");
    check(&["dashboard", "--fleet-token-file", "/no/such"], "give --fleet URL, too");
    check(&["watch", "--bus-cert", "/no/such"], "needs its key");
}

#[test]
fn a_bus_that_is_not_reached_is_a_failure_of_watch() {
    let output = output(netdiag(["watch", "--bus", "nats://127.0.0.1:1", "--duration", "0.5"]));
    assert_eq!(output.status.code(), Some(1));
    let told = complaint(&output);
    assert!(told.contains("could not listen to nats://127.0.0.1:1 within 0.5 s"), "{told}");
}

#[test]
fn whom_the_operators_listeners_turn_away_is_counted() {
    let limit = ["--rate-limit", "2"];
    let (_engine, engine) = crate::gateway::engine();
    let (_gateway, _, admin) = crate::gateway::gateway_with_admin(engine, &limit);
    // A broker that is not there.
    let fleet = ["fleet", "--listen", "127.0.0.1:0", "--bus", "nats://127.0.0.1:1"];
    let mut fleet = Running::start(netdiag(fleet.iter().chain(&limit)));
    for (address, prefix) in
        [(admin, "netdiag_gateway_admin"), (fleet.address_of("fleet on"), "netdiag_fleet")]
    {
        until("a refusal", || (get(address, "/livez").0 == 429).then_some(()));
        let name = format!("{prefix}_requests_too_often_total ");
        until("its count", || {
            // Who waits may ask again.
            std::thread::sleep(Duration::from_millis(500));
            let (_, metrics) = get(address, "/metrics");
            let counted = metrics.lines().find_map(|line| line.strip_prefix(&name))?;
            (counted.parse::<f64>().expect("a number") >= 1.0).then_some(())
        });
    }
}
