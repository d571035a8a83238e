//! Nodes of a fleet that there are not: the load of `cargo xtask bench scale`.
//!
//! ```text
//! fleet_load share NODES STREAMS           milliseconds that a node takes for its demand and for its streams' rates, and that the fleet
//!                                          takes for a level; turns of a demand; by how much streams' rates are off, and their sum
//! fleet_load nodes URL NODES STREAMS       takes part as so many nodes until its standard input ends; says `ready` once all do
//! fleet_load hints URL STREAMS SCOPES      publishes the hints of one node with so many streams, as above; SCOPES as --bus-scope has them
//! ```
//!
//! Demands, messages and hints are the library's own; only the figures that they are made of are drawn by chance, by a fixed seed.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netdiag_hints::bus::{
    Bus, BusSettings, BusStatus, EngineName, MemberSettings, NodeName, PublishSettings, Scopes,
    publish, seat,
};
use netdiag_hints::{Board, StreamEntry};
use netdiag_pacer::{Demand, Hint, Level, Need, Share, State, TpsRange, WhenStale, fleet_level};
use netdiag_telemetry::{FlowKey, LinkSample, Scope, Tps};
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Nodes that share a connection, which costs the server nothing of what is measured.
const EACH: usize = 20;

/// Demands that differ. Nodes beyond have one of these, under their own names.
const DIFFERENT: usize = 20;

/// Times that something is done to be timed; the least counts.
const TURNS: usize = 5;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["share", nodes, streams] => shared(nodes.parse()?, streams.parse()?),
        ["nodes", url, nodes, streams] => {
            let bus = BusSettings::new(vec![url.parse()?], "fleet_load");
            runtime()?.block_on(take_part(&bus, nodes.parse()?, streams.parse()?))
        }
        ["hints", url, streams, scopes] => {
            let bus = BusSettings::new(vec![url.parse()?], "fleet_load");
            runtime()?.block_on(say(&bus, streams.parse()?, scopes))
        }
        _ => Err("usage: fleet_load share NODES STREAMS | nodes URL NODES STREAMS | hints URL STREAMS SCOPES".into()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// A node's streams: readers of several speeds, up to some seconds ahead of them, on links of which some carry less than is read.
fn needs(node: usize, streams: usize) -> Result<Vec<Option<Need>>, Failure> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(node as u64);
    let mut need = || -> Result<_, Failure> {
        let reading = Tps::try_new(4.0 + 12.0 * chance.random::<f64>())?;
        let cap =
            if chance.random::<f64>() < 0.2 { 1.0 + 9.0 * chance.random::<f64>() } else { 80.0 };
        Ok(Some(Need { cap, reading, lead: 8.0 * chance.random::<f64>(), ahead: 5.0 }))
    };
    (0..streams).map(|_| need()).collect()
}

/// What the engine generates: half of what is asked for, or as much as may be said.
fn capacity(demands: &[Demand]) -> Result<Tps, Failure> {
    let half = demands.iter().map(Demand::cap).sum::<f64>() / 2.0;
    Ok(Tps::try_new(half.min(Tps::HIGHEST))?)
}

fn shared(nodes: usize, streams: usize) -> Result<(), Failure> {
    let different: Vec<Vec<Option<Need>>> =
        (0..DIFFERENT.min(nodes)).map(|node| needs(node, streams)).collect::<Result<_, _>>()?;
    let own: Vec<Demand> = different.iter().map(|needs| Demand::of(needs)).collect();
    let ask = least(|| Demand::of(&different[0]));
    let demands: Vec<Demand> = own.iter().cycle().take(nodes).cloned().collect();
    let capacity = capacity(&demands)?;
    let level = fleet_level(capacity, &demands);
    let round = least(|| fleet_level(capacity, &demands));
    let follow = least(|| Share::default().plan(Some(level), capacity, &different[0]));
    // What would be right: every stream is told by itself. A few at a time they are.
    let exactly: Vec<Demand> =
        different.iter().flat_map(|needs| needs.chunks(64)).map(Demand::of).collect();
    let part = self::capacity(&exactly)?;
    let right = fleet_level(part, &exactly);
    let told = fleet_level(part, &own);
    let rates = |level: Level| -> Vec<f64> {
        let plan = |needs: &Vec<_>| Share::default().plan(Some(level), part, needs).1;
        different.iter().flat_map(plan).collect()
    };
    let (right, told) = (rates(right), rates(told));
    let off = right.iter().zip(&told).filter(|(right, _)| **right >= 1.0);
    let off = off.map(|(right, told)| (told / right - 1.0).abs()).fold(0.0, f64::max);
    let sum = told.iter().sum::<f64>() / part.get() - 1.0;
    let turns = own[0].turns().len();
    println!("{ask} {follow} {round} {turns} {} {}", 100.0 * off, 100.0 * sum);
    Ok(())
}

/// Milliseconds.
fn least<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let start = Instant::now();
        std::hint::black_box(work());
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.into_iter().fold(f64::INFINITY, f64::min)
}

async fn take_part(bus: &BusSettings, nodes: usize, streams: usize) -> Result<(), Failure> {
    let different: Vec<Demand> = (0..DIFFERENT.min(nodes))
        .map(|node| needs(node, streams).map(|needs| Demand::of(&needs)))
        .collect::<Result<_, _>>()?;
    let demands: Vec<Demand> = different.iter().cycle().take(nodes).cloned().collect();
    let capacity = capacity(&demands)?;
    let hint = hint(Scope::Host)?;
    let mut members = JoinSet::new();
    let mut seats = Vec::new();
    let mut connection = None;
    for (node, demand) in demands.into_iter().enumerate() {
        if node % EACH == 0 {
            connection = Some(Bus::connect(bus).await);
        }
        let Some(bus) = connection.clone() else { continue };
        let (seat, member) = seat();
        seat.demand.send_replace(demand);
        seats.push(seat);
        let settings = MemberSettings {
            node: NodeName::try_new(&format!("node-{node}"))?,
            engine: EngineName::try_new("e1")?,
            capacity: Some(capacity),
        };
        let host = hint.clone();
        members.spawn(async move {
            // Not all in the same moment.
            tokio::time::sleep(Duration::from_millis((node as u64 * 7) % 200)).await;
            member.take_part(&bus, &settings, || host.clone(), std::future::pending()).await;
        });
    }
    while seats.iter().any(|seat| seat.level.borrow().is_none()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("ready");
    ended().await
}

/// Once nobody listens any more.
async fn ended() -> Result<(), Failure> {
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    waiting.await??;
    Ok(())
}

fn hint(scope: Scope) -> Result<Hint, Failure> {
    let range = TpsRange::try_new(Tps::try_new(0.5)?, Tps::try_new(80.0)?)?;
    let unknown = Hint::unknown(range, &scope, "path: 12 tokens wait, carry 27.6 tok/s");
    Ok(Hint { state: State::Constrained, ..unknown })
}

async fn say(bus: &BusSettings, streams: u32, scopes: &str) -> Result<(), Failure> {
    let has = |scope: &str| scopes.split(',').any(|given| given == scope);
    let settings = PublishSettings {
        node: NodeName::try_new("node-0")?,
        scopes: Scopes { peers: has("peer"), streams: has("stream") },
        // The default of --bus-rate.
        rate: 2000,
        stale_after: Duration::from_secs(2),
        when_stale: WhenStale::Max,
    };
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(1);
    let (boards, newest) = watch::channel(Arc::new(board(streams, &mut chance)?));
    let bus = Bus::connect(bus).await;
    let status = Arc::new(BusStatus::default());
    tokio::spawn(async move {
        publish(&bus, &settings, newest, &status, std::future::pending()).await;
    });
    tokio::spawn(async move {
        let mut often = interval(Duration::from_millis(100));
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            often.tick().await;
            let Ok(board) = board(streams, &mut chance) else { return };
            boards.send_replace(Arc::new(board));
        }
    });
    println!("ready");
    ended().await
}

/// One of a peer for each stream, whose rates all move.
fn board(streams: u32, chance: &mut Xoshiro256PlusPlus) -> Result<Board, Failure> {
    let local: SocketAddr = "192.0.2.1:8000".parse()?;
    let mut peers = BTreeMap::new();
    let mut entries = Vec::new();
    for number in 0..streams {
        let ip = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + number));
        let key = FlowKey::new(1, local, SocketAddr::new(ip, 50_000));
        let current_tps = Tps::try_new(1.0 + 79.0 * chance.random::<f64>())?;
        peers.insert(ip, Hint { current_tps, ..hint(Scope::Peer(ip))? });
        entries.push(StreamEntry {
            key,
            hint: Hint { current_tps, ..hint(Scope::Stream(key))? },
            sample: LinkSample {
                timestamp: Duration::from_secs(1),
                rtt: None,
                srtt: Some(Duration::from_millis(20)),
                retrans_segs: 0,
                segs_out: Some(10),
                avg_cwnd: Some(10.0),
                throughput_bps: Some(8000.0),
                flows: Some(1),
                stalled_flows: Some(0),
                source: None,
            },
            liveness: None,
            waiting: Duration::ZERO,
            carried: None,
        });
    }
    let now = Some(tokio::time::Instant::now());
    Ok(Board::new(hint(Scope::Host)?, peers, entries, now))
}
