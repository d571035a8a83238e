//! The hint server as `up` and `serve` run it: bound early, so that a port in use is told before anything else starts,
//! and served until the stop.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netdiag_hints::{Board, Exposure, Limits, Options, Token, router, serve};
use netdiag_pacer::{TpsRange, WhenStale};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::args::ServerArgs;
use crate::failure::UsageError;
use crate::stop::Stop;

/// Threads that answer requests. An answer takes microseconds; two keep one slow serialisation from delaying the next.
const THREADS: usize = 2;

/// How long open event streams may delay the end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Descriptors that connections must leave to the probe, the files and the rest of the process.
const SPARE_FILES: u64 = 64;

/// The server's limits, within those of the process: who connects must not use up the descriptors that telemetry needs.
fn limits() -> Limits {
    let mut files = getrlimit(Resource::Nofile);
    // As many as the administrator allows; the usual 1024 are a shell's default.
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        files = raised;
    }
    let usual = Limits::default();
    let room = files.current.map_or(u64::MAX, |files| files.saturating_sub(SPARE_FILES).max(1));
    Limits {
        connections: usual.connections.min(usize::try_from(room).unwrap_or(usize::MAX)),
        ..usual
    }
}

/// A listener, and who may ask.
#[derive(Debug)]
pub(crate) struct HintServer {
    listener: TcpListener,
    exposure: Exposure,
    address: SocketAddr,
}

impl HintServer {
    /// Listens where `args` say; `port` wins over the port there.
    pub(crate) fn bind(args: &ServerArgs, port: Option<u16>) -> anyhow::Result<Self> {
        let mut wanted = args.listen.socket();
        if let Some(port) = port {
            wanted.set_port(port);
        }
        let token = args.auth_token_file.as_deref().map(Token::read).transpose();
        let exposure = token
            .and_then(|token| Exposure::try_new(wanted, token, args.no_auth))
            .map_err(|error| UsageError::new(error.to_string()))?;
        let listener = TcpListener::bind(wanted).map_err(|error| {
            let why = match error.kind() {
                ErrorKind::AddrInUse => "another program has the port; end it, or",
                ErrorKind::AddrNotAvailable => "this host has no such address;",
                ErrorKind::PermissionDenied => "ports below 1024 need privileges;",
                _ => "",
            };
            let remedy = format!("{why} choose another with --listen ADDR:PORT");
            let remedy = if port.is_some() { remedy + " or --port N" } else { remedy };
            UsageError::because(format!("cannot listen on {wanted} ({})", remedy.trim()), error)
        })?;
        listener.set_nonblocking(true).context("cannot prepare the listening socket")?;
        let address = listener.local_addr().context("cannot read the listening address")?;
        Ok(Self { listener, exposure, address })
    }

    /// The port that was taken.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where a client on this host finds the hints, and who else can ask.
    pub(crate) fn place(&self) -> String {
        let url = self.url();
        let reach = match self.address.ip() {
            ip if ip.to_canonical().is_loopback() => return url,
            ip if ip.is_unspecified() => "on every address of this host".to_owned(),
            ip => format!("on {ip}"),
        };
        let asked = if self.exposure.is_open() { "no token asked" } else { "with the token" };
        format!("{url} ({reach}, {asked})")
    }

    fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Serves the newest of `boards` until the stop.
    pub(crate) fn run(
        self,
        boards: watch::Receiver<Arc<Board>>,
        range: TpsRange,
        stale_after: Duration,
        when_stale: WhenStale,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let options = Options { range, stale_after, when_stale, exposure: self.exposure };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("hints")
            .enable_all()
            .build()
            .context("cannot start the hint server")?;
        let served: anyhow::Result<()> = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)
                .context("cannot start the hint server")?;
            serve(listener, router(boards, options), limits(), stop.asked()).await;
            Ok(())
        });
        runtime.shutdown_timeout(PATIENCE);
        served
    }
}
