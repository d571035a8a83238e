//! A server of ours as it is run: bound early, so that a port in use is told before anything else starts, on threads of its
//! own, and served until the stop.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use netdiag_http::{Exposure, GivenUp, Limits, serve};

use crate::args::AccessArgs;
use crate::args::secret::token;
use crate::failure::UsageError;
use crate::open_files::raise_limit;
use crate::place::Places;
use crate::stop::{AskOnDrop, Stop};

/// How long open event streams may delay the end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Descriptors that connections must leave to the probe, the files and the rest of the process.
const SPARE_FILES: u64 = 64;

/// Servers that one process may have: hints and dashboard share the descriptors.
const SERVERS: u64 = 2;

/// A server's limits, within those of the process: who connects must not use up the descriptors that telemetry needs.
fn limits(rate: Option<NonZeroU32>) -> Limits {
    let usual = Limits::default();
    let room = raise_limit().saturating_sub(SPARE_FILES);
    let room = usize::try_from((room / SERVERS).max(1)).unwrap_or(usize::MAX);
    Limits { connections: usual.connections.min(room), rate, ..usual }
}

/// A listener, and who may ask.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    exposure: Exposure,
    address: SocketAddr,
    /// Requests per second from one address.
    rate: Option<NonZeroU32>,
}

impl Listening {
    /// Listens on `wanted`, for those whom `access` lets in; `flags` are how to choose another address.
    pub(crate) fn bind(
        wanted: SocketAddr,
        access: &AccessArgs,
        flags: &str,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let token = token(access.auth_token_file.as_deref(), "auth_token_file", places)?;
        let exposure = Exposure::try_new(wanted, token, access.no_auth)
            .map_err(|error| UsageError::new(error.to_string()))?;
        let listener = TcpListener::bind(wanted).map_err(|error| {
            let why = match error.kind() {
                ErrorKind::AddrInUse => "the port is taken, by another program or by another server of this command; end it, or",
                ErrorKind::AddrNotAvailable => "this host has no such address;",
                ErrorKind::PermissionDenied => "ports below 1024 need privileges;",
                _ => "",
            };
            let remedy = format!("{why} choose another with {flags}");
            UsageError::because(format!("cannot listen on {wanted} ({})", remedy.trim()), error)
        })?;
        listener.set_nonblocking(true).context("cannot prepare the listening socket")?;
        let address = listener.local_addr().context("cannot read the listening address")?;
        Ok(Self { listener, exposure, address, rate: access.rate_limit.0 })
    }

    /// The port that was taken.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Which of all processes this is, as Prometheus names them: by host and port, which is the same after a restart.
    pub(crate) fn instance(&self) -> String {
        format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), self.port())
    }

    /// Who may ask.
    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// The listener itself, for a server that is no router, and who may ask.
    pub(crate) fn into_parts(self) -> (TcpListener, Exposure) {
        (self.listener, self.exposure)
    }

    /// Where a client on this host finds the server, and who else can ask.
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

    /// Serves `router` on this thread and `threads` others until the stop.
    pub(crate) fn serve(
        self,
        router: Router,
        name: &str,
        threads: usize,
        given_up: GivenUp,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let cannot = || format!("cannot start the {name} server");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .with_context(cannot)?;
        let served: anyhow::Result<()> = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener).with_context(cannot)?;
            serve(listener, router, limits(self.rate), given_up, stop.asked()).await;
            Ok(())
        });
        runtime.shutdown_timeout(PATIENCE);
        served
    }

    /// The same beside this thread. If it fails, everybody is asked to stop.
    pub(crate) fn spawn(
        self,
        router: Router,
        name: &'static str,
        threads: usize,
        given_up: GivenUp,
        stop: &Stop,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
        let stop = stop.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _end = AskOnDrop(&stop);
                self.serve(router, name, threads, given_up, &stop)
            })
            .with_context(|| format!("cannot start the {name} server"))
    }
}
