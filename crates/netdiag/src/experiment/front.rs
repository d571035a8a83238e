//! The gateway between an arm's clients and its engine, in the server's namespace.
//!
//! It has threads of its own that were started there: its connections to the engine are made by them, and a thread's namespace is
//! that of whoever starts it. Invariant: it ends with its handle.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;
use netdiag_gateway::{
    Adapter, Gateway, HealthCheck, Pace, RequestLimits, Settings, default_limits,
};
use netdiag_http::Exposure;
use netdiag_lab::Lab;
use netdiag_pacer::TpsRange;
use tokio::runtime::{Builder, Runtime};

use super::conditions::Policy;
use super::cpu::WORKER;

/// As many as engine and clients have.
const THREADS: usize = 2;

/// How long a client may take nothing: as `netdiag gateway` has it.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// A running gateway.
pub(super) struct Front(Option<Runtime>);

impl Front {
    /// Starts it on `listen`, in front of `engine`. `carry` is a gateway that paces and holds the engine by its own calls, `none` one
    /// that passes on as fast as clients take it.
    pub(super) fn start(
        lab: &Lab,
        policy: Policy,
        [listen, engine]: [SocketAddr; 2],
        range: TpsRange,
    ) -> anyhow::Result<Self> {
        let paced = policy == Policy::Carry;
        let pace = Pace { range, reading: None, hold_max: HOLD_MAX };
        let settings = Settings {
            upstreams: vec![format!("http://{engine}").parse()?],
            adapter: if paced { Adapter::Netdiag } else { Adapter::Generic },
            health: HealthCheck::default(),
            // Nobody is in this namespace but the arm's own clients.
            exposure: Exposure::try_new(listen, None, true)?,
            tls: None,
            authorities: None,
            limits: default_limits(),
            requests: RequestLimits::default(),
            pace: paced.then_some(pace),
            keep_alive: None,
            resume_window: None,
            drain: Duration::ZERO,
            exports: None,
            pseudonyms: None,
        };
        let gateway = Gateway::try_new(settings)?;
        let inside = lab.on_server(|| {
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            let mut runtime = Builder::new_multi_thread();
            let runtime =
                runtime.worker_threads(THREADS).thread_name(WORKER).enable_all().build()?;
            Ok::<_, io::Error>((listener, runtime))
        })?;
        let (listener, runtime) = inside.context("the gateway's port")?;
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(entered);
        runtime.spawn(async move { gateway.serve(listener, std::future::pending()).await });
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
