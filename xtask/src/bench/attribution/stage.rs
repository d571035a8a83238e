//! Links, engines, clients and `netdiag up`: where events are played.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use netdiag_lab::engine::{Engine, HintServer, Model, Settings};
use netdiag_lab::{Duplex, Lab, LabError, LinkSpec, ServerSide};
use rustix::net::sockopt::set_tcp_congestion;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

use super::REST;
use super::events::{Event, Fault};
use crate::bench::client::Client;
use crate::bench::up::{Asking, Up};

/// Round trips of the links, ms: a city's, a continent's, an ocean's, half the world's.
const RTTS: [u64; 4] = [20, 60, 120, 200];
/// Links of each.
const EACH: usize = 5;
/// Between two tokens: 50 a second, as of a fast model.
const STEP: Duration = Duration::from_millis(20);
/// Of a token on the wire with its headers, about; for links and readers that carry a share of it.
const TOKEN_BYTES: f64 = 290.0;
/// How often engines that follow ask.
const FOLLOW: Duration = Duration::from_millis(100);
/// Before something is done to a stream.
const WARM_UP: Duration = Duration::from_secs(2);
/// For an answer to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a stream's time went to, shares of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) engine: f64,
    pub(super) path: f64,
    pub(super) reader: f64,
    pub(super) pacer: f64,
    /// Tokens that the client's kernel got, of those that come when nothing is done.
    pub(super) delivered: f64,
}

impl Account {
    pub(super) fn shares(&self) -> [(&'static str, f64); 4] {
        let all = self.engine + self.path + self.reader + self.pacer;
        [
            ("engine", self.engine / all),
            ("path", self.path / all),
            ("reader", self.reader / all),
            ("pacer", self.pacer / all),
        ]
    }

    /// Whom most of it was given; `None` if nothing was accounted.
    pub(super) fn dominant(&self) -> Option<&'static str> {
        let most = self.shares().into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        (most.1 > 0.0).then_some(most.0)
    }
}

pub(super) struct Stage {
    lab: Lab,
    bases: Vec<LinkSpec>,
    engines: Vec<(Engine, SocketAddr)>,
    up: Up,
    _runtime: Runtime,
}

impl Stage {
    pub(super) fn build(netdiag: &Path) -> anyhow::Result<Self> {
        let mut bases = Vec::new();
        for number in 0..RTTS.len() * EACH {
            let delay = Duration::from_millis(RTTS[number % RTTS.len()]) / 2;
            let clean = LinkSpec::delayed(delay)?;
            let common = clean.clone().with_jitter(delay / 10)?.with_loss(0.001)?;
            bases.push(if (number / RTTS.len()).is_multiple_of(2) { clean } else { common });
        }
        let links: Vec<Duplex> = bases.iter().cloned().map(Duplex::from).collect();
        let lab = Lab::start_links(links, ServerSide::Namespace, 1)?;
        let netns = lab.server_netns().as_os_str().to_owned();
        let up = Up::start(netdiag, ["--no-dashboard".into(), "--netns".into(), netns])?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut engines = Vec::new();
        // The host's own may be either; clouds have both.
        for congestion in ["cubic", "bbr"] {
            for follows in [false, true] {
                engines.push(engine(&lab, &runtime, congestion, follows.then_some(up.hints))?);
            }
        }
        Ok(Self { lab, bases, engines, up, _runtime: runtime })
    }

    /// At each one thing can be done at a time.
    pub(super) fn places(&self) -> usize {
        self.bases.len()
    }

    pub(super) fn failed(&self) -> Option<LabError> {
        self.lab.failed()
    }

    /// Does it to a new stream over the link of this number, and tells whose time that was.
    pub(super) fn play(&self, place: usize, event: &Event) -> anyhow::Result<Account> {
        let (link, base) = (&self.lab.links()[place], &self.bases[place]);
        let (engine, target) = &self.engines[(event.number + place) % self.engines.len()];
        let buffer = match event.fault {
            Fault::Stop(buffer) | Fault::Slow(_, buffer) => Some(buffer),
            _ => None,
        };
        let client = Client::connect(link, *target, buffer)?;
        let id = ask(&client, *target)?;
        let mut asking = Asking::connect(self.up.hints)?;
        let peer = client.address()?;
        std::thread::sleep(WARM_UP);
        let bytes_per_second = TOKEN_BYTES / STEP.as_secs_f64();
        let share = |percent: u32| bytes_per_second * f64::from(percent) / 100.0;
        let delivered = || anyhow::Ok(engine.request(&id)?.tokens.acked);
        match event.fault {
            Fault::Pause => {
                engine.pause(&id)?;
            }
            Fault::Blackout => link.set(base.clone().blackout())?,
            Fault::Narrow(percent) => {
                link.set(base.clone().with_rate((8.0 * share(percent)) as u64)?)?;
            }
            Fault::Bursts(percent) => {
                link.set(base.clone().with_burst_loss(f64::from(percent) / 100.0, 8.0)?)?;
            }
            Fault::Stop(_) => client.limit(0),
            Fault::Slow(percent, _) => client.limit(share(percent) as u64),
        }
        std::thread::sleep(until_felt(event.fault, bytes_per_second, base.delay() * 2));
        let (before, had, began) = (seconds(&mut asking, peer)?, delivered()?, Instant::now());
        std::thread::sleep(event.lasts);
        let after = seconds(&mut asking, peer)?;
        let came = (delivered()? - had) as f64;
        let expected = began.elapsed().as_secs_f64() / STEP.as_secs_f64();
        drop(client);
        link.set(base.clone())?;
        std::thread::sleep(REST);
        let spent = |n: usize| after[n] - before[n];
        let [engine, path, reader, pacer] = [0, 1, 2, 3].map(spent);
        ensure!(engine + path + reader + pacer > 0.0, "{peer}: no time was accounted");
        Ok(Account { engine, path, reader, pacer, delivered: came / expected })
    }
}

/// How long the stream goes on as before: until what is under way has come, or the receive buffer is full, in which the kernel finds
/// room for a quarter more than was asked for. In that time it waits for nobody.
fn until_felt(fault: Fault, bytes_per_second: f64, rtt: Duration) -> Duration {
    let fill = |buffer: usize, rate: f64| Duration::from_secs_f64(1.25 * buffer as f64 / rate);
    match fault {
        Fault::Pause | Fault::Blackout | Fault::Narrow(_) | Fault::Bursts(_) => rtt,
        Fault::Stop(buffer) => fill(buffer, bytes_per_second),
        Fault::Slow(percent, buffer) => {
            fill(buffer, bytes_per_second * (1.0 - f64::from(percent) / 100.0))
        }
    }
}

/// An engine in the server's namespace, which runs as long as its runtime. It may follow the hints that are served there.
fn engine(
    lab: &Lab,
    runtime: &Runtime,
    congestion: &str,
    hints: Option<SocketAddr>,
) -> anyhow::Result<(Engine, SocketAddr)> {
    let listener = lab.on_server(|| TcpListener::bind(SocketAddr::new(lab.server_ip(), 0)))??;
    listener.set_nonblocking(true)?;
    // Where the kernel has only one of them that one is measured twice.
    let _ = set_tcp_congestion(&listener, congestion);
    let target = listener.local_addr()?;
    let model = Model {
        seats: NonZeroUsize::new(64).context("not zero")?,
        step: STEP,
        step_per_seat: Duration::ZERO,
        step_per_prompt_token: Duration::ZERO,
        kv_tokens: 1 << 24,
        ..Model::default()
    };
    let engine = Engine::try_new(Settings { model, ..Settings::default() })?;
    let serving = engine.clone();
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    runtime.spawn(async move { serving.serve(listener, std::future::pending()).await });
    if let Some(address) = hints {
        let server = HintServer::try_new(address, None, FOLLOW)?;
        let following = engine.clone();
        runtime.spawn(async move { following.follow(&server, TcpSocket::new_v4).await });
    }
    Ok((engine, target))
}

/// Asks for an answer that does not end; what the engine calls the request.
fn ask(client: &Client, target: SocketAddr) -> anyhow::Result<String> {
    let body = json!({
        "messages": [{"role": "user", "content": "Whom do you wait for?"}],
        "max_tokens": 100_000, "ignore_eos": true, "stream": true,
    })
    .to_string();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {target}\r\n");
    let length = body.len();
    let fields = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    client.socket().write_all(format!("{head}{fields}{body}").as_bytes())?;
    let (named, name) = channel();
    let mut text = Vec::new();
    client.read(move |bytes| {
        if text.len() < 4096 {
            text.extend_from_slice(bytes);
            let seen = String::from_utf8_lossy(&text);
            let id = seen.lines().find_map(|line| line.strip_prefix("x-request-id: "));
            let _ = id.map(|id| named.send(id.trim().to_owned()));
        }
    })?;
    name.recv_timeout(PATIENCE).map_err(|_| anyhow!("the engine does not answer"))
}

/// Seconds that the stream to `peer` has waited for engine, path, reader and pacer.
fn seconds(asking: &mut Asking, peer: SocketAddr) -> anyhow::Result<[f64; 4]> {
    let peer = peer.to_string();
    let all = asking.get("/v1/streams?limit=1000")?;
    let streams = all["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stream = streams.iter().find(|stream| stream["peer"] == peer.as_str());
    let stream = stream.with_context(|| format!("netdiag up does not know {peer}"))?;
    let by_cause = |cause: &str| stream["seconds_by_cause"][cause].as_f64();
    let of = |cause| by_cause(cause).with_context(|| format!("no seconds_by_cause: {stream}"));
    Ok([of("engine")?, of("path")?, of("reader")?, of("pacer")?])
}
