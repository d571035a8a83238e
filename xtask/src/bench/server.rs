//! Servers that are measured: processes, with the kernel's account of what they take.
//!
//! Invariant: a server ends with its [`Server`], with all processes that it started.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command;

/// For a server to answer. LiteLLM reads half of PyPI first.
const PATIENCE: Duration = Duration::from_secs(90);

/// Of each of nginx's processes: both ends of all streams, if one gets them all. It has memory for so many from the start.
const MOST_CONNECTIONS: usize = 12_000;

/// A running server.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    /// How it is told to end at once.
    ending: Signal,
    /// What it was configured with.
    _folder: TempDir,
}

impl Server {
    /// Starts `command` and waits until it answers at `address`, or at the one that it says first.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        address: Option<SocketAddr>,
        ending: Signal,
        folder: TempDir,
    ) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot run {name}"))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { name, child, address: nowhere, ending, _folder: folder };
        server.address = match address {
            Some(address) => address,
            None => server.told_address()?,
        };
        server.wait()?;
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processor's time so far of all its threads.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.processes())
    }

    /// Resident memory of all its processes, KB.
    pub(super) fn rss_kb(&self) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for process in self.processes() {
            // Counted now, unlike the kernel's quick account in `status`.
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
            let number = line.and_then(|line| line.split_whitespace().next()).context("no Rss")?;
            sum += number.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// It and what it has started.
    fn processes(&self) -> Vec<u32> {
        let first = self.child.id();
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        let children = children.unwrap_or_default();
        std::iter::once(first)
            .chain(children.split_whitespace().filter_map(|id| id.parse().ok()))
            .collect()
    }

    /// The address in its first line that has one.
    fn told_address(&mut self) -> anyhow::Result<SocketAddr> {
        let says: Box<dyn BufRead + Send> =
            match (self.child.stdout.take(), self.child.stderr.take()) {
                (Some(stdout), _) => Box::new(BufReader::new(stdout)),
                (None, Some(stderr)) => Box::new(BufReader::new(stderr)),
                (None, None) => bail!("{} cannot be heard", self.name),
            };
        let mut lines = says.lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let words = line.split([' ', ';', '/']);
            words.filter_map(|word| word.parse::<SocketAddr>().ok()).next()
        });
        // It may have more to say, and must not wait for us to hear it.
        std::thread::spawn(move || lines.for_each(drop));
        address.with_context(|| format!("{} says no address", self.name))
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status})");
            }
            ensure!(start.elapsed() < PATIENCE, "it does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, self.ending);
        }
        let _ = self.child.wait();
    }
}

/// The processor's time so far of all threads of these processes.
pub(super) fn cpu_of(processes: &[u32]) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for process in processes {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end between the two.
            let Ok(times) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let first = times.split_whitespace().next().context("an empty schedstat")?;
            sum += Duration::from_nanos(first.parse()?);
        }
    }
    Ok(sum)
}

/// nginx on as many cores as the others use and without a log; `http` is what it serves.
pub(super) fn nginx(http: &str, folder: &Path) -> anyhow::Result<Command> {
    command::ensure_debian(&[("nginx", "nginx")])?;
    let path = folder.display();
    let configuration = format!(
        "daemon off;
worker_processes auto;
pid {path}/pid;
error_log stderr crit;
events {{ worker_connections {MOST_CONNECTIONS}; }}
http {{
  access_log off;
  client_body_temp_path {path}/body;
  proxy_temp_path {path}/proxy;
  fastcgi_temp_path {path}/fastcgi;
  uwsgi_temp_path {path}/uwsgi;
  scgi_temp_path {path}/scgi;
{http}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

/// For those who cannot take a port themselves and say which.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
