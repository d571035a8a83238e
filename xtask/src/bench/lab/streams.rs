//! What links, engine and clients cost while many streams run: they must leave the cores to what is measured on them.
//!
//! All that an experiment has but its probe, each on a thread of its own so that its share of a core can be told.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use netdiag_lab::client::{self, ClientStream, Load};
use netdiag_lab::engine::{Engine, Model, Settings};
use netdiag_lab::metrics::Reader;
use netdiag_lab::{Duplex, Lab, LinkSpec, ServerSide};
use netdiag_telemetry::Tps;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{Report, ms};

const STREAMS: NonZeroUsize = NonZeroUsize::new(50).expect("not zero");
/// Clients' links that they are spread over.
const LINKS: usize = 5;
/// Between two tokens of a stream: 50 a second, as of a fast model.
const STEP: Duration = Duration::from_millis(20);
/// Short, so that all streams run for nearly all of the time.
const RAMP: Duration = Duration::from_secs(1);
/// That of an experiment, with `--long` and without: this is a promise about a whole one.
const TIME: Duration = Duration::from_secs(60);

/// None of the three may use more than half of one of the two cores that an experiment has.
const CORE_PERCENT: f64 = 50.0;
/// Of the tokens that could be there: the rest is what questions take on their way.
const TOKENS_PERCENT: f64 = 95.0;

pub(super) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let link = LinkSpec::delayed(ms(20))?.with_rate(50_000_000)?;
    let lab = Lab::start_links(vec![Duplex::from(link); LINKS], ServerSide::Namespace, 1)?;
    let lab = Arc::new(lab);
    let (stop, stopped) = oneshot::channel();
    let (engine, target) = engine(&lab, stopped)?;
    let (begin, before) = (Instant::now(), emulator_cpu()?);
    let (streams, clients) = joined(clients(Arc::clone(&lab), target)?)?;
    let (took, emulator) = (begin.elapsed(), emulator_cpu()? - before);
    // It waits for this, and takes its dropping for the same.
    let _ = stop.send(());
    let ((), engine) = joined(engine)?;
    if let Some(error) = lab.failed() {
        return Err(error.into());
    }
    let failure = streams.iter().find_map(|stream| stream.failure.as_deref());
    ensure!(failure.is_none(), "a stream failed: {}", failure.unwrap_or_default());

    let counted = streams.iter().flat_map(|stream| &stream.deliveries);
    let tokens = counted.filter(|at| **at > RAMP).count() as f64 / (TIME - RAMP).as_secs_f64();
    let asked = STREAMS.get() as f64 / STEP.as_secs_f64();
    report.row(
        format!("tokens of {STREAMS} streams, {} s", TIME.as_secs()),
        format!("{asked:.0}"),
        format!("{tokens:.0}"),
        "/s",
    );
    let mut gaps: Vec<Duration> = streams.iter().flat_map(gaps).collect();
    gaps.sort_unstable();
    ensure!(!gaps.is_empty(), "no stream had two tokens");
    let gap = |share: usize| gaps[(gaps.len() - 1) * share / 1000].as_secs_f64() * 1000.0;
    let row = format!("{:.2} (99 % below {:.2})", gap(500), gap(990));
    report.row("between two of them, median", STEP.as_millis().to_string(), row, "ms");
    let share = |cpu: Duration| cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    let shares = [("emulator", emulator), ("engine", engine), ("clients", clients)];
    for (what, cpu) in shares {
        report.row(what, String::new(), format!("{:.1}", share(cpu)), "% of a core");
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let used: f64 = shares.iter().map(|(_, cpu)| share(*cpu)).sum();
    let headroom = format!("{:.1}", 100.0 * cores as f64 - used);
    report.row(format!("headroom of {cores} cores"), String::new(), headroom, "% of a core");
    report.at_least("stream_tokens_percent", tokens / asked * 100.0, TOKENS_PERCENT, "%");
    for (what, cpu) in shares {
        report.at_most(&format!("{what}_core_percent"), share(cpu), CORE_PERCENT, "%");
    }
    Ok(())
}

/// A thread that returns something, and what it has used of a core.
type Measured<T> = JoinHandle<anyhow::Result<(T, Duration)>>;

/// The engine at the server's end, until `stopped`.
fn engine(lab: &Lab, stopped: oneshot::Receiver<()>) -> anyhow::Result<(Measured<()>, SocketAddr)> {
    let listener = lab.on_server(|| TcpListener::bind(SocketAddr::new(lab.server_ip(), 0)))??;
    listener.set_nonblocking(true)?;
    let target = listener.local_addr()?;
    // Everybody has a seat, and a token in each step.
    let model = Model {
        seats: STREAMS,
        step: STEP,
        step_per_seat: Duration::ZERO,
        step_per_prompt_token: Duration::ZERO,
        ..Model::default()
    };
    let engine = Engine::try_new(Settings { model, ..Settings::default() })?;
    let thread = measured("engine", move |runtime| {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let shutdown = async { drop(stopped.await) };
            engine.serve(listener, shutdown).await;
            Ok(())
        })
    });
    Ok((thread?, target))
}

/// The clients, for their time.
fn clients(lab: Arc<Lab>, target: SocketAddr) -> anyhow::Result<Measured<Vec<ClientStream>>> {
    let load = Load {
        target,
        streams: STREAMS.get(),
        ramp: RAMP,
        duration: TIME,
        model: Settings::default().name,
        prompt: "What does a packet see on its way?".to_owned(),
        // As in an experiment.
        output_tokens: 200..=600,
        reader: Reader { rate: Tps::try_new(10.0)?, expected_ttft: Duration::from_secs(1) },
        leavers: 0.0,
        patience: Duration::ZERO,
        seed: 1,
    };
    let socket = move |number: usize| {
        let link = &lab.links()[number % LINKS];
        link.on_client(TcpSocket::new_v4).map_err(io::Error::other)?
    };
    measured("clients", move |runtime| {
        let start = Instant::now();
        Ok(runtime.block_on(client::run(load, start.into(), socket))?.streams)
    })
}

fn measured<T: Send + 'static>(
    name: &str,
    task: impl FnOnce(&Runtime) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Measured<T>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let done = task(&runtime)?;
        Ok((done, cpu(&fs::read_to_string("/proc/thread-self/schedstat")?)?))
    });
    Ok(thread?)
}

fn joined<T>(thread: Measured<T>) -> anyhow::Result<(T, Duration)> {
    thread.join().map_err(|_| anyhow!("a thread of the streams panicked"))?
}

fn gaps(stream: &ClientStream) -> impl Iterator<Item = Duration> {
    stream.deliveries.windows(2).map(|pair| pair[1] - pair[0])
}

/// What the emulator's thread has used.
fn emulator_cpu() -> anyhow::Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() == "netdiag-lab" {
            return cpu(&fs::read_to_string(task.join("schedstat"))?);
        }
    }
    anyhow::bail!("the emulator has no thread")
}

/// The first figure of `schedstat`: nanoseconds on a core.
fn cpu(schedstat: &str) -> anyhow::Result<Duration> {
    let first = schedstat.split_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(first.parse()?))
}
