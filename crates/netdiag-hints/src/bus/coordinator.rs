//! The process that shares engines among nodes: hears all demands, and says the levels while it leads.
//!
//! Any number may run. All hear everything, so whoever becomes the leader knows at once what the last one knew. Invariant: only one says
//! levels at a time, up to what a clock runs faster than another within a lease; and it says them with a higher term than those before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use netdiag_pacer::{Level, Load};
use netdiag_telemetry::Tps;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connection::Bus;
use super::election::{Leadership, stand};
use super::fleet::{DEMANDS, Demands, EngineName, EngineView, HOLDS, LEVELS, LevelMessage, OFTEN};
use super::history::Histories;
use super::publisher::ROOM;
use super::settings::BusSettings;
use super::subject::NodeName;

/// How the fleet is shared.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// This process, among those that may lead.
    pub node: NodeName,
    /// What engines generate with all seats taken; wins over what nodes say of them.
    pub capacities: BTreeMap<EngineName, Tps>,
}

/// The fleet as this process knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FleetView {
    /// Who leads; `null` while nobody does.
    pub leader: Option<NodeName>,
    /// Whether it is this process.
    pub is_leader: bool,
    /// Its term.
    pub term: Option<u64>,
    /// For how long it has led, as far as this process has seen.
    pub leader_seconds: Option<f64>,
    /// What is left of the leader's lease, which it renews again and again.
    pub lease_seconds: Option<f64>,
    /// Whether there is a connection to the bus.
    pub is_connected: bool,
    /// All engines that nodes share.
    pub engines: Vec<EngineView>,
}

/// Coordinates until `stop`; `view` has what is known, several times a second.
pub async fn coordinate(
    bus: &BusSettings,
    settings: &FleetSettings,
    view: &watch::Sender<FleetView>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let bus = tokio::select! {
        bus = Bus::connect(bus) => bus,
        () = &mut stop => return,
    };
    let demands = Mutex::new(Demands::new(settings.capacities.clone()));
    let (known, leadership) = watch::channel(Leadership::default());
    let (end, ended) = watch::channel(false);
    let until = async {
        let mut ended = ended;
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let working = async {
        tokio::select! {
            () = hear(&bus, &demands) => {}
            () = say(&bus, settings, &demands, &leadership, view) => {}
            () = stop => {}
        }
        end.send_replace(true);
    };
    // The election ends last: it gives the lease back.
    tokio::join!(working, stand(&bus, &settings.node, &known, until));
}

async fn hear(bus: &Bus, demands: &Mutex<Demands>) {
    let Ok(mut messages) = bus.client.subscribe(format!("{DEMANDS}.>")).await else {
        // Only a connection that nobody uses any more cannot be subscribed on.
        return;
    };
    while let Some(message) = messages.next().await {
        let mut demands = demands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = demands.hear(&message.subject, &message.payload, Instant::now()) {
            tracing::debug!(subject = %message.subject, "fleet: a demand is left out: {error}");
        }
    }
}

async fn say(
    bus: &Bus,
    settings: &FleetSettings,
    demands: &Mutex<Demands>,
    leadership: &watch::Receiver<Leadership>,
    view: &watch::Sender<FleetView>,
) {
    let mut often = interval(OFTEN);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sequence, mut last, mut connections) = (0, None, 0);
    // Who has not heard everybody yet would give the first to speak what is the others'.
    let mut listening_until = Instant::now() + HOLDS;
    let (mut unbounded, mut histories) = (BTreeSet::new(), Histories::default());
    let mut led_since: Option<(NodeName, Instant)> = None;
    loop {
        often.tick().await;
        let now = Instant::now();
        if bus.connections() != connections {
            connections = bus.connections();
            listening_until = now + HOLDS;
        }
        let mut engines = demands.lock().unwrap_or_else(PoisonError::into_inner).engines(now);
        histories.note(engines.iter_mut().map(|(engine, _)| engine), now);
        let leader = leadership.borrow().clone();
        if led_since.as_ref().map(|(led_by, _)| led_by) != leader.leader.as_ref() {
            led_since = leader.leader.clone().map(|led_by| (led_by, now));
        }
        let term = leader.leads(now);
        if term != last {
            match term {
                Some(term) => tracing::info!("fleet: {} leads, term {term}", settings.node),
                None => tracing::info!("fleet: {} leads no more", settings.node),
            }
            last = term;
        }
        unbounded.retain(|name| engines.iter().any(|(engine, _)| engine.engine == *name));
        if let Some(term) = term.filter(|_| bus.is_connected() && now >= listening_until) {
            for (engine, level) in &engines {
                let Some(level) = level else {
                    if unbounded.insert(engine.engine.clone()) {
                        tracing::warn!(
                            "fleet: nobody has said what engine {0} generates, so it is not shared out; give nodes \
                             --capacity-tps or this process --capacity {0}=TPS",
                            engine.engine
                        );
                    }
                    continue;
                };
                sequence += 1;
                let message = message(settings, engine, level, (term, sequence));
                let payload = serde_json::to_vec(&message).unwrap_or_default();
                let subject = format!("{LEVELS}.{}", engine.engine);
                let sent = timeout(ROOM, bus.client.publish(subject, payload.into())).await;
                // What is not said now is said again soon, by whoever leads then.
                if sent.is_err() || leader.leads(Instant::now()).is_none() {
                    break;
                }
            }
        }
        view.send_replace(FleetView {
            is_leader: term.is_some(),
            leader: leader.leader,
            term,
            leader_seconds: led_since.as_ref().map(|(_, since)| seconds(now, *since)),
            lease_seconds: leader.until.map(|until| seconds(until, now)),
            is_connected: bus.is_connected(),
            engines: engines.into_iter().map(|(view, _)| view).collect(),
        });
    }
}

/// From one time to a later one.
fn seconds(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64()
}

fn message(
    settings: &FleetSettings,
    engine: &EngineView,
    level: &Level,
    (term, sequence): (u64, u64),
) -> LevelMessage {
    LevelMessage {
        engine: engine.engine.clone(),
        leader: settings.node.clone(),
        term,
        sequence,
        ttl_seconds: HOLDS.as_secs_f64(),
        level: engine.level,
        is_busy: level.load == Load::Busy,
        spare_tps: level.spare,
        even_tps: level.even,
        capacity_tps: engine.capacity_tps.unwrap_or_default(),
        nodes: engine.nodes.len(),
        streams: engine.nodes.iter().map(|member| u64::from(member.streams)).sum(),
    }
}
