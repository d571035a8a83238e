//! A fleet over a real NATS server: what two nodes share, whoever leads and whatever becomes of the server.

use std::collections::BTreeMap;
use std::time::Duration;

use netdiag_hints::bus::{
    Bus, BusSettings, FleetSettings, FleetView, MemberSettings, NodeName, Seat, coordinate, seat,
};
use netdiag_lab::Broker;
use netdiag_pacer::{Demand, Need, Share};
use netdiag_telemetry::Tps;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, RECOVERY, bus, hint};

const CAPACITY: f64 = 60.0;

fn tps(rate: f64) -> Tps {
    Tps::try_new(rate).expect("a rate")
}

fn name(name: &str) -> NodeName {
    NodeName::try_new(name).expect("a name")
}

/// A process that may lead.
struct Coordinator {
    view: watch::Receiver<FleetView>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn coordinator(bus: &BusSettings, node: &str) -> Coordinator {
    let (known, view) = watch::channel(FleetView::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = FleetSettings { node: name(node), capacities: BTreeMap::new() };
    let bus = bus.clone();
    let task = tokio::spawn(async move {
        coordinate(&bus, &settings, &known, async { drop(stopped.await) }).await;
    });
    Coordinator { view, stop, task }
}

impl Coordinator {
    fn leads(&self) -> bool {
        self.view.borrow().is_leader
    }
}

/// A node with some streams, all of which could use more than there is.
struct Node {
    seat: Seat,
    needs: Vec<Option<Need>>,
    share: Share,
    stop: oneshot::Sender<()>,
}

fn node(bus: &BusSettings, node: &str, streams: usize) -> Node {
    let (seat, member) = seat();
    let (stop, stopped) = oneshot::channel::<()>();
    let settings =
        MemberSettings { node: name(node), engine: name("e1"), capacity: Some(tps(CAPACITY)) };
    let need = Need { cap: 80.0, reading: tps(20.0), lead: 0.0, ahead: 2.0 };
    let needs = vec![Some(need); streams];
    seat.demand.send_replace(Demand::of(&needs));
    let bus = bus.clone();
    tokio::spawn(async move {
        let bus = Bus::connect(&bus).await;
        member.take_part(&bus, &settings, || hint(40.0), async { drop(stopped.await) }).await;
    });
    Node { seat, needs, share: Share::default(), stop }
}

impl Node {
    fn hears(&self) -> bool {
        self.seat.level.borrow().is_some_and(|level| level.at(Instant::now()).is_some())
    }

    /// What each of its streams has.
    fn rates(&mut self) -> Vec<f64> {
        let level = self.seat.level.borrow().and_then(|level| level.at(Instant::now()));
        self.share.plan(level, tps(CAPACITY), &self.needs).1
    }
}

/// Waits until all streams have the same part of the engine.
async fn wait_for_parts(nodes: &mut [&mut Node], within: Duration) {
    let streams: usize = nodes.iter().map(|node| node.needs.len()).sum();
    let part = CAPACITY / streams as f64;
    let start = Instant::now();
    loop {
        let rates: Vec<f64> = nodes.iter_mut().flat_map(|node| node.rates()).collect();
        if rates.iter().all(|rate| (rate / part - 1.0).abs() < 0.02) {
            return;
        }
        assert!(start.elapsed() < within, "{rates:?}, which should be {part} each");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for(what: &str, within: Duration, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nodes_share_an_engine_and_one_process_leads() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let (first, second) = (coordinator(&bus, "f1"), coordinator(&bus, "f2"));
    let (mut a, mut b) = (node(&bus, "a", 1), node(&bus, "b", 3));
    wait_for_parts(&mut [&mut a, &mut b], PATIENCE).await;
    assert!(first.leads() != second.leads());
    let view = if first.leads() { &first.view } else { &second.view };
    let engine = view.borrow().engines[0].clone();
    assert_eq!((engine.capacity_tps, engine.is_busy, engine.nodes.len()), (Some(60.0), true, 2));
    assert!((engine.given_tps - CAPACITY).abs() < 1e-6, "{engine:?}");
    // Who takes its leave leaves its part to the others.
    drop(b.stop);
    wait_for_parts(&mut [&mut a], RECOVERY).await;
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_soon_and_rates_go_on() {
    let broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let first = coordinator(&bus, "f1");
    wait_for("the first leads", PATIENCE, || first.leads()).await;
    let second = coordinator(&bus, "f2");
    let (mut a, mut b) = (node(&bus, "a", 2), node(&bus, "b", 2));
    wait_for_parts(&mut [&mut a, &mut b], PATIENCE).await;
    wait_for("the second knows the first", PATIENCE, || {
        second.view.borrow().leader == Some(name("f1"))
    })
    .await;
    let term = first.view.borrow().term;
    // Without a word, as a crash would.
    first.task.abort();
    let died = Instant::now();
    while !second.leads() || !a.hears() || died.elapsed() < Duration::from_millis(1300) {
        let rates = [a.rates(), b.rates()].concat();
        assert!(rates.iter().sum::<f64>() <= CAPACITY * 1.02, "{rates:?}");
        assert!(rates.iter().all(|rate| (rate - 15.0).abs() < 0.3), "{rates:?}");
        assert!(died.elapsed() < RECOVERY, "no new leader");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(second.view.borrow().term > term);
    wait_for_parts(&mut [&mut a, &mut b], PATIENCE).await;
    // One that is asked to end gives the lease back, and nobody has to wait for it to run out.
    let third = coordinator(&bus, "f3");
    wait_for("the third knows the second", PATIENCE, || {
        third.view.borrow().leader == Some(name("f2"))
    })
    .await;
    drop(second.stop);
    let ended = Instant::now();
    wait_for("the third leads", RECOVERY, || third.leads()).await;
    assert!(ended.elapsed() < Duration::from_millis(1200), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn without_the_bus_nodes_keep_to_what_they_had_and_afterwards_share_again() {
    let mut broker = Broker::start().expect("nats-server");
    let bus = bus(&broker);
    let _coordinator = coordinator(&bus, "f1");
    let (mut a, mut b) = (node(&bus, "a", 1), node(&bus, "b", 3));
    wait_for_parts(&mut [&mut a, &mut b], PATIENCE).await;
    broker.kill();
    // Before and after what they have heard has lapsed.
    let (gone, mut hear) = (Instant::now(), true);
    while hear {
        hear = a.hears() || b.hears();
        let rates = [a.rates(), b.rates()].concat();
        assert!(rates.iter().all(|rate| (rate - 15.0).abs() < 0.3), "{rates:?}");
        assert!(gone.elapsed() < PATIENCE, "levels hold for ever");
        sleep(Duration::from_millis(50)).await;
    }
    // Meanwhile one of them has fewer streams. What the other has is the other's.
    b.needs.pop();
    b.seat.demand.send_replace(Demand::of(&b.needs));
    assert!(b.rates().iter().all(|rate| (rate - 22.5).abs() < 0.3));
    broker.restart().expect("nats-server");
    wait_for_parts(&mut [&mut a, &mut b], RECOVERY).await;
}
