//! How many hints go over a NATS server, and how long one takes: the load of `cargo xtask bench bus`.
//!
//! ```text
//! bus_load URL throughput SECONDS    hints/s that a publisher published and a subscriber heard
//! bus_load URL latency SECONDS       milliseconds from a hint's making to a consumer's hand at 1,000 hints/s: p50, p99, and how many
//! ```
//!
//! Publisher and subscriber are the library's own, each on a thread of its own, as they would be on two hosts.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netdiag_hints::Board;
use netdiag_hints::bus::{
    Bus, BusSettings, BusStatus, HintSubscriber, NodeName, PublishSettings, Scopes, publish,
};
use netdiag_pacer::{Hint, State, TpsRange, WhenStale};
use netdiag_telemetry::{Scope, Tps};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

/// Peers whose hints all change with every board.
const MANY: u32 = 20_000;

/// A thousand hints a second: the host's and 99 peers', ten times.
const FEW: u32 = 99;
const BOARD: Duration = Duration::from_millis(100);

/// What is not counted: connections are made, memory is got.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: bus_load URL throughput|latency SECONDS";
    let (Some(url), Some(what), Some(seconds)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(usage.into());
    };
    let (peers, rate) = match what.as_str() {
        "throughput" => (MANY, 1_000_000),
        "latency" => (FEW, 10_000),
        _ => return Err(usage.into()),
    };
    let bus = BusSettings {
        // Nothing that was published is to be lost on the way to being counted.
        untaken: 1 << 20,
        ..BusSettings::new(vec![url.parse()?], "bus_load")
    };
    let time = Duration::try_from_secs_f64(seconds.parse()?)?;
    let (boards, newest) = watch::channel(board(peers, 10.0)?);
    let status = Arc::new(BusStatus::default());
    let settings = PublishSettings {
        node: NodeName::try_new("load")?,
        scopes: Scopes { peers: true, streams: false },
        rate,
        stale_after: Duration::from_secs(60),
        when_stale: WhenStale::Max,
    };
    let (publisher, counted) = (bus.clone(), Arc::clone(&status));
    let publishing = runtime()?;
    std::thread::spawn(move || {
        publishing.block_on(async {
            let bus = Bus::connect(&publisher).await;
            publish(&bus, &settings, newest, &counted, std::future::pending()).await;
        });
    });
    let two = [board(peers, 10.0)?, board(peers, 60.0)?];
    runtime()?.block_on(async {
        let subscriber = HintSubscriber::start(&bus, ">").await;
        if what == "throughput" {
            let [published, heard] = throughput(&subscriber, &boards, &two, &status, time).await;
            println!("{published} {heard}");
        } else {
            let mut late = latency(subscriber, boards, two, time).await;
            late.sort_unstable_by(f64::total_cmp);
            let last = late.len().saturating_sub(1) as f64;
            let at = |share: f64| late.get((last * share) as usize).copied().unwrap_or(f64::NAN);
            println!("{} {} {}", at(0.5), at(0.99), late.len());
        }
    });
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Hints per second that were published and heard, over `time`.
async fn throughput(
    subscriber: &HintSubscriber,
    boards: &watch::Sender<Arc<Board>>,
    two: &[Arc<Board>; 2],
    status: &BusStatus,
    time: Duration,
) -> [f64; 2] {
    let start = Instant::now();
    let mut before = None;
    for board in two.iter().cycle() {
        boards.send_replace(board_now(board));
        sleep(Duration::from_millis(20)).await;
        let counts = [status.published(), subscriber.heard()];
        match before {
            None if start.elapsed() >= WARM_UP => before = Some((counts, Instant::now())),
            Some((earlier, since)) if since.elapsed() >= time => {
                let seconds = since.elapsed().as_secs_f64();
                return [0, 1].map(|at| (counts[at] - earlier[at]) as f64 / seconds);
            }
            _ => {}
        }
    }
    [f64::NAN; 2]
}

/// How long each hint took, milliseconds.
async fn latency(
    mut subscriber: HintSubscriber,
    boards: watch::Sender<Arc<Board>>,
    two: [Arc<Board>; 2],
    time: Duration,
) -> Vec<f64> {
    tokio::spawn(async move {
        let mut often = interval(BOARD);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for board in two.iter().cycle() {
            often.tick().await;
            boards.send_replace(board_now(board));
        }
    });
    let start = Instant::now() + WARM_UP;
    let mut late = Vec::new();
    while let Ok(update) = timeout_at(start + time, subscriber.next()).await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if Instant::now() >= start {
            late.push((now.as_secs_f64() - update.hint.time) * 1e3);
        }
    }
    late
}

/// The same as if it were measured now.
fn board_now(board: &Arc<Board>) -> Arc<Board> {
    let mut board = Board::clone(board);
    board.sampled_at = Some(Instant::now());
    Arc::new(board)
}

fn board(peers: u32, tps: f64) -> Result<Arc<Board>, Box<dyn std::error::Error>> {
    let range = TpsRange::try_new(Tps::try_new(5.0)?, Tps::try_new(80.0)?)?;
    let current_tps = Tps::try_new(tps)?;
    let hint = |scope: Scope| Hint {
        current_tps,
        state: State::Constrained,
        ..Hint::unknown(range, &scope, "path: unsent data growing, carry 27.6 tok/s")
    };
    let peer = |n: u32| {
        let ip = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + n));
        (ip, hint(Scope::Peer(ip)))
    };
    let peers: BTreeMap<IpAddr, Hint> = (0..peers).map(peer).collect();
    Ok(Arc::new(Board::new(hint(Scope::Host), peers, Vec::new(), Some(Instant::now()))))
}
