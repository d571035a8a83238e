//! The parts of the system, each a process of its own as it would be in service.
//!
//! They run in the lab's namespace, where all ports are theirs, and under a clock that the soak can step. Invariants: a part dies with
//! the soak, whatever ended that (`setpriv --pdeathsig`); it is ended by its own process ID; what it says is kept in a log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Memory, memory};

/// The soak's own mark in the environment of every process that it starts: who has it afterwards was left behind.
pub(super) const MARK: &str = "SOAK_MARK";

/// Debian's libfaketime, which answers a process that asks for the time of day.
pub(super) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A folder of Debian's, empty as a rule, for a file system of the soak's own.
pub(super) const CLOCKS: &str = "/etc/opt";

/// How often a process reads anew what the time is said to be, seconds.
const CLOCK_READ: &str = "1";

/// Intervals of `up` and `agent`, seconds: short, so that a row that is missing is noticed.
pub(super) const INTERVAL: f64 = 0.2;

/// Rows that their files keep: a minute and a half, so that files are rotated many times.
const MAX_SAMPLES: &str = "450";

/// How long a part may take to end when it is told to: those with streams drain for a second.
const END: Duration = Duration::from_secs(5);

/// Who is who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Nats,
    Engine,
    Gateway,
    Up,
    Agent,
    Serve,
    FleetA,
    FleetB,
    Dashboard,
    Watch,
}

/// In the order in which they are started.
pub(super) const ALL: [Id; 10] = [
    Id::Nats,
    Id::Engine,
    Id::Gateway,
    Id::Up,
    Id::Agent,
    Id::Serve,
    Id::FleetA,
    Id::FleetB,
    Id::Dashboard,
    Id::Watch,
];

impl Id {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Engine => "demo engine",
            Self::Gateway => "gateway",
            Self::Up => "up",
            Self::Agent => "agent",
            Self::Serve => "serve",
            Self::FleetA => "fleet 1",
            Self::FleetB => "fleet 2",
            Self::Dashboard => "dashboard",
            Self::Watch => "watch",
        }
    }

    /// Whether its memory is ours to promise anything about. The demo engine remembers ten thousand answers on purpose.
    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::Nats | Self::Engine)
    }

    fn arguments(self, places: &Places) -> Vec<String> {
        let bus = ["--bus", "nats://127.0.0.1:4222"];
        let (csv, agent_csv) = (places.csv(Self::Up), places.csv(Self::Agent));
        let (csv, agent_csv) = (csv.display().to_string(), agent_csv.display().to_string());
        let model = places.model().display().to_string();
        let interval = INTERVAL.to_string();
        let store = places.folder.join("nats").display().to_string();
        let recording = ["--loopback", "--interval", &interval, "--max-samples", MAX_SAMPLES];
        let list = |parts: &[&[&str]]| parts.concat().into_iter().map(str::to_owned).collect();
        match self {
            Self::Nats => list(&[&["-a", "127.0.0.1", "-p", "4222", "-js", "-sd", &store]]),
            Self::Engine => list(&[&["--hints", "http://127.0.0.1:9000"]]),
            Self::Gateway => list(&[
                &["gateway", "--upstream", "http://127.0.0.1:8000", "--engine", "netdiag"],
                &["--listen", "0.0.0.0:8080", "--no-auth", "--admin-listen", "127.0.0.1:9901"],
                &["--keep-alive", "5", "--hold-max", "10", "--resume-window", "5", "--drain", "1"],
                &["--log-level", "warn"],
            ]),
            Self::Up => list(&[
                &["up", "--csv", &csv, "--node", "soak", "--shared-engine", "demo"],
                &["--capacity-tps", "1000", "--reading-tps", "20", "--model", &model],
                &recording,
                &bus,
            ]),
            Self::Agent => list(&[&["agent", "--csv", &agent_csv], &recording]),
            Self::Serve => list(&[
                &["serve", "--csv", &agent_csv, "--port", "9001", "--node", "csv"],
                &["--model", &model],
                &bus,
            ]),
            Self::FleetA => list(&[&["fleet", "--node", "f1", "--listen", "127.0.0.1:9003"], &bus]),
            Self::FleetB => list(&[&["fleet", "--node", "f2", "--listen", "127.0.0.1:9004"], &bus]),
            Self::Dashboard => list(&[
                &["dashboard", "--hints", "http://127.0.0.1:9000"],
                &["--gateway", "http://127.0.0.1:9901", "--dashboard-listen", "127.0.0.1:8502"],
            ]),
            Self::Watch => list(&[&["watch", "--json", "--node", "soak"], &bus]),
        }
    }
}

/// Where things are.
pub(super) struct Places {
    pub(super) netdiag: PathBuf,
    pub(super) engine: PathBuf,
    /// Of this soak, gone with it.
    pub(super) folder: PathBuf,
    /// What parts say, kept until the next soak.
    pub(super) logs: PathBuf,
    /// The namespace in which all parts run.
    pub(super) netns: PathBuf,
    pub(super) mark: String,
}

impl Places {
    /// The small file system for what `up` and `agent` write.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(super) fn csv(&self, id: Id) -> PathBuf {
        self.disk().join(format!("{}.csv", id.name()))
    }

    /// What links are judged by. A model that is trained meanwhile would be a step of memory, at a time that follows from the traffic.
    pub(super) fn model(&self) -> PathBuf {
        self.folder.join("model.json")
    }

    /// What the time of day is said to differ by, where a confined part can read it: `agent` its rows' folder alone, the others, who
    /// connect, what is in `/etc`.
    pub(super) fn clock(&self, id: Id) -> PathBuf {
        let folder = if id == Id::Agent { self.disk() } else { CLOCKS.into() };
        folder.join("clock")
    }

    /// How often a part has said this.
    pub(super) fn times_said(&self, id: Id, what: &str) -> usize {
        let said = fs::read(self.log(id)).unwrap_or_default();
        String::from_utf8_lossy(&said).matches(what).count()
    }

    fn log(&self, id: Id) -> PathBuf {
        self.logs.join(format!("{}.log", id.name()))
    }
}

/// A part, running or not.
pub(super) struct Part {
    pub(super) id: Id,
    child: Option<Child>,
    /// Lives that it has had.
    pub(super) starts: u32,
}

impl Part {
    pub(super) fn new(id: Id) -> Self {
        Self { id, child: None, starts: 0 }
    }

    /// Starts it, from a thread that lives as long as the soak: the kernel ends it with that thread.
    pub(super) fn start(&mut self, places: &Places) -> anyhow::Result<Option<ChildStdout>> {
        ensure!(self.child.is_none(), "{} runs already", self.id.name());
        let log = File::options().create(true).append(true).open(places.log(self.id))?;
        let program = match self.id {
            Id::Nats => Path::new("nats-server"),
            Id::Engine => &places.engine,
            _ => &places.netdiag,
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--net={}", places.netns.display())).args(["--", "env"]);
        if self.id.is_ours() {
            // By `env`, so that it is not in the programs before: each would leave its own memory behind.
            command.arg(format!("LD_PRELOAD={FAKETIME}"));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", places.clock(self.id).display()));
            command.arg(format!("FAKETIME_CACHE_DURATION={CLOCK_READ}"));
            command.arg("FAKETIME_DONT_FAKE_MONOTONIC=1");
        }
        command.arg(program).args(self.id.arguments(places)).env(MARK, &places.mark);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("NETDIAG_") || name == "RUST_BACKTRACE" {
                command.env_remove(&*name);
            }
        }
        let heard = self.id == Id::Watch;
        command.stdin(Stdio::null()).stderr(log.try_clone()?);
        command.stdout(if heard { Stdio::piped() } else { log.into() });
        let mut child =
            command.spawn().with_context(|| format!("cannot run {}", self.id.name()))?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        self.starts += 1;
        Ok(stdout)
    }

    /// Ends it without a word, as a crash does.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// How it has ended, if it has of its own accord.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    pub(super) fn tell_to_end(&self) {
        let pid = self.child.as_ref().map(Pid::from_child);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the end that it was told to come to; `None` if it did not run, or had to be killed.
    pub(super) fn wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let asked = Instant::now();
        while self.child.is_some() && asked.elapsed() < END {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        Ok(None)
    }

    /// Memory and open descriptors, by the kernel's account.
    pub(super) fn weigh(&self) -> Option<(Memory, usize)> {
        let pid = self.child.as_ref()?.id();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some((memory(pid).ok()?, descriptors))
    }

    /// The last lines that it has said.
    pub(super) fn last_words(&self, places: &Places) -> String {
        let said = fs::read(places.log(self.id)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}
