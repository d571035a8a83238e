//! Those who are measured: proxies in front of an engine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use super::super::server::{Server, free_address, nginx};
use crate::command;

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
    server: Server,
}

impl Proxy {
    pub(super) fn start(kind: Kind, engine: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (command, address) = match kind {
            Kind::Nginx => {
                let address = free_address()?;
                (nginx(&streaming(engine, address), folder.path())?, Some(address))
            }
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
        // nginx's QUIT waits for streams; TERM does not. The gateway would drain.
        let ending = if kind == Kind::Gateway { Signal::KILL } else { Signal::TERM };
        let server = Server::start(kind.name(), command, address, ending, folder)?;
        Ok(Self { kind, server })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The processor's time so far of all its threads.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.server.cpu()
    }

    /// Resident memory of all its processes, KB.
    pub(super) fn rss_kb(&self) -> anyhow::Result<f64> {
        self.server.rss_kb()
    }
}

/// nginx as its documentation advises for event streams.
fn streaming(engine: SocketAddr, address: SocketAddr) -> String {
    format!(
        "  upstream engine {{ server {engine}; keepalive 64; }}
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
  }}"
    )
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
