//! What the probe costs: nanoseconds per event by the kernel's own account, and the agent at 10,000 flows.
//!
//! Three programs watch the same events in the same run: ours, an empty raw tracepoint, and bpftrace's histogram of srtt
//! per port. The kernel counts the time and the calls of each (`kernel.bpf_stats_enabled`). bpftrace attaches to the
//! tracepoint's perf event, whose record the kernel fills in before bpftrace's program starts; that time is not in its
//! figure, while ours reads the same fields itself.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aya::programs::{RawTracePoint, loaded_programs};
use netdiag_probe::{FlowFilter, Probe, ProbeConfig, SourceChoice};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Bar, Bound, Report};
use crate::command;
use crate::process::usage;

/// Streams in the first part: a busy inference server.
const STREAMS: usize = 64;
/// Tokens a second of each stream, spread evenly over time as a batch's are over its streams.
const TOKENS_PER_SECOND: u32 = 30;
/// Tokens of each stream: 10 seconds, some 38,000 events.
const TOKENS: usize = 300;
/// Messages per stream as fast as they go: up to 400,000 events (fewer where one ACK serves several messages), a few
/// seconds. The caches are hot then, and round trips are the time in queues.
const MESSAGES: usize = 3000;
/// How often the probe is read meanwhile, as the agent does.
const INTERVAL: Duration = Duration::from_millis(500);
/// How many times as much is measured with `--long`.
const LONG: usize = 20;
/// Bytes of a message: one streamed token with its JSON around it.
const MESSAGE: usize = 200;
/// Flows in the second part.
const FLOWS: usize = 10_000;
/// On loopback both ends of a connection are flows of this host.
const CONNECTIONS: usize = FLOWS / 2;
/// How long the agent is measured.
const WATCH: Duration = Duration::from_secs(10);

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

pub(super) fn run(long: bool) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the probe bench loads BPF programs: run it as root");
    let times = if long { LONG } else { 1 };
    let mut report = Report { columns: vec!["what", "figure", "unit"], ..Report::default() };
    events(&mut report, times)?;
    agent(&mut report, WATCH * times as u32)?;
    Ok(report)
}

/// The cost per event of programs that watch the same ones.
fn events(report: &mut Report, times: usize) -> anyhow::Result<()> {
    let filter = FlowFilter { loopback: true, ..FlowFilter::default() };
    let config = ProbeConfig { source: SourceChoice::Ebpf, filter, ..ProbeConfig::default() };
    let mut probe = Probe::open(&config)?;
    let ours = probe.program_ids().into_iter().find(|(name, _)| *name == "on_tcp_probe");
    let ours = ours.context("our program is not loaded")?.1;
    let empty = load_empty();
    let bpftrace = Bpftrace::start();
    let mut peers = Vec::new();
    match &empty {
        Ok((_loaded, id)) => peers.push(("empty raw tracepoint", *id)),
        Err(error) => report.absent.push(format!("empty raw tracepoint ({error:#})")),
    }
    match &bpftrace {
        Ok(bpftrace) => peers.push(("bpftrace hist(srtt) by port", bpftrace.id)),
        Err(error) => report.absent.push(format!("bpftrace ({error:#})")),
    }

    let statistics = Statistics::enable()?;
    let token = Duration::from_secs(1) / (TOKENS_PER_SECOND * STREAMS as u32);
    for (load, bar, messages, gap) in [
        ("tokens", Some("probe_to_bpftrace"), TOKENS * times, token),
        ("bulk", None, MESSAGES * times, Duration::ZERO),
    ] {
        let before = programs_cost(ours, &peers)?;
        let elapsed = watched_traffic(&mut probe, messages, gap)?;
        let after = programs_cost(ours, &peers)?;
        let costs: Vec<Cost> =
            before.iter().zip(&after).map(|(before, after)| after.since(before)).collect();
        let names = std::iter::once("netdiag probe").chain(peers.iter().map(|(name, _)| *name));
        for (name, cost) in names.zip(&costs) {
            ensure!(cost.events > 1000, "{name} saw {} events only", cost.events);
            let (what, figure) = (format!("{name}, {load}"), format!("{:.0}", cost.per_event()));
            report.rows.push(vec![what, figure, "ns/event".to_owned()]);
        }
        if let (Some(bar), Ok(_)) = (bar, &bpftrace) {
            report.bars.push(Bar {
                name: bar.to_owned(),
                value: costs[0].per_event() / costs[costs.len() - 1].per_event(),
                bound: Bound::AtMost(0.5),
                unit: "",
            });
        }
        let (events, rate) = (costs[0].events, costs[0].events as f64 / elapsed.as_secs_f64());
        report.rows.push(vec![
            format!("events measured, {load}"),
            events.to_string(),
            format!("{rate:.0}/s"),
        ]);
    }
    drop(statistics);
    Ok(())
}

/// What each program has cost so far, ours first.
fn programs_cost(ours: u32, peers: &[(&str, u32)]) -> anyhow::Result<Vec<Cost>> {
    std::iter::once(ours).chain(peers.iter().map(|(_, id)| *id)).map(Cost::of).collect()
}

/// Traffic, with the probe read all the while. How long it took.
fn watched_traffic(probe: &mut Probe, messages: usize, gap: Duration) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let traffic = std::thread::spawn(move || traffic(messages, gap));
    let mut due = INTERVAL;
    while !traffic.is_finished() {
        if start.elapsed() >= due {
            probe.snapshot()?;
            due += INTERVAL;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    traffic.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
    Ok(start.elapsed())
}

/// The agent beside many established connections, each with one message a second.
fn agent(report: &mut Report, watched: Duration) -> anyhow::Result<()> {
    let binary = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    allow_files(2 * FLOWS as u64)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(address).context("cannot open 5,000 connections")?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        connections.push((server, client));
    }
    let csv = std::env::temp_dir().join(format!("netdiag-bench-{}.csv", std::process::id()));
    let child = Command::new(binary)
        .args(["agent", "--loopback", "--interval", "0.5", "--csv"])
        .arg(&csv)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the agent")?;
    let agent = Ended(child);
    let result = watch(&agent, &mut connections, &csv, watched);
    drop(agent);
    let _ = fs::remove_file(&csv);
    let (cpu, rss_mib) = result?;
    let mut row = |what: String, figure: String, unit: &str| {
        report.rows.push(vec![what, figure, unit.to_owned()])
    };
    row(format!("agent CPU at {FLOWS} flows"), format!("{cpu:.1}"), "% of a core");
    row(format!("agent peak RSS at {FLOWS} flows"), format!("{rss_mib:.1}"), "MiB");
    report.bars.push(Bar {
        name: "agent_rss_mib".to_owned(),
        value: rss_mib,
        bound: Bound::AtMost(64.0),
        unit: "MiB",
    });
    Ok(())
}

fn watch(
    agent: &Ended,
    connections: &mut [(TcpStream, TcpStream)],
    csv: &Path,
    watched: Duration,
) -> anyhow::Result<(f64, f64)> {
    let pid = agent.0.id();
    // The agent is up when its first rows are there.
    let ready = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(csv).is_ok_and(|text| text.lines().count() < 3) || !csv.exists() {
        ensure!(Instant::now() < ready, "the agent wrote no rows");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (start, before) = (Instant::now(), usage(pid)?.cpu);
    let mut message = [0; MESSAGE];
    let gap = Duration::from_secs(1) / CONNECTIONS as u32;
    for round in 0..watched.as_secs() as usize {
        for (index, (server, client)) in connections.iter_mut().enumerate() {
            server.write_all(&message)?;
            client.read_exact(&mut message)?;
            let due = gap * (round * CONNECTIONS + index) as u32;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    let used = usage(pid)?.cpu.saturating_sub(before);
    let cpu = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok((cpu, kib / 1024.0))
}

/// Raises the limit on open files where it is lower: both ends of every connection are ours.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .with_context(|| format!("cannot raise the limit on open files to {wanted}"))?;
    }
    Ok(())
}

/// Small messages over many connections, written by one thread with a gap in between and read by another, as a server and
/// its clients would.
fn traffic(messages: usize, gap: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        clients.push(TcpStream::connect(address)?);
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        servers.push(server);
    }
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        let mut message = [0; MESSAGE];
        for _ in 0..messages {
            for client in &mut clients {
                client.read_exact(&mut message)?;
            }
        }
        Ok(())
    });
    let (start, mut due) = (Instant::now(), Duration::ZERO);
    for _ in 0..messages {
        for server in &mut servers {
            server.write_all(&[0; MESSAGE])?;
            due += gap;
            if !gap.is_zero() {
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
    Ok(())
}

/// What the kernel has counted for a program.
struct Cost {
    time: Duration,
    events: u64,
}

impl Cost {
    fn of(id: u32) -> anyhow::Result<Self> {
        let program = loaded_programs().flatten().find(|program| program.id() == id);
        let program = program.context("the program is gone")?;
        Ok(Self { time: program.run_time(), events: program.run_count() })
    }

    fn since(&self, before: &Self) -> Self {
        Self { time: self.time - before.time, events: self.events - before.events }
    }

    /// Nanoseconds.
    fn per_event(&self) -> f64 {
        self.time.as_nanos() as f64 / self.events as f64
    }
}

fn load_empty() -> anyhow::Result<(aya::Ebpf, u32)> {
    command::ensure_debian(&[("clang", "clang")])?;
    let object = std::env::temp_dir().join(format!("netdiag-empty-{}.o", std::process::id()));
    let path = object.to_str().context("the temporary folder is not UTF-8")?;
    let compiled = command::run(
        "clang",
        &["-O2", "-g", "-target", "bpf", "-c", "xtask/src/bench/empty.bpf.c", "-o", path],
    );
    let bytes = fs::read(&object);
    let _ = fs::remove_file(&object);
    compiled?;
    let mut programs = aya::Ebpf::load(&bytes?)?;
    let program: &mut RawTracePoint =
        programs.program_mut("empty").context("no program")?.try_into()?;
    program.load()?;
    program.attach("tcp_probe")?;
    let id = program.info()?.id();
    Ok((programs, id))
}

/// A child that is ended, and waited for, whatever happens.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let id = self.0.id().to_string();
        // An interrupt first: bpftrace and the agent end cleanly on it.
        let _ = Command::new("kill").args(["-INT", &id]).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bpftrace {
    _child: Ended,
    id: u32,
}

impl Bpftrace {
    fn start() -> anyhow::Result<Self> {
        command::ensure_debian(&[("bpftrace", "bpftrace")])?;
        if !Path::new("/sys/kernel/tracing/events").exists() {
            command::run("mount", &["-t", "tracefs", "tracefs", "/sys/kernel/tracing"])?;
        }
        let existing: Vec<u32> = loaded_programs().flatten().map(|program| program.id()).collect();
        let mut child = Command::new("bpftrace")
            .args(["-e", "tracepoint:tcp:tcp_probe { @[args->sport] = hist(args->srtt); }"])
            .env("BPFTRACE_MAP_KEYS_MAX", "100000")
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let child = Ended(child);
        // It says so when it is attached; what it prints at the end must not fill the pipe.
        let mut lines = BufReader::new(output).lines();
        let attached =
            lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("Attaching")));
        ensure!(attached.is_some(), "it did not attach");
        std::thread::spawn(move || lines.for_each(drop));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let new = loaded_programs().flatten().find(|program| {
                program.name_as_str() == Some("tcp_probe") && !existing.contains(&program.id())
            });
            if let Some(program) = new {
                // Loaded is not yet attached.
                std::thread::sleep(Duration::from_secs(1));
                return Ok(Self { _child: child, id: program.id() });
            }
            if Instant::now() > deadline {
                bail!("its program did not appear");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The kernel's statistics on BPF programs, switched back on drop.
struct Statistics {
    before: String,
}

impl Statistics {
    fn enable() -> anyhow::Result<Self> {
        let before = fs::read_to_string(STATISTICS).context(STATISTICS)?;
        fs::write(STATISTICS, "1").context(STATISTICS)?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATISTICS, self.before.trim());
    }
}
