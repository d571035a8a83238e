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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::try_new(name).expect("a name")
    }

    /// A node that asks for `cap` tokens/s at any level.
    fn message(node: &str, sequence: u64, cap: f64, capacity_tps: Option<f64>) -> DemandMessage {
        DemandMessage {
            node: name(node),
            engine: name("e1"),
            session: 1,
            sequence,
            ttl_seconds: 1.0,
            capacity_tps,
            streams: 1,
            reading_tps: 10.0,
            health: Some(0.75),
            state: Some(State::Constrained),
            turns: vec![(0.0, 10.0), (cap as f32 / 10.0, -10.0)],
        }
    }

    fn hear(demands: &mut Demands, message: &DemandMessage, now: Instant) -> Result<(), String> {
        let subject = format!("{DEMANDS}.{}.{}", message.engine, message.node);
        let payload = serde_json::to_vec(message).expect("JSON");
        demands.hear(&subject, &payload, now).map_err(|error| error.to_string())
    }

    fn given(demands: &mut Demands, now: Instant) -> Vec<f64> {
        let engines = demands.engines(now);
        engines
            .iter()
            .flat_map(|(view, _)| view.nodes.iter().map(|member| member.given_tps))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_share_what_the_most_cautious_says_and_silent_ones_keep_theirs() {
        let now = Instant::now();
        let mut demands = Demands::default();
        hear(&mut demands, &message("n1", 1, 80.0, None), now).expect("heard");
        assert_eq!(given(&mut demands, now), [80.0]);
        hear(&mut demands, &message("n2", 1, 80.0, Some(60.0)), now).expect("heard");
        hear(&mut demands, &message("n3", 1, 10.0, Some(50.0)), now).expect("heard");
        assert_eq!(given(&mut demands, now), [20.0, 20.0, 10.0]);
        // What is older than what is known is left out.
        hear(&mut demands, &message("n3", 0, 80.0, Some(50.0)), now).expect("heard");
        assert_eq!(given(&mut demands, now), [20.0, 20.0, 10.0]);
        let later = now + HOLDS + Duration::from_secs(1);
        hear(&mut demands, &message("n2", 2, 80.0, Some(60.0)), later).expect("heard");
        let view = &demands.engines(later)[0].0;
        let silent: Vec<bool> = view.nodes.iter().map(|member| member.is_silent).collect();
        assert_eq!((silent, view.given_tps), (vec![true, false, true], 50.0));
        let ages: Vec<f64> = view.nodes.iter().map(|member| member.age_seconds).collect();
        assert_eq!(ages, [2.0, 0.0, 2.0]);
        let gone = now + HOLDS + KEPT;
        assert_eq!(given(&mut demands, gone), [60.0]);
        // Who takes its leave is gone at once.
        let leave = DemandMessage { ttl_seconds: 0.0, ..message("n2", 3, 80.0, None) };
        hear(&mut demands, &leave, gone).expect("heard");
        assert!(demands.engines(gone).is_empty() && demands.count == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_no_second_process() {
        let mut demands = Demands::default();
        let start = Instant::now();
        let of =
            |session, sequence| DemandMessage { session, ..message("n1", sequence, 80.0, None) };
        let is_told = |demands: &Demands| demands.by_engine[&name("e1")][&name("n1")].is_told;
        // What the one before says last comes behind the first of the next.
        hear(&mut demands, &of(1, 1), start).expect("heard");
        hear(&mut demands, &of(2, 1), start).expect("heard");
        hear(&mut demands, &of(1, 2), start).expect("heard");
        for late in [Duration::ZERO, 2 * HOLDS] {
            let leave = DemandMessage { ttl_seconds: 0.0, ..of(1, 3) };
            hear(&mut demands, &leave, start + late).expect("heard");
            assert_eq!(given(&mut demands, start + late), [80.0], "{late:?}");
            assert!(!is_told(&demands));
        }
        // The next restart, much later, is none either.
        let next = start + 10 * TOGETHER;
        hear(&mut demands, &of(2, 2), next).expect("heard");
        hear(&mut demands, &of(3, 1), next).expect("heard");
        hear(&mut demands, &of(2, 3), next).expect("heard");
        assert!(!is_told(&demands));
        // Two that both go on.
        for tick in 0..40 {
            let now = next + tick * HOLDS / 10;
            hear(&mut demands, &of(3, 10 + u64::from(tick)), now).expect("heard");
            hear(&mut demands, &of(2, 10 + u64::from(tick)), now).expect("heard");
            assert_eq!(is_told(&demands), now >= next + TOGETHER, "{tick}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_runs_the_fleet_knows_engines_best() {
        let capacity = Tps::try_new(30.0).expect("a rate");
        let mut demands = Demands::new(BTreeMap::from([(name("e1"), capacity)]));
        let now = Instant::now();
        hear(&mut demands, &message("n1", 1, 80.0, Some(60.0)), now).expect("heard");
        assert_eq!(given(&mut demands, now), [30.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_node_is_is_told_and_what_a_later_version_says_of_it_costs_nothing() {
        let mut demands = Demands::default();
        let now = Instant::now();
        let mut heard = |sequence, health: &str, state: &str| {
            let json = serde_json::to_string(&message("n1", sequence, 80.0, None)).expect("JSON");
            let json = json.replace("0.75", health).replace("constrained", state);
            demands.hear("netdiag.v1.demand.e1.n1", json.as_bytes(), now).expect("heard");
            let member = demands.engines(now)[0].0.nodes[0].clone();
            (member.health, member.state, member.given_tps)
        };
        assert_eq!(heard(1, "0.75", "constrained"), (Some(0.75), Some(State::Constrained), 80.0));
        assert_eq!(heard(2, "7.5", "congealed"), (None, None, 80.0));
        assert_eq!(heard(3, "null", "clear"), (None, Some(State::Clear), 80.0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_of_ours_says_is_left_out() {
        let mut demands = Demands::default();
        let now = Instant::now();
        let bad = DemandMessage { turns: vec![(0.0, 1.0)], ..message("n1", 1, 80.0, None) };
        assert!(hear(&mut demands, &bad, now).expect_err("refused").contains("add up to 0"));
        let bad = message("n1", 1, 80.0, Some(-1.0));
        assert!(hear(&mut demands, &bad, now).expect_err("refused").contains("-1 tokens/s"));
        let payload = serde_json::to_vec(&message("n1", 1, 80.0, None)).expect("JSON");
        let forged = demands.hear("netdiag.v1.demand.e1.n2", &payload, now);
        assert!(matches!(forged, Err(InvalidFleetMessage::Subject)));
        assert!(demands.engines(now).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(payload: Vec<u8>, subject: String) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("one");
            let _in = runtime.enter();
            let _ = Demands::default().hear(&subject, &payload, Instant::now());
            let _ = read_level(&name("e1"), &payload);
        }
    }
}
