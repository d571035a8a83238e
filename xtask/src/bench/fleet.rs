//! Two nodes that share an engine over one NATS server: real TCP over emulated links, servers that go by their node's hints, and what
//! becomes of them when the leader dies and when the server is gone for half a minute.
//!
//! Tokens are counted where they are sent, so what is measured is what an engine would have to generate. Invariant: every figure is of
//! the whole binary as it is shipped; nothing in here shares anything out.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netdiag_lab::{Broker, Lab, LinkSpec, ServerSide};
use serde_json::Value;

use super::client::Client;
use super::up::{Asking, Up};
use super::{Bound, Options, Report};
use crate::command;
use crate::process::{Ended, Usage, usage};

/// What the engine generates for all nodes together, tokens/s.
const CAPACITY: f64 = 60.0;

/// Each node, and its streams. Their links are alike, because text under way counts as its client's: on a longer one streams would
/// rightly have less.
const NODES: [(&str, usize); 2] = [("a", 1), ("b", 3)];

/// Each link's round trip.
const RTT: Duration = Duration::from_millis(40);

/// How long rates are measured for: one token more or less is less than half a percent of a stream's.
const WINDOW: Duration = Duration::from_secs(25);

/// How long the server is gone, as promised.
const GONE: Duration = Duration::from_secs(30);

/// How many times as long with `--long`.
const LONG: u32 = 4;

/// A stream's rate is within this much of its part, %.
const UNFAIR: f64 = 2.0;

/// Seconds until another leads, and until all is as before once the server is back.
const SOON: f64 = 3.0;

/// What a process may grow by meanwhile, MiB: pages that its allocator takes and keeps.
const GROWTH: f64 = 1.0;

/// For what must happen at some time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How often a server asks for its hint.
const ASK: Duration = Duration::from_millis(100);

/// Bytes of a token.
const TOKEN: [u8; 40] = [b'x'; 40];

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the lab makes network namespaces: run it as root");
    command::ensure_debian(&[("nats-server", "nats-server")])?;
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let times = if options.long { LONG } else { 1 };
    let columns = vec!["what", "value", "unit"];
    let mut report = Report { columns, ..Report::default() };
    let mut broker = Broker::start()?;
    let first = Coordinator::start(&netdiag, &broker, "f1")?;
    first.wait("leads", |view| view["is_leader"] == true)?;
    let second = Coordinator::start(&netdiag, &broker, "f2")?;
    let nodes: Vec<Node> = NODES
        .iter()
        .map(|(name, streams)| Node::start(&netdiag, &broker, name, *streams))
        .collect::<anyhow::Result<_>>()?;
    second.wait("knows all streams", knows_all)?;
    // Averages of what was sent before all were there.
    std::thread::sleep(Duration::from_secs(5));
    report.rates("two nodes", &nodes, WINDOW * times);

    let died = Instant::now();
    drop(first);
    second.wait("leads", |view| view["is_leader"] == true)?;
    report.within("leader dead to the next", died.elapsed().as_secs_f64());
    report.rates("after the leader's death", &nodes, WINDOW * times);

    let watched: Vec<(String, u32)> = nodes
        .iter()
        .map(|node| (format!("up {}", node.name), node.up.pid()))
        .chain([("fleet".to_owned(), second.child.0.id())])
        .collect();
    let memory = || watched.iter().map(|(_, pid)| usage(*pid)).collect::<anyhow::Result<Vec<_>>>();
    let before = memory()?;
    broker.kill();
    report.rates("without a server", &nodes, GONE * times);
    let without = memory()?;
    ensure!(second.view()?["is_connected"] == false, "the fleet's process has not noticed");
    broker.restart()?;
    let back = Instant::now();
    second
        .wait("leads again and hears all", |view| view["is_leader"] == true && knows_all(view))?;
    report.within("server back to leader and all nodes", back.elapsed().as_secs_f64());
    report.rates("after the server is back", &nodes, WINDOW * times);
    let after = memory()?;
    for (((name, _), before), later) in watched.iter().zip(&before).zip(without.iter().zip(&after))
    {
        report.memory(name, before, [later.0, later.1]);
    }
    for node in &nodes {
        node.lab.failed().map_or(Ok(()), Err)?;
    }
    Ok(report)
}

fn knows_all(view: &Value) -> bool {
    let nodes = view["engines"][0]["nodes"].as_array();
    nodes.is_some_and(|nodes| {
        let streams: u64 = nodes.iter().filter_map(|node| node["streams"].as_u64()).sum();
        let all: usize = NODES.iter().map(|(_, streams)| streams).sum();
        nodes.iter().all(|node| node["is_silent"] == false) && streams == all as u64
    })
}

impl Report {
    /// A bar whose name is one word.
    fn promised(&mut self, name: &str, value: f64, limit: f64, unit: &'static str) {
        let name = name.replace(',', "").replace([' ', '\''], "_");
        self.bar(&name, value, Bound::AtMost(limit), unit);
    }

    /// What all streams are sent over `time`.
    fn rates(&mut self, when: &str, nodes: &[Node], time: Duration) {
        let counts = || -> Vec<u64> {
            let streams = nodes.iter().flat_map(|node| &node.streams);
            streams.map(|stream| stream.sent.load(Ordering::Relaxed)).collect()
        };
        let (before, start) = (counts(), Instant::now());
        std::thread::sleep(time);
        let seconds = start.elapsed().as_secs_f64();
        let sent = counts();
        let rates: Vec<f64> = sent
            .iter()
            .zip(&before)
            .map(|(after, before)| (after - before) as f64 / seconds)
            .collect();
        let total: f64 = rates.iter().sum();
        let part = CAPACITY / rates.len() as f64;
        let apart = rates.iter().map(|rate| (rate / part - 1.0).abs()).fold(0.0, f64::max) * 100.0;
        self.figure(&format!("{when}: all streams"), total, "tokens/s");
        self.figure(&format!("{when}: farthest from its part"), apart, "%");
        // Each stream's count is off by one token at most.
        let counted = rates.len() as f64 / seconds;
        self.promised(&format!("total {when}"), total, CAPACITY + counted, "tokens/s");
        self.promised(&format!("unfair {when}"), apart, UNFAIR, "%");
    }

    fn within(&mut self, what: &str, seconds: f64) {
        self.figure(what, seconds, "s");
        self.promised(what, seconds, SOON, "s");
    }

    fn memory(&mut self, name: &str, before: &Usage, later: [&Usage; 2]) {
        let mib = |usage: &Usage| usage.resident as f64 / f64::from(1 << 20);
        self.figure(&format!("memory of {name} before"), mib(before), "MiB");
        let growth =
            later.map(|later| mib(later) - mib(before)).into_iter().fold(f64::MIN, f64::max);
        self.figure(&format!("memory of {name}: most growth"), growth, "MiB");
        self.promised(&format!("growth {name}"), growth, GROWTH, "MiB");
    }
}

/// `netdiag fleet`; killed when dropped, without a word.
struct Coordinator {
    child: Ended,
    address: SocketAddr,
}

impl Coordinator {
    fn start(netdiag: &Path, broker: &Broker, name: &str) -> anyhow::Result<Self> {
        let child = Command::new(netdiag)
            .args(["fleet", "--bus", &broker.url(), "--node", name, "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run netdiag fleet")?;
        let mut child = Ended(child);
        let mut lines = BufReader::new(child.0.stderr.take().context("no stderr")?).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("fleet on http"));
        let line = line.context("netdiag fleet says no address")?;
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let (_, rest) = line.split_once("http://").context("netdiag fleet says no address")?;
        let address = rest.split([' ', ';', '/']).next().unwrap_or_default().parse()?;
        Ok(Self { child, address })
    }

    fn view(&self) -> anyhow::Result<Value> {
        Asking::connect(self.address)?.get("/v1/fleet")
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let view = self.view()?;
            if is_so(&view) {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "never so that it {what}: {view}");
            std::thread::sleep(LOOK);
        }
    }
}

/// A node, and its streams over a link of its own. The streams end before what they go over.
struct Node {
    name: &'static str,
    streams: Vec<Stream>,
    up: Up,
    lab: Lab,
}

struct Stream {
    sent: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    _client: Client,
}

impl Node {
    fn start(
        netdiag: &Path,
        broker: &Broker,
        name: &'static str,
        streams: usize,
    ) -> anyhow::Result<Self> {
        let link = LinkSpec::delayed(RTT / 2)?;
        let lab = Lab::start(link, ServerSide::Namespace)?;
        let capacity = CAPACITY.to_string();
        let url = broker.url();
        let fixed = ["--no-dashboard", "--min-tps", "0.5", "--reading-tps", "20"];
        let shared = ["--shared-engine", "e1", "--capacity-tps", &capacity];
        let bus = ["--bus", &url, "--node", name, "--netns"];
        let mut arguments: Vec<std::ffi::OsString> =
            [&fixed[..], &shared, &bus].concat().into_iter().map(Into::into).collect();
        arguments.push(lab.server_netns().into());
        let up = Up::start(netdiag, arguments)?;
        let address = SocketAddr::new(lab.server_ip(), 0);
        let listener = lab.on_server(|| TcpListener::bind(address))??;
        let link = lab.links().first().context("a lab has a link")?;
        let streams = (0..streams).map(|_| {
            let client = Client::connect(link, listener.local_addr()?, None)?;
            client.read(|_| {})?;
            let (server, peer) = listener.accept()?;
            let (sent, end) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
            let (counted, ended, hints) = (Arc::clone(&sent), Arc::clone(&end), up.hints);
            std::thread::spawn(move || generate(&server, peer, hints, &counted, &ended));
            Ok(Stream { sent, end, _client: client })
        });
        let streams = streams.collect::<anyhow::Result<_>>()?;
        Ok(Self { name, streams, up, lab })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Sends as many tokens as the stream's hint says. One that gets no hint sends nothing more, which shows in the rates.
fn generate(
    mut server: &TcpStream,
    peer: SocketAddr,
    hints: SocketAddr,
    sent: &AtomicU64,
    end: &AtomicBool,
) -> Option<()> {
    server.set_nodelay(true).ok()?;
    let mut asking = Asking::connect(hints).ok()?;
    let (mut due, mut rate) = (1.0, 1.0);
    let (mut last, mut asked) = (Instant::now(), None::<Instant>);
    while !end.load(Ordering::Relaxed) {
        let now = Instant::now();
        if asked.is_none_or(|asked| now.duration_since(asked) > ASK) {
            let hint = asking.get(&format!("/v1/hint?peer={peer}")).ok()?;
            let is_held = hint["hold"] == true;
            rate = if is_held { 0.0 } else { hint["current_tps"].as_f64()? };
            asked = Some(now);
        }
        due = f64::min(due + rate * now.duration_since(last).as_secs_f64(), 5.0);
        last = now;
        while due >= 1.0 {
            server.write_all(&TOKEN).ok()?;
            sent.fetch_add(1, Ordering::Relaxed);
            due -= 1.0;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(())
}
