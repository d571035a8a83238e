//! An OpenAI-compatible streaming reverse proxy that paces, holds and diagnoses.
//!
//! ```text
//! client ⇄ socket ⇄ hyper's server ⇄ forward ─► engines (health, choice)
//!             │                         │
//!             │ TCP_INFO                └► body: polled from the client's side, reads the engine's connection itself
//! ```
//!
//! A request's way is [`forward`]; its answer is a body that the client's connection polls, and the engine's connection is
//! polled by that body ([`upstream::link`]). There is no task and no queue in between. So an engine is read exactly as fast
//! as its client takes it, and in the moment the client is gone the engine knows.
//!
//! Invariants: a request is sent a second time only if nobody can tell. An event stream ends with a whole event. What
//! clients and engines tell each other is never logged.

#![forbid(unsafe_code)]

mod adapter;
mod admin;
mod body;
mod dialect;
mod events;
pub mod examine;
mod failure;
mod flow;
mod forward;
mod framing;
mod headers;
mod lane;
mod live;
mod meter;
mod metrics;
mod passing;
mod question;
mod request_body;
mod resume;
mod segment;
mod server;
mod settings;
mod socket;
mod source;
pub mod sse;
mod tls;
mod trace;
mod upstream;
mod valve;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use netdiag_http::{GivenUp, Visitors};
use netdiag_metrics::Scrape;
use tokio::sync::{Semaphore, watch};

pub use adapter::Adapter;
pub use dialect::Dialect;
pub use live::StreamView;
pub use metrics::gateway_metrics;
pub use settings::{InvalidSettings, Pace, RequestLimits, Settings, default_limits};
pub use tls::acceptor;
pub use upstream::health::HealthCheck;
pub use upstream::{InvalidUpstream, UpstreamUrl};

use lane::Lanes;
use live::Registry;
use metrics::Metrics;
use upstream::Upstreams;

/// A gateway. All clones are the same one.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What every request has.
pub(crate) struct Shared {
    settings: Settings,
    upstreams: Upstreams,
    /// For requests that are being answered.
    places: Arc<Semaphore>,
    /// For calls that tell engines what to do.
    calls: Semaphore,
    live: Registry,
    metrics: Metrics,
    /// Who asks, and how often.
    visitors: Visitors,
    /// Whom the listener for operation turned away.
    admin: GivenUp,
    lanes: Option<Lanes>,
    phase: watch::Sender<Phase>,
}

/// How far a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Nobody new is let in, and what is in flight may end by itself.
    Draining,
    /// Streams get their last event, and who waits for an answer a refusal.
    Ending,
    /// Whoever is still there is cut off.
    Ended,
}

impl Gateway {
    /// A gateway that [`Gateway::serve`] runs.
    pub fn try_new(settings: Settings) -> Result<Self, InvalidSettings> {
        let engines = &settings.upstreams;
        if engines.is_empty() {
            return Err(InvalidSettings::NoUpstream);
        }
        if let Some(at) = (1..engines.len()).find(|&at| engines[..at].contains(&engines[at])) {
            return Err(InvalidSettings::Twice(engines[at].clone()));
        }
        // The system's authorities are a file to read, which plain engines do not need.
        let roots = match &settings.authorities {
            Some(authorities) => authorities.clone(),
            None if engines.iter().any(UpstreamUrl::is_tls) => netdiag_http::system_roots()?,
            None => rustls::RootCertStore::empty(),
        };
        let upstreams = Upstreams::new(engines, &tls::connector(roots)?);
        let places = Arc::new(Semaphore::new(settings.requests.at_once));
        let phase = watch::Sender::new(Phase::Serving);
        let lanes = settings.pace.map(Lanes::try_new).transpose()?;
        let given_up = GivenUp::default();
        let visitors = Visitors::new(settings.limits.rate, given_up.clone());
        let admin = GivenUp::default();
        let metrics = Metrics::new(&given_up, &admin, settings.exports.as_ref());
        Ok(Self(Arc::new(Shared {
            settings,
            upstreams,
            places,
            calls: Semaphore::new(adapter::told::CALLS),
            live: Registry::default(),
            metrics,
            visitors,
            admin,
            lanes,
            phase,
        })))
    }
}

impl Gateway {
    /// Whether requests can be answered: an engine is well, and the gateway does not end.
    pub fn is_ready(&self) -> bool {
        !self.0.is_draining() && self.0.has_engine()
    }

    /// What `/metrics` tells, for who wants it otherwise.
    pub fn metrics(&self) -> Scrape {
        let shared = Arc::clone(&self.0);
        Scrape::new(move || shared.scrape())
    }

    /// Where a server of [`Gateway::admin`] counts whom it turns away, for [`Gateway::metrics`] to tell.
    pub fn turned_away_by_admin(&self) -> GivenUp {
        self.0.admin.clone()
    }

    /// The event streams that are being passed on or wait for their clients, the oldest first.
    pub fn streams(&self) -> Vec<StreamView> {
        self.0.views()
    }
}

impl Shared {
    /// The streams with whom each waits for, which the pacer knows by the client's address.
    pub(crate) fn views(&self) -> Vec<StreamView> {
        let causes = self.lanes.as_ref().map(Lanes::causes).unwrap_or_default();
        let shown = causes.into_iter().map(|(peer, cause)| (self.settings.shown(peer), cause));
        let causes: HashMap<SocketAddr, &str> = shown.collect();
        let mut views = self.live.views();
        views.iter_mut().for_each(|view| view.cause = causes.get(&view.peer).copied());
        views
    }

    /// All metrics as they are now.
    pub(crate) fn scrape(&self) -> String {
        self.metrics.encode(self.live.counts(), &self.upstreams)
    }

    /// Some engine is well.
    pub(crate) fn has_engine(&self) -> bool {
        self.upstreams.all().iter().any(|engine| engine.is_healthy())
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// What comes of this, unless the gateway stops before: nobody waits for clients that may never say anything.
    pub(crate) async fn unless_draining<T>(&self, coming: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // Who has come by then is told.
            biased;
            came = coming => Some(came),
            () = self.reached(Phase::Draining) => None,
        }
    }

    /// How long a client may take nothing.
    pub(crate) fn hold_max(&self) -> Duration {
        self.settings.pace.map_or(Duration::MAX, |pace| pace.hold_max)
    }

    /// Waits until the gateway is so far.
    pub(crate) async fn reached(&self, phase: Phase) {
        // An error means that the sender is gone, and it is ours.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("engines", &self.0.settings.upstreams)
            .finish_non_exhaustive()
    }
}
