//! One arm: links, an engine, clients, and the probe that watches them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_hints::Board;
use netdiag_lab::client::{Answer, End, Question, Session};
use netdiag_lab::engine::{Allowance, Engine, EngineSpec, Pace};
use netdiag_lab::metrics::{self, Reader};
use netdiag_lab::{Lab, Playback, Schedule, ServerSide};
use netdiag_pacer::TpsRange;
use netdiag_probe::{FlowFilter, ProbeConfig, SourceChoice};
use netdiag_telemetry::{Row, Source};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::record::{ArmRecord, Delivery, PhaseSpan, Rate, Tick, TokenCounts};
use crate::models::Models;
use crate::pacing::Pacers;
use crate::sampler::{Interval, Sampler, Settings};
use crate::stop::Stop;

/// Where the engine listens, in a namespace that is its own.
const PORT: u16 = 8000;

/// Length of an answer: a few paragraphs, so that a minute has several per stream.
const ANSWER_TOKENS: u32 = 400;

/// Between an answer and the next question.
const THINKING: Duration = Duration::from_secs(1);

/// A reader who loses patience does so after a silence of this length.
const PATIENCE: Duration = Duration::from_secs(4);

/// One stream in this many has such a reader.
const IMPATIENT: usize = 5;

/// Time after the end for what is under way in the program itself.
const GRACE: Duration = Duration::from_millis(300);

/// A connection that takes longer is tried again.
const CONNECT: Duration = Duration::from_secs(3);

/// A reader, for the metrics: 10 tokens/s is fast for a person (some 450 words a minute), and one second is what passes for
/// immediate.
const READING_TPS: f64 = 10.0;
const EXPECTED_TTFT: Duration = Duration::from_secs(1);

/// Share of the highest rate that counts as recovered.
const RECOVERED: f64 = 0.9;

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
    pub(crate) seconds: f64,
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
pub(crate) struct Seen {
    began: Option<Instant>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) rows: Vec<Row>,
}

/// An arm whose links have begun to change.
pub(crate) struct RunningArm {
    arm: Arm,
    _playback: Playback,
    streams: Vec<JoinHandle<Vec<Answer>>>,
}

impl Arm {
    /// Sets up links, engine and probe.
    pub(crate) fn prepare(
        policy: Policy,
        conditions: &Conditions,
        runtime: &Handle,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let links = conditions.schedules.iter().map(|schedule| schedule.first().clone());
        let lab = Lab::start_links(links, ServerSide::Namespace, conditions.seed)?;
        let range = conditions.range;
        let mut pacers = Pacers::new(range, Models::new(None));
        let (boards, newest) = watch::channel(Arc::new(pacers.empty_board()));
        let engine = {
            let _inside = runtime.enter();
            Engine::start(EngineSpec::default(), pace(policy, newest, range))
        };
        let address = SocketAddr::new(lab.server_ip(), PORT);
        let listener =
            lab.on_server(|| TcpListener::bind(address))?.context("the engine's port")?;
        listener.set_nonblocking(true).context("the engine's port")?;
        let serving = engine.clone();
        runtime.spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    if let Err(error) = serving.serve(listener).await {
                        tracing::error!(%error, "the engine accepts no more connections");
                    }
                }
                Err(error) => tracing::error!(%error, "the engine cannot listen"),
            }
        });
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (noted, counted) = (Arc::clone(&seen), engine.clone());
        let mut generated_before = 0;
        let on_tick = move |interval: &Interval<'_>| {
            let board = pacers.observe(interval.tick, interval.elapsed);
            let generated = counted.totals().generated_tokens;
            let made =
                (generated - generated_before) as f64 / interval.elapsed.as_secs_f64().max(1e-3);
            generated_before = generated;
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(began) = noted.began {
                noted.ticks.push(tick(began.elapsed(), &board, interval, made));
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
        let playback = self.lab.play(&conditions.schedules)?;
        let began = playback.started();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).began = Some(began);
        let until = began + Duration::from_secs_f64(conditions.seconds) + GRACE;
        let clients = conditions.schedules.len();
        let streams = (0..conditions.streams).map(|number| {
            let patience = (number % IMPATIENT == IMPATIENT - 1).then_some(PATIENCE);
            let stream = stream(Arc::clone(&self.lab), number % clients, began, until, patience);
            runtime.spawn(stream)
        });
        let streams = streams.collect();
        Ok(RunningArm { arm: self, _playback: playback, streams })
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

    /// Where the tokens are now. To be asked of all arms at the end of the schedule, before any of them is ended.
    pub(crate) fn count(&self) -> anyhow::Result<TokenCounts> {
        let counts = self.arm.engine.counts();
        Ok(TokenCounts::try_new(counts.generated, counts.acked, counts.in_flight, counts.wasted)?)
    }

    /// Ends the arm, of whose tokens stock has been taken.
    pub(crate) fn finish(
        self,
        tokens: TokenCounts,
        conditions: &Conditions,
        phases: &[PhaseSpan],
        runtime: &Handle,
    ) -> anyhow::Result<(ArmRecord, Vec<Row>, Vec<Answer>)> {
        let answers: Vec<Answer> = runtime.block_on(async {
            let mut answers = Vec::new();
            for stream in self.streams {
                answers.extend(stream.await.unwrap_or_default());
            }
            answers
        });
        self.arm.sampler.join()?;
        let seen =
            std::mem::take(&mut *self.arm.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ticks = seen.ticks;
        deliver(&mut ticks, &answers);
        let rate = Rate::of(&ticks, phases, RECOVERED * conditions.range.max().get());
        let delivery = delivery(&answers, conditions.seconds)?;
        let record = ArmRecord {
            name: self.arm.policy.name().to_owned(),
            paced: self.arm.policy != Policy::None,
            tokens,
            delivery,
            rate,
            ticks,
        };
        Ok((record, seen.rows, answers))
    }
}

/// How fast an arm's streams may go.
fn pace(policy: Policy, newest: watch::Receiver<Arc<Board>>, range: TpsRange) -> Pace {
    let most = Allowance { rate: Some(range.max()), hold: false };
    match policy {
        Policy::None => Arc::new(move |_| most),
        Policy::Classic => Arc::new(move |peer| {
            let board = newest.borrow();
            board
                .peers
                .get(&peer.ip())
                .map_or(most, |hint| Allowance { rate: Some(hint.current_tps), hold: hint.hold })
        }),
    }
}

/// Asks, reads, thinks, and asks again, over one connection for as long as it holds.
async fn stream(
    lab: Arc<Lab>,
    client: usize,
    origin: Instant,
    until: Instant,
    patience: Option<Duration>,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut session = None;
    while Instant::now() < until {
        let present = match session.take() {
            Some(session) => session,
            None => match connect(Arc::clone(&lab), client, origin).await {
                Ok(session) => session,
                Err(error) => {
                    tracing::debug!("a client will try again: {error:#}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        let prompt = "What does a packet see on its way?";
        let question = Question {
            model: "netdiag-demo",
            prompt,
            tokens: ANSWER_TOKENS,
            patience,
            until: Some(until),
        };
        let (answer, again) = present.ask(question).await;
        session = again;
        answers.push(answer);
        tokio::time::sleep(THINKING.min(until.saturating_duration_since(Instant::now()))).await;
    }
    answers
}

async fn connect(lab: Arc<Lab>, client: usize, origin: Instant) -> anyhow::Result<Session> {
    let address = SocketAddr::new(lab.server_ip(), PORT);
    // The namespace is the thread's, so the socket is made on one that may wait.
    let socket = tokio::task::spawn_blocking(move || {
        let link = lab.links().get(client).context("a link")?;
        Ok::<_, anyhow::Error>(link.on_client(|| TcpStream::connect_timeout(&address, CONNECT))??)
    });
    let socket = socket.await??;
    socket.set_nonblocking(true)?;
    Ok(Session::start(tokio::net::TcpStream::from_std(socket)?, origin).await?)
}

fn tick(at: Duration, board: &Board, interval: &Interval<'_>, generated_tps: f64) -> Tick {
    let (hint, sample) = (&board.host, &interval.tick.host.sample);
    Tick {
        seconds: at.as_secs_f64(),
        p95_rtt_ms: sample.rtt.map(|rtt| rtt.p95.as_secs_f64() * 1e3),
        retrans_segs: sample.retrans_segs,
        health: hint.health,
        anomaly: hint.anomaly,
        anomaly_score: hint.anomaly_score,
        state: hint.state.as_str(),
        current_tps: hint.current_tps.get(),
        target_tps: hint.target_tps.get(),
        hold: hint.hold,
        generated_tps,
        delivered_tps: 0.0,
    }
}

/// Fills in what clients received in each interval.
fn deliver(ticks: &mut [Tick], answers: &[Answer]) {
    let mut times: Vec<f64> = answers
        .iter()
        .flat_map(|answer| &answer.delivered.tokens)
        .map(Duration::as_secs_f64)
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    let (mut before, mut start) = (0, 0.0);
    for tick in ticks {
        let end = times.partition_point(|time| *time <= tick.seconds);
        tick.delivered_tps = (end - before) as f64 / (tick.seconds - start).max(1e-3);
        (before, start) = (end, tick.seconds);
    }
}

fn delivery(answers: &[Answer], seconds: f64) -> anyhow::Result<Delivery> {
    let reader = Reader::try_new(EXPECTED_TTFT, READING_TPS)?;
    let of = |figure: &dyn Fn(&Answer) -> Option<f64>| -> Vec<f64> {
        answers.iter().filter_map(figure).collect()
    };
    let ttft = of(&|answer| Some(answer.delivered.ttft()?.as_secs_f64()));
    let gaps: Vec<f64> =
        answers.iter().flat_map(|answer| answer.delivered.gaps().collect::<Vec<_>>()).collect();
    let output = usize::try_from(ANSWER_TOKENS)?;
    let effective: f64 =
        answers.iter().map(|answer| answer.delivered.effective_tokens(reader, output)).sum();
    let ended = |end: &End| answers.iter().filter(|answer| answer.end == *end).count();
    Ok(Delivery {
        requests: answers.len(),
        finished: ended(&End::Finished),
        left_early: ended(&End::Left),
        qoe: metrics::mean(answers.iter().map(|answer| answer.delivered.qoe(reader))),
        effective_tps: Some(effective / seconds),
        stall_ratio: metrics::mean(
            answers.iter().map(|answer| answer.delivered.stall_ratio(reader)),
        ),
        ttft_p50_seconds: metrics::quantile(ttft.iter().copied(), 0.5),
        ttft_p95_seconds: metrics::quantile(ttft, 0.95),
        tpot_p50_seconds: metrics::quantile(gaps.iter().copied(), 0.5),
        tpot_p99_seconds: metrics::quantile(gaps, 0.99),
    })
}
