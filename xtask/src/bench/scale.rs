//! What a fleet of many nodes costs: messages and bytes on the bus, and processor and memory of the process that shares an engine.
//!
//! The server, `netdiag fleet` and everything that is said are real; only the nodes behind it are not (`fleet_load`, an example of
//! `netdiag-hints`). Messages are counted by the server itself, processor time by the kernel. Invariant: what is said of more nodes than
//! were there is a multiplication, and its row says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netdiag_lab::Broker;
use serde_json::Value;

use super::pacer::numbers;
use super::{Bound, Options, Report};
use crate::command;
use crate::process::{Ended, usage};

/// Nodes that are really there, and the streams of each.
const NODES: [u32; 4] = [1, 10, 100, 1000];
const STREAMS: u32 = 10_000;

/// Of nodes with fewer streams, of which many are still told as one.
const FEW_STREAMS: u32 = 200;

/// How long is counted, after a while for everybody to be there.
const SETTLED: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(10);
const LONG: u32 = 3;

/// For the server to answer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the whole fleet may say of its demands, MB/s: a fifth of a link of a gigabit.
const DEMANDS_MB: f64 = 25.0;
/// What the process that shares an engine among a thousand nodes may use, % of a core.
const CPU: f64 = 50.0;
/// And of memory, MiB.
const MEMORY: f64 = 64.0;
/// By how much the rate of any stream, of a token per second or more, may be off because its node's streams are told in few parts, %.
const OFF: f64 = 2.0;

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    command::ensure_debian(&[("nats-server", "nats-server")])?;
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let load = crate::release_binary(
        "netdiag-hints",
        &["--example", "fleet_load"],
        "examples/fleet_load",
    )?;
    let window = WINDOW * if options.long { LONG } else { 1 };
    let mut report = Report { columns: vec!["what", "value", "unit"], ..Report::default() };
    for streams in [FEW_STREAMS, STREAMS] {
        report.shares(&load, streams)?;
    }
    for nodes in NODES {
        report.demands(&netdiag, &load, nodes, window)?;
    }
    for scopes in ["host", "host,peer", "host,peer,stream"] {
        report.hints(&load, scopes, window)?;
    }
    Ok(report)
}

impl Report {
    /// What finding rates costs, without a bus.
    fn shares(&mut self, load: &Path, streams: u32) -> anyhow::Result<()> {
        let nodes = NODES[NODES.len() - 1];
        let of = [nodes, streams].map(|number| number.to_string());
        let told = numbers(Command::new(load).arg("share").args(of))?;
        let [ask, follow, round, turns, off, sum] = told[0][..] else { anyhow::bail!("{told:?}") };
        let of = format!("{streams} streams a node");
        self.figure(&format!("{of}: turns of a demand"), turns, "");
        self.figure(&format!("{of}: a node finds its demand in"), ask, "ms");
        self.figure(&format!("{of}: a node finds its streams' rates in"), follow, "ms");
        self.figure(&format!("{of}: the level of {nodes} demands in"), round, "ms");
        self.figure(&format!("{of}: any stream off by at most"), off, "%");
        self.figure(&format!("{of}: all streams together off by"), sum, "%");
        self.bar(&format!("off_{streams}"), off, Bound::AtMost(OFF), "%");
        Ok(())
    }

    /// So many nodes share an engine.
    fn demands(
        &mut self,
        netdiag: &Path,
        load: &Path,
        nodes: u32,
        window: Duration,
    ) -> anyhow::Result<()> {
        let server = Server::start()?;
        let fleet = Command::new(netdiag)
            .args(["fleet", "--bus", &server.broker.url(), "--listen", "127.0.0.1:0"])
            .args(["--log-level", "error"])
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run netdiag fleet")?;
        let fleet = Ended(fleet);
        let of = [nodes, STREAMS].map(|number| number.to_string());
        let _nodes = Load::start(load, &["nodes", &server.broker.url(), &of[0], &of[1]])?;
        std::thread::sleep(SETTLED);
        let before = (server.count()?, usage(fleet.0.id())?, usage(server.broker.pid())?);
        let start = Instant::now();
        std::thread::sleep(window);
        let after = (server.count()?, usage(fleet.0.id())?, usage(server.broker.pid())?);
        let seconds = start.elapsed().as_secs_f64();
        let rate = |of: fn(&Count) -> f64| (of(&after.0) - of(&before.0)) / seconds;
        let cpu = |before: Duration, after: Duration| {
            100.0 * (after.saturating_sub(before)).as_secs_f64() / seconds
        };
        let (said, bytes) = (rate(|count| count.said), rate(|count| count.said_bytes) / 1e6);
        let who = format!("{nodes} nodes");
        self.figure(&format!("{who}: said on the bus"), said, "messages/s");
        self.figure(&format!("{who}: said on the bus"), bytes, "MB/s");
        self.figure(&format!("{who}: a message is"), bytes / said * 1e6, "bytes");
        self.figure(&format!("{who}: heard from the bus"), rate(|count| count.heard), "messages/s");
        let heard = rate(|count| count.heard_bytes) / 1e6;
        self.figure(&format!("{who}: heard from the bus"), heard, "MB/s");
        let used = cpu(before.1.cpu, after.1.cpu);
        self.figure(&format!("{who}: netdiag fleet uses"), used, "% of a core");
        let memory = after.1.resident as f64 / f64::from(1 << 20);
        self.figure(&format!("{who}: netdiag fleet uses"), memory, "MiB");
        let server = cpu(before.2.cpu, after.2.cpu);
        self.figure(&format!("{who}: nats-server uses"), server, "% of a core");
        if nodes == NODES[NODES.len() - 1] {
            self.bar("demands", bytes, Bound::AtMost(DEMANDS_MB), "MB/s");
            self.bar("fleet_cpu", used, Bound::AtMost(CPU), "%");
            self.bar("fleet_memory", memory, Bound::AtMost(MEMORY), "MiB");
        }
        Ok(())
    }

    /// One node publishes hints of these scopes, and a thousand would.
    fn hints(&mut self, load: &Path, scopes: &str, window: Duration) -> anyhow::Result<()> {
        let server = Server::start()?;
        let streams = STREAMS.to_string();
        let _node = Load::start(load, &["hints", &server.broker.url(), &streams, scopes])?;
        std::thread::sleep(SETTLED);
        let before = server.count()?;
        let start = Instant::now();
        std::thread::sleep(window);
        let after = server.count()?;
        let seconds = start.elapsed().as_secs_f64();
        let kept = server.kept()?;
        let said = (after.said - before.said) / seconds;
        let bytes = (after.said_bytes - before.said_bytes) / seconds / 1e6;
        let nodes = f64::from(NODES[NODES.len() - 1]);
        let who = format!("hints of scope {scopes}");
        self.figure(&format!("{who}: a node says"), said, "messages/s");
        self.figure(&format!("{who}: a node says"), bytes, "MB/s");
        self.figure(&format!("{who}: its last values are"), kept / 1e6, "MB");
        self.figure(&format!("{who}: {nodes} times that"), said * nodes, "messages/s");
        self.figure(&format!("{who}: {nodes} times that"), bytes * nodes, "MB/s");
        self.figure(&format!("{who}: {nodes} times that"), kept * nodes / 1e6, "MB");
        Ok(())
    }
}

/// A server that counts.
struct Server {
    broker: Broker,
    monitor: u16,
}

/// What was said and heard since it began.
struct Count {
    said: f64,
    said_bytes: f64,
    heard: f64,
    heard_bytes: f64,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let monitor = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let broker = Broker::with(&["-js", "-m", &monitor.to_string()])?;
        Ok(Self { broker, monitor })
    }

    fn count(&self) -> anyhow::Result<Count> {
        let told = self.ask("/varz")?;
        let number = |name: &str| told[name].as_f64().with_context(|| format!("no {name}: {told}"));
        Ok(Count {
            said: number("in_msgs")?,
            said_bytes: number("in_bytes")?,
            heard: number("out_msgs")?,
            heard_bytes: number("out_bytes")?,
        })
    }

    /// Bytes of the last values that it keeps.
    fn kept(&self) -> anyhow::Result<f64> {
        let told = self.ask("/jsz")?;
        told["memory"].as_f64().with_context(|| format!("no memory: {told}"))
    }

    /// In HTTP/1.0, whose answers end with the connection.
    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.monitor))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(connection, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
        Ok(serde_json::from_str(body)?)
    }
}

/// Nodes that run until this is dropped.
struct Load {
    _child: Ended,
    _until: ChildStdin,
}

impl Load {
    fn start(load: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(load)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", load.display()))?;
        let until = child.stdin.take().context("no stdin")?;
        let mut says = BufReader::new(child.stdout.take().context("no stdout")?);
        let child = Ended(child);
        let mut line = String::new();
        // Without any it has failed, and has said why on standard error.
        says.read_line(&mut line)?;
        ensure!(line.trim() == "ready", "fleet_load {arguments:?}: {line}");
        Ok(Self { _child: child, _until: until })
    }
}
