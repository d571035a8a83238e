//! One arm: links, an engine, clients, and the probe that watches them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_hints::Board;
use netdiag_lab::client::{self, ClientStream, Load, Outcome};
use netdiag_lab::engine::{Engine, Model, Pace, Settings as EngineSettings};
use netdiag_lab::metrics::{Reader, StreamRecord, Summary, TokenCounts};
use netdiag_lab::{Lab, Playback, Schedule, ServerSide};
use netdiag_pacer::{Hint, TpsRange};
use netdiag_probe::{FlowFilter, ProbeConfig, SourceChoice};
use netdiag_telemetry::{Row, Source, Tps};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::live::Shown;
use super::record::{ArmRecord, PhaseSpan, Rate, Tick};
use crate::models::Models;
use crate::pacing::Pacers;
use crate::sampler::{Interval, Sampler, Settings};
use crate::stop::Stop;

/// Where the engine listens, in a namespace that is its own.
const PORT: u16 = 8000;

/// The engine can do 80 tokens/s for each of eight streams, so that what limits a stream is its link or its pace. Invented,
/// of the order of a small model on one data-centre GPU.
const STEP: Duration = Duration::from_micros(11_000);
const STEP_PER_SEAT: Duration = Duration::from_micros(150);

/// Lengths of answers, each as likely as the others: a few paragraphs, so that a minute has several per stream.
const ANSWER_TOKENS: RangeInclusive<u32> = 200..=600;

/// The streams of an arm begin within this time: engines do not get all their questions at once.
const RAMP: Duration = Duration::from_secs(1);

/// One reader in five loses patience, after a silence of this length.
const LEAVERS: f64 = 0.2;
const PATIENCE: Duration = Duration::from_secs(2);

/// A reader, for the metrics: 10 tokens/s is fast for a person (some 450 words a minute), and one second is what passes for
/// immediate.
const READING_TPS: f64 = 10.0;
const EXPECTED_TTFT: Duration = Duration::from_secs(1);

/// How an arm's engine is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// As fast as it can, up to the highest rate.
    None,
    /// By the hints of the `classic` policy.
    Classic,
}

impl Policy {
    pub(crate) const ALL: [Self; 2] = [Self::None, Self::Classic];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Classic => "classic",
        }
    }
}

/// What is the same for all arms.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    /// One for each client.
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) seed: u64,
    pub(crate) streams: usize,
    pub(crate) range: TpsRange,
    pub(crate) interval: Duration,
    pub(crate) source: SourceChoice,
    pub(crate) duration: Duration,
}

/// An arm that is set up, and runs once it is begun.
pub(crate) struct Arm {
    policy: Policy,
    lab: Arc<Lab>,
    engine: Engine,
    sampler: Sampler,
    found: Source,
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
    _playback: Playback,
    clients: JoinHandle<anyhow::Result<Outcome>>,
}

/// An arm whose clients have stopped, with the connections that were open then still open.
pub(crate) struct EndedArm {
    arm: Arm,
    outcome: Outcome,
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
        let mut pacers = Pacers::new(range, Models::new(None));
        let model = Model { step: STEP, step_per_seat: STEP_PER_SEAT, ..Model::default() };
        let _inside = runtime.enter();
        let engine = Engine::try_new(EngineSettings { model, ..EngineSettings::default() })?;
        let (boards, newest) = watch::channel(Arc::new(pacers.empty_board()));
        runtime.spawn(pace(policy, engine.clone(), newest, range));
        let address = SocketAddr::new(lab.server_ip(), PORT);
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
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (noted, counted) = (Arc::clone(&seen), engine.clone());
        let mut generated_before = 0;
        let on_tick = move |interval: &Interval<'_>| {
            let board = pacers.observe(interval.tick, interval.elapsed);
            let generated = counted.tokens().generated;
            let made =
                (generated - generated_before) as f64 / interval.elapsed.as_secs_f64().max(1e-3);
            generated_before = generated;
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(began) = noted.began {
                let tick = tick(began.elapsed(), &board, interval, made);
                if let Some(shown) = &shown {
                    shown.take(&tick, &board, interval);
                }
                noted.ticks.push(tick);
                noted.rows.push(interval.tick.host);
            }
            boards.send_replace(Arc::new(board));
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
            window: Duration::from_secs(60),
        };
        let sampler = Sampler::start(settings, stop.clone(), on_tick)?;
        let found = sampler.found().source;
        Ok(Self { policy, lab: Arc::new(lab), engine, sampler, found, seen })
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
            model: EngineSettings::default().name,
            prompt: "What does a packet see on its way?".to_owned(),
            output_tokens: ANSWER_TOKENS,
            reader: reader()?,
            leavers: LEAVERS,
            patience: PATIENCE,
            seed: conditions.seed,
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
        let clients =
            runtime.spawn(async move { Ok(client::run(load, began.into(), socket).await?) });
        Ok(RunningArm { arm: self, _playback: playback, clients })
    }
}

impl RunningArm {
    /// The newest interval, for whoever watches.
    pub(crate) fn newest(&self) -> Option<Tick> {
        self.arm.seen.lock().unwrap_or_else(PoisonError::into_inner).ticks.last().cloned()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.arm.policy.name()
    }

    /// Waits for the clients, who stop when the schedule is over.
    pub(crate) fn end(self, runtime: &Handle) -> anyhow::Result<EndedArm> {
        let outcome = runtime.block_on(self.clients).context("the clients")??;
        Ok(EndedArm { arm: self.arm, outcome })
    }
}

impl EndedArm {
    /// Where the tokens are now. To be asked of all arms before any of them is closed.
    pub(crate) fn count(&self) -> TokenCounts {
        self.arm.engine.tokens()
    }

    /// Closes the arm, of whose tokens stock has been taken.
    pub(crate) fn close(
        self,
        tokens: TokenCounts,
        conditions: &Conditions,
        phases: &[PhaseSpan],
    ) -> anyhow::Result<(ArmRecord, ArmData)> {
        let Outcome { streams, .. } = self.outcome;
        self.arm.sampler.join()?;
        let seen =
            std::mem::take(&mut *self.arm.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ticks = seen.ticks;
        // One that ended after the clients did would show less than there was.
        ticks.retain(|tick| tick.seconds <= conditions.duration.as_secs_f64());
        deliver(&mut ticks, &streams);
        let reader = reader()?;
        let counts = |stream: &ClientStream| {
            let id = stream.request_id.as_deref()?;
            self.arm.engine.counts(id)
        };
        let records: Vec<StreamRecord> = streams
            .iter()
            .map(|stream| stream.record(reader, counts(stream).unwrap_or_default()))
            .collect();
        let record = ArmRecord {
            name: self.arm.policy.name().to_owned(),
            paced: self.arm.policy != Policy::None,
            rate: Rate::of(&ticks, phases, conditions.range.max().get()),
            summary: Summary::of(&records, tokens, conditions.duration),
            ticks,
        };
        Ok((record, ArmData { rows: seen.rows, streams }))
    }
}

fn reader() -> anyhow::Result<Reader> {
    Ok(Reader { rate: Tps::try_new(READING_TPS)?, expected_ttft: EXPECTED_TTFT })
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
    while policy == Policy::Classic && newest.changed().await.is_ok() {
        let board = Arc::clone(&newest.borrow_and_update());
        engine.pace(move |peer| {
            let hint = peer.and_then(|peer| board.peers.get(&peer.ip()));
            hint.map_or(most, Pace::from)
        });
    }
}

fn tick(at: Duration, board: &Board, interval: &Interval<'_>, generated_tps: f64) -> Tick {
    let (hint, sample) = (&board.host, &interval.tick.host.sample);
    // Streams are paced by their own client's hint, and clients' links differ.
    let mean = |of: fn(&Hint) -> Tps| {
        let rates: Vec<f64> = board.peers.values().map(|hint| of(hint).get()).collect();
        match rates.is_empty() {
            true => of(hint).get(),
            false => rates.iter().sum::<f64>() / rates.len() as f64,
        }
    };
    Tick {
        seconds: at.as_secs_f64(),
        p95_rtt_ms: sample.rtt.map(|rtt| rtt.p95.as_secs_f64() * 1e3),
        retrans_segs: sample.retrans_segs,
        health: hint.health,
        anomaly: hint.anomaly,
        anomaly_score: hint.anomaly_score,
        state: hint.state.as_str(),
        current_tps: mean(|hint| hint.current_tps),
        target_tps: mean(|hint| hint.target_tps),
        hold: hint.hold,
        generated_tps,
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
