//! What the dashboard weighs and costs: the page, its first paint, the processor with nobody, ten and a thousand stuck viewers.
//!
//! The processor's time is that of the dashboard's own threads and of the whole process, by the kernel's account of each thread,
//! so what else the machine does is not in it. What stuck viewers do to the hint server is a ratio to the same server without them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::up::Up;
use super::{Bound, Report};
use crate::command;
use crate::process::resident;
use crate::test::fetch_page_tools;

/// How long the processor's time is measured in each state.
const WATCH: Duration = Duration::from_secs(15);
/// How many times as long with `--long`.
const LONG: u32 = 4;
/// Viewers of an ordinary day.
const VIEWERS: usize = 10;
/// Viewers that never read.
const STUCK: usize = 1000;
/// So many of them find a place (`MOST_VIEWERS` in the dashboard).
const LET_IN: f64 = 256.0;
/// Sampling so often gives the stuck ones in seconds what would otherwise take hours.
const FAST: &str = "0.01";
/// Buffers on their way fill, and the kernel gives up on them 20 seconds later (`netdiag_http::Limits`).
const UNTIL_DROPPED: Duration = Duration::from_secs(90);
/// Questions to the hint server.
const QUESTIONS: usize = 2000;

pub(super) fn run(long: bool) -> anyhow::Result<Report> {
    let watch = WATCH * if long { LONG } else { 1 };
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let mut report = Report { columns: vec!["what", "figure", "unit"], ..Report::default() };
    page(&mut report, &netdiag)?;
    processor(&mut report, &netdiag, watch)?;
    stuck(&mut report, &netdiag)?;
    Ok(report)
}

/// `netdiag up` with a dashboard; ended when dropped.
struct Watched {
    up: Up,
    hints: SocketAddr,
    dashboard: SocketAddr,
}

impl Watched {
    fn start(netdiag: &Path, interval: &str) -> anyhow::Result<Self> {
        let arguments =
            ["--dashboard-listen", "127.0.0.1:0", "--interval", interval, "--window", "10"];
        let mut up = Up::start(netdiag, arguments)?;
        let dashboard = up.address("dashboard on")?;
        Ok(Self { hints: up.hints, up, dashboard })
    }

    /// The processor's time so far of the threads whose name begins so, of all for an empty one.
    fn cpu(&self, name: &str) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.up.pid()))? {
            let task = task?.path();
            // A thread may end between the two.
            let Ok(thread) = fs::read_to_string(task.join("comm")) else { continue };
            let Ok(times) = fs::read_to_string(task.join("schedstat")) else { continue };
            if thread.starts_with(name) {
                let first = times.split_whitespace().next().context("an empty schedstat")?;
                sum += Duration::from_nanos(first.parse()?);
            }
        }
        Ok(sum)
    }

    /// Percent of a core that the threads of this name take, and that all of them take.
    fn shares(&self, time: Duration) -> anyhow::Result<(f64, f64)> {
        let before = (self.cpu("dashboard")?, self.cpu("")?);
        let start = Instant::now();
        std::thread::sleep(time);
        let elapsed = start.elapsed().as_secs_f64();
        let share = |now: Duration, before: Duration| {
            100.0 * now.saturating_sub(before).as_secs_f64() / elapsed
        };
        Ok((share(self.cpu("dashboard")?, before.0), share(self.cpu("")?, before.1)))
    }

    /// Resident memory, MiB.
    fn memory(&self) -> anyhow::Result<f64> {
        Ok(resident(self.up.pid())? as f64 / f64::from(1 << 20))
    }
}

fn ask(address: SocketAddr, path: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: gzip\r\n");
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// The body of an answer, compressed as it comes.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    ask(address, path)?.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no head")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {:?}", &answer[..40.min(answer.len())]);
    Ok(answer.split_off(head + 4))
}

/// What a browser loads, and how soon it shows something.
fn page(report: &mut Report, netdiag: &Path) -> anyhow::Result<()> {
    let up = Watched::start(netdiag, "0.5")?;
    fetch_page_tools()?;
    let address = format!("http://{}", up.dashboard);
    let browser = |script: &str| -> anyhow::Result<String> {
        command::output(
            "node",
            &[&format!("crates/netdiag-dashboard/tests/browser/{script}"), &address],
        )
    };
    // Every file that the browser asked for, by its own account.
    let files: BTreeSet<String> = browser("files.js")?.lines().map(str::to_owned).collect();
    ensure!(files.len() > 5, "the browser loaded {} files only", files.len());
    let mut weight = 0;
    for file in &files {
        weight += get(up.dashboard, file)?.len();
    }
    report.figure("page, compressed", weight as f64 / 1024.0, "KiB");
    report.bar("page_weight", weight as f64 / 1000.0, Bound::AtMost(150.0), "kB");
    let paint: f64 = browser("paint.js")?.trim().parse()?;
    report.figure("first paint", paint, "ms");
    report.bar("first_paint", paint, Bound::AtMost(300.0), "ms");
    Ok(())
}

/// What it costs with nobody and with ten who look.
fn processor(report: &mut Report, netdiag: &Path, watch: Duration) -> anyhow::Result<()> {
    let up = Watched::start(netdiag, "0.5")?;
    let (nobody, all) = up.shares(watch)?;
    report.figure("nobody looks: dashboard's threads", nobody, "% of a core");
    report.figure("nobody looks: whole process", all, "% of a core");
    report.bar("cpu_without_viewers", nobody, Bound::AtMost(0.05), "%");
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|_| {
            let mut stream = ask(up.dashboard, "/api/events")?;
            Ok(std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                let mut bytes = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    bytes += read;
                }
                bytes
            }))
        })
        .collect::<anyhow::Result<_>>()?;
    let (ten, _) = up.shares(watch)?;
    report.figure("ten look: dashboard's threads", ten, "% of a core");
    report.bar("cpu_ten_viewers", ten, Bound::AtMost(3.0), "%");
    drop(up);
    for viewer in viewers {
        let bytes = viewer.join().ok().context("a viewer panicked")?;
        ensure!(bytes > 1000, "a viewer was sent {bytes} bytes only");
    }
    Ok(())
}

/// A thousand who open the stream and never read.
fn stuck(report: &mut Report, netdiag: &Path) -> anyhow::Result<()> {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let up = Watched::start(netdiag, FAST)?;
    // A history that does not fit into the buffers on the way.
    std::thread::sleep(Duration::from_secs(20));
    let before = (latency(up.hints)?, up.memory()?);
    let open: Vec<TcpStream> =
        (0..STUCK).filter_map(|_| ask(up.dashboard, "/api/events").ok()).collect();
    std::thread::sleep(Duration::from_secs(3));
    let during = latency(up.hints)?;
    let start = Instant::now();
    let (mut dropped, mut memory) = (0.0, up.memory()?);
    // Those beyond the limit were refused; these were let in.
    while dropped < LET_IN && start.elapsed() < UNTIL_DROPPED {
        std::thread::sleep(Duration::from_secs(2));
        memory = f64::max(memory, up.memory()?);
        let count = |name| counter(&up, name).unwrap_or(0.0);
        dropped = count("netdiag_dashboard_viewers_dropped_total")
            + count("netdiag_dashboard_connections_given_up");
    }
    report.figure("stuck viewers connected", open.len() as f64, "");
    report.figure("stuck viewers dropped", dropped, "");
    report.figure("hint, median, without them", before.0.as_secs_f64() * 1e6, "µs");
    report.figure("hint, median, with them", during.as_secs_f64() * 1e6, "µs");
    let ratio = during.as_secs_f64() / before.0.as_secs_f64();
    report.bar("hints_with_stuck_viewers", ratio, Bound::AtMost(1.5), "");
    report.bar("memory_of_stuck_viewers", memory - before.1, Bound::AtMost(32.0), "MiB");
    report.bar("stuck_viewers_dropped", dropped, Bound::AtLeast(LET_IN), "");
    Ok(())
}

/// The median time in which a hint is answered, connection and all.
fn latency(hints: SocketAddr) -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let start = Instant::now();
        get(hints, "/v1/hint")?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[QUESTIONS / 2])
}

/// One of the dashboard's counters. It may have no place for who asks while it is full.
fn counter(up: &Watched, name: &str) -> anyhow::Result<f64> {
    let text = String::from_utf8(get(up.dashboard, "/metrics")?)?;
    let line = text.lines().find(|line| line.starts_with(name)).context("no such counter")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}
