//! Hints over a real NATS server: what is heard, when, and what becomes of it while the server is gone.

mod fleet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use netdiag_hints::Board;
use netdiag_hints::bus::{
    Bus, BusSettings, BusStatus, Credentials, HintSubscriber, NodeHint, NodeName, PublishSettings,
    Scopes, Update, publish,
};
use netdiag_lab::Broker;
use netdiag_pacer::{Hint, State, TpsRange, WhenStale};
use netdiag_telemetry::{Scope, Tps};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// The bar for coming back.
const RECOVERY: Duration = Duration::from_secs(3);

/// A node that publishes.
struct Node {
    boards: watch::Sender<Arc<Board>>,
    status: Arc<BusStatus>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn hint(tps: f64) -> Hint {
    let rate = |rate| Tps::try_new(rate).expect("a rate");
    let range = TpsRange::try_new(rate(5.0), rate(80.0)).expect("a range");
    let current_tps = rate(tps);
    Hint { current_tps, state: State::Clear, ..Hint::unknown(range, &Scope::Host, "test") }
}

/// A board whose hints are all of `tps`, as if measured now.
fn board(peers: u32, tps: f64) -> Arc<Board> {
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + n));
    let peer = |n: u32| {
        let ip = address(n);
        (ip, Hint { scope: Scope::Peer(ip).to_string(), ..hint(tps) })
    };
    let peers: BTreeMap<IpAddr, Hint> = (0..peers).map(peer).collect();
    Arc::new(Board::new(hint(tps), peers, Vec::new(), Some(Instant::now())))
}

fn bus(broker: &Broker) -> BusSettings {
    BusSettings::new(vec![broker.url().parse().expect("an address")], "test")
}

fn node(bus: &BusSettings, name: &str, stale_after: Duration) -> Node {
    let (boards, newest) = watch::channel(board(2, 40.0));
    let status = Arc::new(BusStatus::default());
    let settings = PublishSettings {
        node: NodeName::try_new(name).expect("a name"),
        scopes: Scopes { peers: true, streams: false },
        rate: 1000,
        stale_after,
        when_stale: WhenStale::Max,
    };
    let (bus, counted) = (bus.clone(), Arc::clone(&status));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let publishing = async {
            let bus = Bus::connect(&bus).await;
            publish(&bus, &settings, newest, &counted, std::future::pending()).await;
        };
        tokio::select! {
            () = publishing => {}
            _ = stopped => {}
        }
    });
    Node { boards, status, stop, task }
}

async fn next(subscriber: &mut HintSubscriber) -> Update {
    timeout(PATIENCE, subscriber.next()).await.expect("a hint in time")
}

/// Waits for a hint that fits.
async fn find(subscriber: &mut HintSubscriber, fits: impl Fn(&Update) -> bool) -> Update {
    let finding = async {
        loop {
            let update = subscriber.next().await;
            if fits(&update) {
                return update;
            }
        }
    };
    timeout(PATIENCE, finding).await.expect("such a hint in time")
}

#[tokio::test]
async fn what_a_node_says_is_heard_at_once_and_in_order() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let mut all = HintSubscriber::start(&bus, ">").await;
    let mut hosts = HintSubscriber::start(&bus, "*.host").await;
    let node = node(&bus, "n1", Duration::from_secs(2));
    let mut scopes = Vec::new();
    for sequence in 1..=3 {
        let update = next(&mut all).await;
        assert_eq!((update.hint.sequence, update.hint.node.as_str()), (sequence, "n1"));
        assert!(update.holds > Duration::from_millis(1500), "{update:?}");
        scopes.push(update.hint.hint.scope);
    }
    assert_eq!(scopes, ["host", "peer 10.0.0.1", "peer 10.0.0.2"]);
    assert_eq!(next(&mut hosts).await.hint.hint.current_tps.get(), 40.0);
    for round in 0..20 {
        let tps = 10.0 + f64::from(round);
        node.boards.send_replace(board(0, tps));
        let update = next(&mut hosts).await;
        assert_eq!(update.hint.hint.current_tps.get(), tps);
    }
    assert_eq!(all.all().len(), 3);
    // Nobody measures any more: that is told, too.
    let stale = find(&mut hosts, |update| update.hint.hint.state == State::Stale).await;
    assert_eq!(stale.hint.hint.current_tps.get(), 80.0);
    drop(node.boards);
    timeout(PATIENCE, node.task).await.expect("an end in time").expect("no panic");
}

#[tokio::test]
async fn who_joins_late_finds_the_last_values() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    // It holds for long, so it's not said again soon.
    let node = node(&bus, "n1", Duration::from_secs(60));
    wait_until("three values are kept", || node.status.kept() >= 3).await;
    let subscriber = HintSubscriber::start(&bus, ">").await;
    let found = subscriber.all();
    assert_eq!(found.len(), 3, "{found:?}");
    for update in &found {
        let age = Duration::from_secs(60).saturating_sub(update.holds);
        assert!(age > Duration::ZERO && age < PATIENCE, "{update:?}");
    }
    let peers = HintSubscriber::start(&bus, "*.peer.10-0-0-2").await;
    assert_eq!(peers.all().len(), 1);
}

#[tokio::test]
async fn without_jetstream_hints_are_heard_all_the_same() {
    let broker = Broker::with(&[]).expect("nats-server");
    let bus = bus(&broker);
    let node = node(&bus, "n1", Duration::from_secs(2));
    let mut subscriber = HintSubscriber::start(&bus, ">").await;
    // Three hints are repeated three times within their time to live. After one and a half it has been tried to keep them.
    for _ in 0..15 {
        next(&mut subscriber).await;
    }
    assert_eq!(node.status.kept(), 0);
    node.boards.send_replace(board(0, 33.0));
    find(&mut subscriber, |update| update.hint.hint.current_tps.get() == 33.0).await;
}

#[tokio::test]
async fn a_broker_that_was_gone_is_found_again_and_nothing_old_is_heard() {
    let mut broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    // Nothing is stale before the server must be back, which would be told as the highest rate.
    let node = node(&bus, "n1", RECOVERY);
    let mut subscriber = HintSubscriber::start(&bus, "*.host").await;
    next(&mut subscriber).await;
    broker.kill();
    // Above what was said before.
    let (gone, mut tps) = (Instant::now(), 41.0);
    while node.status.is_connected() || node.status.dropped() <= 100 {
        assert!(gone.elapsed() < PATIENCE, "{:?}", node.status);
        tps += 0.125;
        node.boards.send_replace(board(2, tps));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.restart().expect("nats-server");
    let back = Instant::now();
    node.boards.send_replace(board(2, 77.0));
    let first = find(&mut subscriber, |update| update.hint.hint.current_tps.get() > 40.5).await;
    assert!(back.elapsed() < RECOVERY, "{:?}", back.elapsed());
    // Of what was said meanwhile nothing was kept for later.
    assert_eq!(first.hint.hint.current_tps.get(), 77.0);
    assert!(node.status.connections() >= 2);
    // The bucket was in the server's memory and is made anew.
    let kept = node.status.kept();
    wait_until("values are kept again", || node.status.kept() > kept).await;
}

#[tokio::test]
async fn a_broker_that_hangs_delays_nobody() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let node = node(&bus, "n1", Duration::from_secs(1));
    let mut subscriber = HintSubscriber::start(&bus, "*.host").await;
    next(&mut subscriber).await;
    broker.freeze().expect("it runs");
    // Many hints, all of them new: far more than fit anywhere.
    for round in 0..200 {
        let before = Instant::now();
        node.boards.send_replace(board(2000, 10.0 + f64::from(round % 2) * 50.0));
        assert!(before.elapsed() < Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.thaw().expect("it runs");
    let back = Instant::now();
    node.boards.send_replace(board(0, 77.0));
    find(&mut subscriber, |update| update.hint.hint.current_tps.get() == 77.0).await;
    assert!(back.elapsed() < RECOVERY, "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_restarted_node_is_heard_and_an_impostor_is_not() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let mut subscriber = HintSubscriber::start(&bus, "n1.>").await;
    let first = node(&bus, "n1", Duration::from_secs(60));
    let before = next(&mut subscriber).await.hint;
    first.task.abort();
    let _second = node(&bus, "n1", Duration::from_secs(60));
    let after = find(&mut subscriber, |update| update.hint.session > before.session).await.hint;
    assert_eq!((after.sequence, after.hint.scope.as_str()), (1, "host"));
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let mut forged = after.clone();
    (forged.sequence, forged.node) = (99, NodeName::try_new("n2").expect("a name"));
    let forged = serde_json::to_vec(&forged).expect("JSON");
    // It says three things, and then nothing for long.
    find(&mut subscriber, |update| update.hint.sequence == 3).await;
    let heard = subscriber.heard();
    for payload in [forged, b"{".to_vec(), vec![b'['; 100_000]] {
        let subject = "netdiag.v1.hint.n1.host";
        client.publish(subject, payload.into()).await.expect("published");
    }
    // What is said after them is heard after them.
    let genuine = NodeHint { sequence: 1000, ..after };
    let genuine = serde_json::to_vec(&genuine).expect("JSON");
    client.publish("netdiag.v1.hint.n1.host", genuine.into()).await.expect("published");
    let found = find(&mut subscriber, |update| update.hint.sequence >= 99).await;
    assert_eq!(found.hint.sequence, 1000);
    assert_eq!(subscriber.heard(), heard + 1, "what was forged counts as heard");
}

#[tokio::test]
async fn credentials_let_in_and_wrong_ones_are_tried_again() {
    let broker = Broker::with(&["-js", "--auth", "s3cret"]).expect("nats-server");
    let with = |token: &str| BusSettings {
        credentials: Some(Credentials::Token(token.to_owned())),
        ..bus(&broker)
    };
    let wrong = node(&with("guess"), "n1", Duration::from_secs(2));
    let _right = node(&with("s3cret"), "n2", Duration::from_secs(2));
    let mut subscriber = HintSubscriber::start(&with("s3cret"), "*.host").await;
    assert_eq!(next(&mut subscriber).await.hint.node.as_str(), "n2");
    assert!(!wrong.task.is_finished() && !wrong.status.is_connected());
    // It ends when it should all the same.
    drop(wrong.stop);
    timeout(PATIENCE, wrong.task).await.expect("an end in time").expect("no panic");
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
