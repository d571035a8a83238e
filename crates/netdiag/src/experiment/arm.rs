//! One arm: links, an engine, clients, and the probe that watches them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_hints::Board;
use netdiag_lab::client::{self, ClientStream, Load, Outcome};
use netdiag_lab::engine::{Engine, Pace};
use netdiag_lab::metrics::{Summary, TokenCounts};
use netdiag_lab::{Lab, LabError, Playback, ServerSide};
use netdiag_pacer::{Hint, TpsRange};
use netdiag_probe::{FlowFilter, ProbeConfig};
use netdiag_telemetry::{FlowSnapshot, Row, Source, Tps};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::answers;
use super::conditions::{
    ANSWER_TOKENS, Conditions, LEAVERS, PATIENCE, Policy, RAMP, Via, engine, reader,
};
use super::front::Front;
use super::live::Shown;
use super::phases::PhaseSpan;
use super::rate::Rate;
use super::record::{ArmRecord, Tick};
use crate::confine::Confinement;
use crate::models::Models;
use crate::pacing::{Pacers, Sharing, TICK};
use crate::sampler::{Interval, Sampler, Settings, Watcher};
use crate::stop::Stop;

/// Where clients ask, in a namespace that is the server's own.
const PORT: u16 = 8000;

/// Where the engine listens if they ask the gateway.
const BEHIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);

/// An arm that is set up, and runs once it is begun.
pub(crate) struct Arm {
    policy: Policy,
    via: Via,
    lab: Arc<Lab>,
    engine: Engine,
    /// Ends with the arm.
    _front: Option<Front>,
    sampler: Sampler,
    found: Source,
    /// Which group the client behind an address belongs to.
    group_of: HashMap<IpAddr, usize>,
    seen: Arc<Mutex<Seen>>,
}

/// What the probe's thread has noted.
#[derive(Debug, Default)]
struct Seen {
    began: Option<Instant>,
    ticks: Vec<Tick>,
    rows: Vec<Row>,
}

/// An arm whose links have begun to change.
pub(crate) struct RunningArm {
    arm: Arm,
    playback: Playback,
    /// Ends the clients early.
    stop: watch::Sender<bool>,
    clients: JoinHandle<anyhow::Result<Outcome>>,
}

/// An arm whose time is over, with the connections that were open then still open.
pub(crate) struct EndedArm {
    arm: Arm,
    outcome: Outcome,
    _playback: Playback,
}

/// What an arm leaves behind.
pub(crate) struct ArmData {
    pub(crate) rows: Vec<Row>,
    pub(crate) streams: Vec<ClientStream>,
}

impl Arm {
    /// Sets up links, engine and probe.
    pub(crate) fn prepare(
        policy: Policy,
        conditions: &Conditions,
        runtime: &Handle,
        shown: Option<Shown>,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let links = conditions.schedules.iter().map(|schedule| schedule.first().clone());
        let lab = Lab::start_links(links, ServerSide::Namespace, conditions.seed)?;
        let range = conditions.range;
        let sharing = Sharing { range, capacity: None, reading: None };
        let carries = policy == Policy::Carry;
        let pacers = Pacers::new(range, Models::new(None), carries.then_some(sharing), None);
        let _inside = runtime.enter();
        let engine = Engine::try_new(engine())?;
        let (boards, newest) = watch::channel(Arc::new(pacers.board()));
        let via = conditions.via;
        // The gateway's connections are the engine's own, and hints are about clients'.
        let followed = if via == Via::Gateway { Policy::None } else { policy };
        runtime.spawn(pace(followed, engine.clone(), newest, range));
        let asked = SocketAddr::new(lab.server_ip(), PORT);
        let address = if via == Via::Gateway { BEHIND } else { asked };
        let listener = lab
            .on_server(|| {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok::<_, io::Error>(listener)
            })?
            .and_then(tokio::net::TcpListener::from_std)
            .context("the engine's port")?;
        let serving = engine.clone();
        runtime.spawn(async move { serving.serve(listener, std::future::pending()).await });
        let front = (via == Via::Gateway)
            .then(|| Front::start(&lab, policy, [asked, address], range))
            .transpose()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let addresses = lab.links().iter().map(netdiag_lab::Link::client_ip);
        let group_of: HashMap<IpAddr, usize> =
            addresses.zip(conditions.group_of.iter().copied()).collect();
        let watcher = Watching {
            pacers,
            boards,
            engine: engine.clone(),
            before: TokenCounts::default(),
            groups: Groups { of: group_of.clone(), count: conditions.groups.len() },
            seen: Arc::clone(&seen),
            shown,
        };
        let settings = Settings {
            probe: ProbeConfig {
                source: conditions.source,
                filter: FlowFilter {
                    netns: Some(lab.server_netns().to_owned()),
                    ..FlowFilter::default()
                },
                ..ProbeConfig::default()
            },
            interval: conditions.interval,
            look_every: carries.then_some(TICK),
            window: Duration::from_secs(60),
        };
        let sampler = Sampler::start(settings, stop.clone(), watcher, &Confinement::none())?;
        let found = sampler.found().source;
        let lab = Arc::new(lab);
        Ok(Self { policy, via, lab, engine, _front: front, sampler, found, group_of, seen })
    }

    /// Which source measures.
    pub(crate) fn source(&self) -> Source {
        self.found
    }

    /// Starts the schedule and the clients.
    pub(crate) fn begin(
        self,
        conditions: &Conditions,
        runtime: &Handle,
    ) -> anyhow::Result<RunningArm> {
        let load = Load {
            target: SocketAddr::new(self.lab.server_ip(), PORT),
            streams: conditions.streams,
            ramp: RAMP,
            duration: conditions.duration,
            model: engine().name,
            prompt: "What does a packet see on its way?".to_owned(),
            output_tokens: ANSWER_TOKENS,
            reader: reader()?,
            leavers: LEAVERS,
            patience: PATIENCE,
            seed: conditions.reader_seed,
        };
        let playback = self.lab.play(&conditions.schedules)?;
        let began = playback.started();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).began = Some(began);
        let lab = Arc::clone(&self.lab);
        let socket = move |number: usize| {
            let links = lab.links();
            let inside = links[number % links.len()].on_client(TcpSocket::new_v4);
            inside.map_err(io::Error::other)?
        };
        let (stop, stopped) = watch::channel(false);
        let clients = runtime.spawn(async move {
            Ok(client::run_until(load, began.into(), stopped, socket).await?)
        });
        Ok(RunningArm { arm: self, playback, stop, clients })
    }
}

impl RunningArm {
    /// The newest interval that ended no later than at `seconds`, for whoever watches.
    pub(crate) fn newest(&self, seconds: f64) -> Option<Tick> {
        let seen = self.arm.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ticks.iter().rev().find(|tick| tick.seconds <= seconds).cloned()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.arm.policy.name()
    }

    /// Why its links carry nothing any more, if they do not.
    pub(crate) fn link_failure(&self) -> Option<LabError> {
        self.arm.lab.failed()
    }

    /// Waits for the clients, who stop when the schedule is over.
    pub(crate) fn end(self, runtime: &Handle) -> anyhow::Result<EndedArm> {
        let outcome = runtime.block_on(self.clients).context("the clients")??;
        Ok(EndedArm { arm: self.arm, outcome, _playback: self.playback })
    }

    /// Ends the clients now, with what they have seen until then.
    pub(crate) fn cut(self, runtime: &Handle) -> anyhow::Result<EndedArm> {
        self.stop.send_replace(true);
        self.end(runtime)
    }
}

impl EndedArm {
    /// Where the tokens are now. To be asked of all arms before any of them is closed.
    pub(crate) fn count(&self) -> TokenCounts {
        let Arm { via, engine, .. } = &self.arm;
        answers::tokens(&self.outcome.streams, engine, *via)
    }

    /// Closes the arm, of whose tokens stock has been taken after it had run for `ran`.
    pub(crate) fn close(
        self,
        tokens: TokenCounts,
        ran: Duration,
        conditions: &Conditions,
        phases: &[PhaseSpan],
    ) -> anyhow::Result<(ArmRecord, ArmData)> {
        self.arm.sampler.join()?;
        let mut seen =
            std::mem::take(&mut *self.arm.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.trim(ran);
        let Seen { mut ticks, rows, .. } = seen;
        let Outcome { streams, .. } = self.outcome;
        deliver(&mut ticks, &streams);
        let records = answers::records(&streams, &self.arm.engine, reader()?, self.arm.via);
        let groups = conditions.groups.len();
        let record = ArmRecord {
            name: self.arm.policy.name().to_owned(),
            paced: self.arm.policy != Policy::None,
            rate: Rate::of(&ticks, phases, conditions.range.max().get()),
            groups: answers::groups(groups, &streams, &records, &self.arm.group_of, &ticks),
            failure: answers::failure(&streams),
            answers: records.iter().map(answers::answer).collect(),
            summary: Summary::of(&records, tokens, ran),
            ticks,
        };
        Ok((record, ArmData { rows, streams }))
    }
}

impl Seen {
    /// Leaves out the intervals that ended after the clients did: they would show less than there was.
    fn trim(&mut self, ran: Duration) {
        let within = self.ticks.partition_point(|tick| tick.seconds <= ran.as_secs_f64());
        self.ticks.truncate(within);
        self.rows.truncate(within);
    }
}

/// Paces the engine's streams by the newest hints, for as long as there are any.
async fn pace(
    policy: Policy,
    engine: Engine,
    mut newest: watch::Receiver<Arc<Board>>,
    range: TpsRange,
) {
    let most = Pace { rate: Some(range.max()), hold: false };
    engine.pace(move |_| most);
    while policy != Policy::None && newest.changed().await.is_ok() {
        let board = Arc::clone(&newest.borrow_and_update());
        engine.pace(move |peer| {
            let hint = peer.and_then(|peer| match policy {
                Policy::None => None,
                Policy::Classic => board.peers.get(&peer.ip()),
                Policy::Carry => board.stream(peer).map(|stream| &stream.hint),
            });
            hint.map_or(most, Pace::from)
        });
    }
}

/// What becomes of each look at an arm's flows.
struct Watching {
    pacers: Pacers,
    boards: watch::Sender<Arc<Board>>,
    engine: Engine,
    /// The engine's counts at the last interval.
    before: TokenCounts,
    groups: Groups,
    seen: Arc<Mutex<Seen>>,
    shown: Option<Shown>,
}

impl Watcher for Watching {
    fn take(&mut self, flows: &[FlowSnapshot], now: Duration, interval: Option<&Interval<'_>>) {
        let board = Arc::new(self.pacers.take(flows, now, interval));
        self.boards.send_replace(Arc::clone(&board));
        let Some(interval) = interval else { return };
        let now = self.engine.tokens();
        let before = std::mem::replace(&mut self.before, now);
        let made = Made { before, now, seconds: interval.elapsed.as_secs_f64().max(1e-3) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(began) = seen.began else { return };
        let tick = tick(began.elapsed(), &board, &self.groups, interval, made);
        if let Some(shown) = &self.shown {
            shown.take(&tick, &board, interval);
        }
        seen.ticks.push(tick);
        seen.rows.push(interval.tick.host);
    }
}

/// Groups of clients, by the clients' addresses.
struct Groups {
    of: HashMap<IpAddr, usize>,
    count: usize,
}

/// What became of tokens in an interval.
struct Made {
    before: TokenCounts,
    now: TokenCounts,
    seconds: f64,
}

impl Made {
    fn per_second(&self, of: fn(&TokenCounts) -> u64) -> f64 {
        of(&self.now).saturating_sub(of(&self.before)) as f64 / self.seconds
    }
}

fn tick(at: Duration, board: &Board, groups: &Groups, interval: &Interval<'_>, made: Made) -> Tick {
    let (hint, sample) = (&board.host, &interval.tick.host.sample);
    // Streams are paced by their own client's hint, and clients' links differ.
    let mean = |group: Option<usize>, of: fn(&Hint) -> Tps| {
        let peers = board.peers.iter();
        let own = peers.filter(|(ip, _)| group.is_none() || groups.of.get(ip) == group.as_ref());
        let rates: Vec<f64> = own.map(|(_, hint)| of(hint).get()).collect();
        (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
    };
    let of_all = |of: fn(&Hint) -> Tps| mean(None, of).unwrap_or(of(hint).get());
    let current = |hint: &Hint| hint.current_tps;
    Tick {
        seconds: at.as_secs_f64(),
        p95_rtt_ms: sample.rtt.map(|rtt| rtt.p95.as_secs_f64() * 1e3),
        retrans_segs: sample.retrans_segs,
        health: hint.health,
        anomaly: hint.anomaly,
        anomaly_score: hint.anomaly_score,
        state: hint.state.as_str(),
        current_tps: of_all(current),
        target_tps: of_all(|hint| hint.target_tps),
        group_tps: (0..groups.count).map(|group| mean(Some(group), current)).collect(),
        hold: hint.hold,
        generated_tps: made.per_second(|tokens| tokens.generated),
        delivered_tps: 0.0,
    }
}

/// Fills in what clients received in each interval.
fn deliver(ticks: &mut [Tick], streams: &[ClientStream]) {
    let mut times: Vec<Duration> =
        streams.iter().flat_map(|stream| stream.deliveries.iter().copied()).collect();
    times.sort_unstable();
    let (mut before, mut start) = (0, 0.0);
    for tick in ticks {
        let end = times.partition_point(|time| time.as_secs_f64() <= tick.seconds);
        tick.delivered_tps = (end - before) as f64 / (tick.seconds - start).max(1e-3);
        (before, start) = (end, tick.seconds);
    }
}

#[cfg(test)]
mod tests {
    use netdiag_telemetry::csv;

    use super::super::record::tests::tick;
    use super::*;

    #[test]
    fn rows_end_where_ticks_do() {
        let lines = "1,2,3,4\n".repeat(6);
        let text = format!("timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n{lines}");
        let rows = csv::read_rows(text.as_bytes()).expect("rows");
        let mut seen = Seen {
            began: None,
            ticks: (1..=6).map(|number| tick(f64::from(number) * 0.5, 80.0)).collect(),
            rows,
        };
        seen.trim(Duration::from_secs(2));
        assert_eq!((seen.ticks.len(), seen.rows.len()), (4, 4));
    }
}
