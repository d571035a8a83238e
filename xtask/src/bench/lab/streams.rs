//! What the emulator costs while many streams run: it must leave the cores to what is measured on them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use netdiag_lab::{Duplex, Lab, LinkSpec, ServerSide};

use super::{Report, ms};

const STREAMS: usize = 50;
/// Clients they are spread over.
const LINKS: usize = 5;
/// Writes of each in a second, one for each token of a fast model.
const WRITES: usize = 50;
/// Bytes of a write: one streamed token with its JSON around it.
const MESSAGE: usize = 200;
const TIME: Duration = Duration::from_secs(15);

/// One core of the two that an experiment has may be half used by links.
const CORE_PERCENT: f64 = 50.0;

pub(super) fn measure(report: &mut Report, times: u32) -> anyhow::Result<()> {
    let delay = ms(20);
    let link = LinkSpec::delayed(delay)?.with_rate(50_000_000)?;
    let lab = Lab::start_links(vec![Duplex::from(link); LINKS], ServerSide::Namespace, 1)?;
    let listener = lab.on_server(|| TcpListener::bind(SocketAddr::new(lab.server_ip(), 0)))??;
    let target = listener.local_addr()?;
    let start = Instant::now();
    let (mut servers, mut readers) = (Vec::new(), Vec::new());
    for stream in 0..STREAMS {
        let client = lab.links()[stream % LINKS].on_client(|| TcpStream::connect(target))??;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        servers.push(server);
        readers.push(std::thread::spawn(move || read(client, start)));
    }
    let (begin, before) = (Instant::now(), (emulator_cpu()?, process_cpu()?));
    let messages = WRITES * STREAMS * TIME.as_secs() as usize * times as usize;
    let gap = Duration::from_secs(1) / (WRITES * STREAMS) as u32;
    for message in 0..messages {
        std::thread::sleep((gap * message as u32).saturating_sub(begin.elapsed()));
        let mut bytes = [0; MESSAGE];
        bytes[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_ne_bytes());
        servers[message % STREAMS].write_all(&bytes)?;
    }
    let took = begin.elapsed();
    let (emulator, process) = (emulator_cpu()? - before.0, process_cpu()? - before.1);
    drop(servers);
    let mut delays = Vec::with_capacity(messages);
    for reader in readers {
        delays.extend(reader.join().map_err(|_| anyhow!("a reading thread panicked"))?);
    }
    anyhow::ensure!(delays.len() == messages, "{} of {messages} messages came", delays.len());
    delays.sort_unstable();
    let late = |share: usize| {
        let delay = delays[(delays.len() - 1) * share / 1000];
        format!("{:.2}", delay.as_secs_f64() * 1000.0)
    };
    let wanted = (WRITES * STREAMS).to_string();
    let rate = messages as f64 / took.as_secs_f64();
    report.row(format!("writes of {STREAMS} streams"), wanted, format!("{rate:.0}"), "/s");
    let asked = delay.as_millis().to_string();
    report.row("their delay, median", asked.clone(), late(500), "ms");
    report.row("their delay, 99.9 % below", asked, late(999), "ms");
    let share = |cpu: Duration| cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    report.row("emulator", String::new(), format!("{:.1}", share(emulator)), "% of a core");
    let rest = share(process.saturating_sub(emulator));
    report.row("both ends of the streams", String::new(), format!("{rest:.1}"), "% of a core");
    report.row("cores", String::new(), cores.to_string(), "");
    report.at_most("emulator_core_percent", share(emulator), CORE_PERCENT, "%");
    Ok(())
}

/// How long each message was under way.
fn read(mut client: TcpStream, start: Instant) -> Vec<Duration> {
    let mut bytes = [0; MESSAGE];
    let mut delays = Vec::new();
    while client.read_exact(&mut bytes).is_ok() {
        let [stamp, ..] = bytes.as_chunks::<8>().0 else { break };
        let sent = Duration::from_nanos(u64::from_ne_bytes(*stamp));
        delays.push(start.elapsed().saturating_sub(sent));
    }
    delays
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

/// What all threads of this process have used, but for those that have ended.
fn process_cpu() -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        // One that ends now is left out.
        if let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) {
            sum += cpu(&stat)?;
        }
    }
    Ok(sum)
}

/// The first figure of `schedstat`: nanoseconds on a core.
fn cpu(schedstat: &str) -> anyhow::Result<Duration> {
    let first = schedstat.split_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(first.parse()?))
}
