//! A node's part in a fleet: it says what its streams ask for, and hears the level that all go by.

use std::time::Duration;

use futures_util::StreamExt as _;
use netdiag_pacer::{Demand, Hint, Level, Turn};
use netdiag_telemetry::Tps;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connection::Bus;
use super::fleet::{DEMANDS, DemandMessage, EngineName, HOLDS, LEVELS, OFTEN, read_level};
use super::publisher::{PARTING, ROOM, session};
use super::subject::NodeName;

/// Which engine a node shares with others.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// The node.
    pub node: NodeName,
    /// The engine.
    pub engine: EngineName,
    /// What it generates with all seats taken, if the node was told.
    pub capacity: Option<Tps>,
}

/// A level, and until when it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeardLevel {
    level: Level,
    until: Instant,
    order: (u64, u64),
}

impl HeardLevel {
    /// The level, if it holds at `now`.
    pub fn at(&self, now: Instant) -> Option<Level> {
        (now < self.until).then_some(self.level)
    }
}

/// A node's end of it: what whoever paces the streams writes and reads.
#[derive(Debug)]
pub struct Seat {
    /// What the streams ask for.
    pub demand: watch::Sender<Demand>,
    /// What was heard last.
    pub level: watch::Receiver<Option<HeardLevel>>,
}

/// The bus's end of it.
#[derive(Debug)]
pub struct Member {
    demand: watch::Receiver<Demand>,
    level: watch::Sender<Option<HeardLevel>>,
}

/// Both ends.
pub fn seat() -> (Seat, Member) {
    let (demand, asked) = watch::channel(Demand::default());
    let (heard, level) = watch::channel(None);
    (Seat { demand, level }, Member { demand: asked, level: heard })
}

impl Member {
    /// Takes part until `stop`. `host` is the host's hint now, from which people see how the node is.
    pub async fn take_part(
        self,
        bus: &Bus,
        settings: &MemberSettings,
        host: impl Fn() -> Hint,
        stop: impl Future<Output = ()>,
    ) {
        let mut message = DemandMessage {
            node: settings.node.clone(),
            engine: settings.engine.clone(),
            session: session(),
            sequence: 0,
            ttl_seconds: HOLDS.as_secs_f64(),
            capacity_tps: settings.capacity.map(Tps::get),
            streams: 0,
            reading_tps: 0.0,
            health: None,
            state: None,
            turns: Vec::new(),
        };
        tokio::select! {
            () = ask(bus, self.demand, host, &mut message) => {}
            () = hear(bus, &settings.engine, &self.level) => {}
            () = stop => {}
        }
        // The others need not wait for what we do not use any more.
        message.ttl_seconds = 0.0;
        send(bus, &mut message).await;
        let _ = timeout(PARTING, bus.client.flush()).await;
    }
}

async fn ask(
    bus: &Bus,
    demand: watch::Receiver<Demand>,
    host: impl Fn() -> Hint,
    message: &mut DemandMessage,
) {
    let mut often = interval(OFTEN);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        often.tick().await;
        let demand = demand.borrow().clone();
        message.streams = demand.streams();
        message.reading_tps = demand.reading();
        let host = host();
        (message.health, message.state) = (Some(host.health), Some(host.state));
        let pair = |turn: &Turn| (turn.level as f32, turn.weight as f32);
        message.turns = demand.turns().iter().map(pair).collect();
        if bus.is_connected() {
            send(bus, message).await;
        }
    }
}

async fn send(bus: &Bus, message: &mut DemandMessage) {
    message.sequence += 1;
    let subject = format!("{DEMANDS}.{}.{}", message.engine, message.node);
    let payload = serde_json::to_vec(message).unwrap_or_default();
    // What is not heard is said again soon.
    let _ = timeout(ROOM, bus.client.publish(subject, payload.into())).await;
}

async fn hear(bus: &Bus, engine: &EngineName, heard: &watch::Sender<Option<HeardLevel>>) {
    let Ok(mut levels) = bus.client.subscribe(format!("{LEVELS}.{engine}")).await else {
        // Only a connection that nobody uses any more cannot be subscribed on.
        return;
    };
    let mut leader: Option<NodeName> = None;
    while let Some(message) = levels.next().await {
        let message = match read_level(engine, &message.payload) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!("fleet: a level is left out: {error}");
                continue;
            }
        };
        let (now, order) = (Instant::now(), (message.term, message.sequence));
        // One that leads no more and does not know it yet. After a silence whoever speaks is believed: terms count anew when the
        // broker has lost its memory.
        if heard.borrow().is_some_and(|last| last.order >= order && last.at(now).is_some()) {
            continue;
        }
        if leader.as_ref() != Some(&message.leader) {
            tracing::info!("fleet: engine {engine} is shared by {}'s level", message.leader);
            leader = Some(message.leader.clone());
        }
        let holds = Duration::try_from_secs_f64(message.ttl_seconds).unwrap_or_default();
        let until = now + holds.min(HOLDS);
        heard.send_replace(Some(HeardLevel { level: message.level(), until, order }));
    }
}
