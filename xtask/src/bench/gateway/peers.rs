//! Those who are measured: proxies as processes, with the kernel's account of what they take.
//!
//! Invariant: a proxy ends with its [`Proxy`], with all processes that it started.

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

/// For a proxy to answer. LiteLLM reads half of PyPI first.
const PATIENCE: Duration = Duration::from_secs(90);

/// Of each of nginx's processes: both ends of all streams, if one gets them all. It has memory for so many from the start.
const MOST_CONNECTIONS: usize = 12_000;

/// LiteLLM with its proxy, of the series that was current when this was written.
const LITELLM: &str = "litellm[proxy]~=1.80";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    /// hyper and nothing else.
    Bare,
    Gateway,
    Litellm,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Bare => "bare hyper",
            Self::Gateway => "netdiag gateway",
            Self::Litellm => "LiteLLM",
        }
    }
}

/// A running proxy in front of an engine.
pub(super) struct Proxy {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    /// What it was configured with.
    _folder: TempDir,
}

impl Proxy {
    pub(super) fn start(kind: Kind, engine: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (mut command, address) = match kind {
            Kind::Nginx => nginx(engine, folder.path())?,
            Kind::Litellm => litellm(engine, folder.path())?,
            Kind::Bare => {
                let target = ["--example", "bare_proxy"];
                let binary =
                    crate::release_binary("netdiag-gateway", &target, "examples/bare_proxy")?;
                let mut command = Command::new(binary);
                command.arg(engine.to_string()).stdout(Stdio::piped());
                (command, None)
            }
            Kind::Gateway => {
                let target = ["--bin", "netdiag"];
                let mut command =
                    Command::new(crate::release_binary("netdiag", &target, "netdiag")?);
                let upstream = format!("http://{engine}");
                command.args(["gateway", "--upstream", &upstream, "--listen", "127.0.0.1:0"]);
                // Others write no line for each request either.
                command.args(["--log-level", "warn"]).stderr(Stdio::piped());
                (command, None)
            }
        };
        command.stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run {}", kind.name()))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut proxy = Self { kind, child, address: nowhere, _folder: folder };
        proxy.address = match address {
            Some(address) => address,
            None => proxy.told_address()?,
        };
        proxy.wait()?;
        Ok(proxy)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processor's time so far of all its threads.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for process in self.processes() {
            for task in fs::read_dir(format!("/proc/{process}/task"))? {
                // A thread may end between the two.
                let Ok(times) = fs::read_to_string(task?.path().join("schedstat")) else {
                    continue;
                };
                let first = times.split_whitespace().next().context("an empty schedstat")?;
                sum += Duration::from_nanos(first.parse()?);
            }
        }
        Ok(sum)
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
                (None, None) => bail!("{} cannot be heard", self.kind.name()),
            };
        let mut lines = says.lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let words = line.split([' ', ';', '/']);
            words.filter_map(|word| word.parse::<SocketAddr>().ok()).next()
        });
        // It may have more to say, and must not wait for us to hear it.
        std::thread::spawn(move || lines.for_each(drop));
        address.with_context(|| format!("{} says no address", self.kind.name()))
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

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's QUIT waits for streams; TERM does not. The gateway would drain.
        let signal = if self.kind == Kind::Gateway { Signal::KILL } else { Signal::TERM };
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
        let _ = self.child.wait();
    }
}

/// As its documentation advises for event streams, on as many cores as the others use, and without a log.
fn nginx(engine: SocketAddr, folder: &Path) -> anyhow::Result<(Command, Option<SocketAddr>)> {
    command::ensure_debian(&[("nginx", "nginx")])?;
    let address = free_address()?;
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
  upstream engine {{ server {engine}; keepalive 64; }}
  server {{
    listen {address} backlog=4096;
    tcp_nodelay on;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok((command, Some(address)))
}

/// One worker, as it is by default.
fn litellm(engine: SocketAddr, folder: &Path) -> anyhow::Result<(Command, Option<SocketAddr>)> {
    let environment = crate::target_directory().join("litellm");
    let program = environment.join("bin/litellm");
    if !program.exists() {
        let path = environment.to_str().context("the target folder's path is not UTF-8")?;
        command::ensure_debian(&[
            ("python3", "python3"),
            ("/usr/share/doc/python3-venv", "python3-venv"),
        ])?;
        command::output("python3", &["-m", "venv", path])?;
        let python = format!("{path}/bin/python");
        let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", LITELLM];
        command::output(&python, &quiet)?;
    }
    let address = free_address()?;
    let configuration = format!(
        "model_list:
  - model_name: none
    litellm_params:
      model: openai/none
      api_base: http://{engine}/v1
      api_key: none
"
    );
    let file = folder.join("config.yaml");
    fs::write(&file, configuration)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--port"]);
    command.arg(address.port().to_string()).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    // It would refuse to start without a key, as nobody else here does.
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((command, Some(address)))
}

/// For those who cannot take a port themselves and say which.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
