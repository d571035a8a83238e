//! Streams of many nodes on one engine: what is said, and what the process that knows all of them makes of it.
//!
//! ```text
//! netdiag.v1.demand.<engine>.<node>    what a node's streams ask of an engine, and its capacity where the node was told it
//! netdiag.v1.level.<engine>            how high the water stands (netdiag-pacer's `Level`), by the leader
//! ```
//!
//! A node that has fallen silent goes on with what it had, so its demand is counted for some time longer. Invariants: one demand per node
//! and engine, the newest; memory is bounded by [`MOST`] of them.

use std::collections::BTreeMap;
use std::time::Duration;

use netdiag_pacer::{Demand, InvalidDemand, Level, Load, State, Turn, fleet_level};
use netdiag_telemetry::Tps;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;

use super::history::EngineHistory;
use super::subject::NodeName;

/// An engine's name, of the same form as a node's.
pub type EngineName = NodeName;

/// What subjects of demands begin with.
pub(crate) const DEMANDS: &str = "netdiag.v1.demand";

/// What subjects of levels begin with.
pub(crate) const LEVELS: &str = "netdiag.v1.level";

/// How often demands and levels are said: several times within the second in which a lead is brought to where it should be.
pub(crate) const OFTEN: Duration = Duration::from_millis(200);

/// For how long one holds: four may be lost.
pub(crate) const HOLDS: Duration = Duration::from_secs(1);

/// For how long a node's demand counts after it has lapsed: a node that has fallen silent goes on as before. Beyond, it is more likely to
/// be gone than cut off.
const KEPT: Duration = Duration::from_secs(10);

/// For how long two processes have to speak by one name before it is told: what one of them says last, when the other takes its place, is
/// over by then.
const TOGETHER: Duration = Duration::from_secs(3);

/// Largest message, bytes: a demand of as many turns as there may be has some ten thousand.
const LARGEST: usize = 64 * 1024;

/// Most demands that are remembered.
const MOST: usize = 20_000;

/// What a node's streams ask of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DemandMessage {
    pub(crate) node: NodeName,
    pub(crate) engine: EngineName,
    /// Unix milliseconds when the node began.
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    /// Nothing: the node takes its leave.
    pub(crate) ttl_seconds: f64,
    /// What the engine generates with all seats taken, if the node was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capacity_tps: Option<f64>,
    pub(crate) streams: u32,
    pub(crate) reading_tps: f64,
    /// How the node is, for people: its host's hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "state_if_known")]
    pub(crate) state: Option<State>,
    /// Levels and weights. Seven digits of them say all that matters, in half the bytes of seventeen.
    pub(crate) turns: Vec<(f32, f32)>,
}

/// A later version may know more states, and its streams share all the same.
fn state_if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<State>, D::Error> {
    let state = serde_json::Value::deserialize(deserializer)?;
    Ok(State::deserialize(state).ok())
}

/// The level, as the leader says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LevelMessage {
    pub(crate) engine: EngineName,
    pub(crate) leader: NodeName,
    /// Grows from one leader to the next.
    pub(crate) term: u64,
    pub(crate) sequence: u64,
    pub(crate) ttl_seconds: f64,
    /// `null` while everybody has what it asks for.
    pub(crate) level: Option<f64>,
    pub(crate) is_busy: bool,
    pub(crate) spare_tps: f64,
    pub(crate) even_tps: f64,
    pub(crate) capacity_tps: f64,
    pub(crate) nodes: usize,
    pub(crate) streams: u64,
}

impl LevelMessage {
    pub(crate) fn level(&self) -> Level {
        Level {
            level: self.level.unwrap_or(f64::INFINITY),
            load: if self.is_busy { Load::Busy } else { Load::Idle },
            spare: self.spare_tps,
            even: self.even_tps,
            number: self.sequence,
        }
    }
}

/// A message that nobody of ours has sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidFleetMessage {
    #[error("it has {0} bytes, more than {LARGEST}")]
    Size(usize),
    #[error("it is none of a fleet: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its subject and its text do not speak of the same")]
    Subject,
    #[error(transparent)]
    Demand(#[from] InvalidDemand),
    #[error("{0} tokens/s")]
    Rate(f64),
    #[error("there are {MOST} demands already")]
    Many,
}

/// Reads a level of `engine`.
pub(crate) fn read_level(
    engine: &EngineName,
    payload: &[u8],
) -> Result<LevelMessage, InvalidFleetMessage> {
    let message: LevelMessage = read(payload)?;
    if message.engine != *engine {
        return Err(InvalidFleetMessage::Subject);
    }
    let rates = [message.level.unwrap_or(0.0), message.spare_tps, message.even_tps];
    match rates.into_iter().find(|rate| !rate.is_finite() || *rate < 0.0) {
        Some(rate) => Err(InvalidFleetMessage::Rate(rate)),
        None => Ok(message),
    }
}

fn read<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> Result<T, InvalidFleetMessage> {
    if payload.len() > LARGEST {
        return Err(InvalidFleetMessage::Size(payload.len()));
    }
    Ok(serde_json::from_slice(payload)?)
}

/// One engine as the fleet has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineView {
    /// Its name.
    pub engine: EngineName,
    /// What it generates with all seats taken, tokens/s; `None` while nobody has said, and then nothing is shared out.
    pub capacity_tps: Option<f64>,
    /// How high the water stands; `None` while everybody has what it asks for.
    pub level: Option<f64>,
    /// Whether clients could read more than it generates.
    pub is_busy: bool,
    /// What streams ask for in all, tokens/s.
    pub demand_tps: f64,
    /// What they have, tokens/s.
    pub given_tps: f64,
    /// Who has streams there.
    pub nodes: Vec<MemberView>,
    /// What it was asked for and gave in the last minutes, as far as this process knows.
    pub history: EngineHistory,
}

/// One node's part of an engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberView {
    /// Its name.
    pub node: NodeName,
    /// Its streams.
    pub streams: u32,
    /// What they ask for, tokens/s.
    pub demand_tps: f64,
    /// What they have, tokens/s.
    pub given_tps: f64,
    /// How its links are: its host's hint's; `None` where it does not say.
    pub health: Option<f64>,
    /// What limits them.
    pub state: Option<State>,
    /// How long ago it was heard of.
    pub age_seconds: f64,
    /// Nothing was heard of it for too long.
    pub is_silent: bool,
}

/// All demands.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    by_engine: BTreeMap<EngineName, BTreeMap<NodeName, Heard>>,
    /// What whoever runs the fleet says of engines; wins over what nodes say.
    capacities: BTreeMap<EngineName, Tps>,
    count: usize,
}

#[derive(Debug)]
struct Heard {
    order: (u64, u64),
    demand: Demand,
    capacity: Option<Tps>,
    health: Option<f64>,
    state: Option<State>,
    at: Instant,
    until: Instant,
    /// When another process has begun to speak by the same name, and when it was heard last.
    twice: Option<(Instant, Instant)>,
    /// It was told that one does.
    is_told: bool,
}

impl Demands {
    pub(crate) fn new(capacities: BTreeMap<EngineName, Tps>) -> Self {
        Self { capacities, ..Self::default() }
    }

    /// Takes in a message at `now`.
    pub(crate) fn hear(
        &mut self,
        subject: &str,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), InvalidFleetMessage> {
        let message: DemandMessage = read(payload)?;
        let DemandMessage { node, engine, session, sequence, .. } = message;
        if subject != format!("{DEMANDS}.{engine}.{node}") {
            return Err(InvalidFleetMessage::Subject);
        }
        let turn = |(level, weight)| Turn { level: f64::from(level), weight: f64::from(weight) };
        let turns = message.turns.into_iter().map(turn);
        let demand = Demand::try_new(turns.collect(), message.reading_tps, message.streams)?;
        let capacity = message
            .capacity_tps
            .map(|capacity| Tps::try_new(capacity).map_err(|_| InvalidFleetMessage::Rate(capacity)))
            .transpose()?;
        let order = (session, sequence);
        let nodes = self.by_engine.entry(engine).or_default();
        let mut known = nodes.get_mut(&node);
        // What has lapsed is replaced by whatever comes.
        if let Some(known) = &mut known
            && known.order >= order
            && known.until > now
        {
            // What an older process said last may come late, when it was replaced. One that goes on is another one.
            let is_other = known.order.0 != session && message.ttl_seconds > 0.0;
            let since = match known.twice {
                Some((since, last)) if now <= last + HOLDS => since,
                _ => now,
            };
            if is_other {
                known.twice = Some((since, now));
            }
            let is_twice = is_other && now >= since + TOGETHER;
            if is_twice && !std::mem::replace(&mut known.is_told, true) {
                tracing::warn!(
                    "fleet: two processes speak as node {node}; give each a --node of its own"
                );
            }
            return Ok(());
        }
        let twice = known.as_ref().and_then(|known| known.twice);
        let is_told = known.as_ref().is_some_and(|known| known.is_told);
        if message.ttl_seconds <= 0.0 {
            if known.is_some_and(|known| known.order.0 > session) {
                return Ok(());
            }
            self.count -= usize::from(nodes.remove(&node).is_some());
        } else if known.is_some() || self.count < MOST {
            self.count += usize::from(known.is_none());
            let health = message.health.filter(|health| (0.0..=1.0).contains(health));
            let (state, until) = (message.state, now + HOLDS);
            let at = now;
            let heard = Heard { order, demand, capacity, health, state, at, until, twice, is_told };
            nodes.insert(node, heard);
        } else {
            return Err(InvalidFleetMessage::Many);
        }
        if nodes.is_empty() {
            self.by_engine.retain(|_, nodes| !nodes.is_empty());
        }
        Ok(())
    }

    /// What each engine comes to at `now`; nodes that have been silent for long are forgotten.
    pub(crate) fn engines(&mut self, now: Instant) -> Vec<(EngineView, Option<Level>)> {
        for nodes in self.by_engine.values_mut() {
            nodes.retain(|_, heard| heard.until + KEPT > now);
        }
        self.by_engine.retain(|_, nodes| !nodes.is_empty());
        self.count = self.by_engine.values().map(BTreeMap::len).sum();
        let capacities = &self.capacities;
        let view = |(engine, nodes): (&EngineName, &BTreeMap<NodeName, Heard>)| {
            // Where nodes disagree, the engine is not asked for more than the most cautious says.
            let said = nodes.values().filter_map(|heard| heard.capacity);
            let capacity =
                capacities.get(engine).copied().or(said.min_by(|a, b| a.get().total_cmp(&b.get())));
            let demands: Vec<&Demand> = nodes.values().map(|heard| &heard.demand).collect();
            let level = capacity.map(|capacity| fleet_level(capacity, &demands));
            let at = level.map_or(f64::INFINITY, |level| level.level);
            let member = |(node, heard): (&NodeName, &Heard)| MemberView {
                node: node.clone(),
                streams: heard.demand.streams(),
                demand_tps: heard.demand.cap(),
                given_tps: heard.demand.at(at),
                health: heard.health,
                state: heard.state,
                age_seconds: now.saturating_duration_since(heard.at).as_secs_f64(),
                is_silent: heard.until <= now,
            };
            let members: Vec<MemberView> = nodes.iter().map(member).collect();
            let view = EngineView {
                engine: engine.clone(),
                capacity_tps: capacity.map(Tps::get),
                level: at.is_finite().then_some(at),
                is_busy: level.is_some_and(|level| level.load == Load::Busy),
                demand_tps: members.iter().map(|member| member.demand_tps).sum(),
                given_tps: members.iter().map(|member| member.given_tps).sum(),
                nodes: members,
                history: EngineHistory::default(),
            };
            (view, level)
        };
        self.by_engine.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests;
