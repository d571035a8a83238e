//! What a gateway is told: its engines, its limits, how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use netdiag_http::{Exposure, Limits, Pseudonyms};
use netdiag_metrics::ExportStatus;
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;
use rustls::RootCertStore;
use tokio_rustls::TlsAcceptor;

use crate::adapter::Adapter;
use crate::upstream::UpstreamUrl;
use crate::upstream::health::HealthCheck;

/// How a gateway behaves.
#[derive(Clone)]
pub struct Settings {
    /// The engines, at least one.
    pub upstreams: Vec<UpstreamUrl>,
    /// The authorities that https engines are told by ([`netdiag_http::authorities`]); `None`: those that this system trusts.
    pub authorities: Option<RootCertStore>,
    /// How they are held for clients that take nothing.
    pub adapter: Adapter,
    /// How their health is asked for.
    pub health: HealthCheck,
    /// Who may ask.
    pub exposure: Exposure,
    /// What clients' connections are answered with, if by TLS; see [`crate::acceptor`].
    pub tls: Option<TlsAcceptor>,
    /// What one connection may do.
    pub limits: Limits,
    /// What one request may be, and take.
    pub requests: RequestLimits,
    /// How event streams are paced; `None`: as fast as clients take them.
    pub pace: Option<Pace>,
    /// Time without an event after which a stream gets a comment, so that nobody on its way takes it for dead; `None`: never.
    pub keep_alive: Option<Duration>,
    /// Time that a stream whose client's connection is gone waits for it to come back; `None`: none, and its work ends at once.
    pub resume_window: Option<Duration>,
    /// Time that streams are given to end by themselves once the gateway stops. Then they get a last event.
    pub drain: Duration,
    /// What becomes of metrics that are pushed elsewhere, for metrics; `None` where they are not.
    pub exports: Option<ExportStatus>,
    /// What clients' addresses are replaced by wherever they are shown, logged, or told to engines; `None`: by nothing.
    pub pseudonyms: Option<Pseudonyms>,
}

impl Settings {
    /// A client's address as it may be shown.
    pub(crate) fn shown(&self, client: SocketAddr) -> SocketAddr {
        self.pseudonyms.as_ref().map_or(client, |pseudonyms| pseudonyms.socket(client))
    }
}

/// How event streams are paced, each by what the kernel says of its client's connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Least and greatest rate of a stream.
    pub range: TpsRange,
    /// How fast clients read; `None`: as people do. Who reads slower than the engine generates is sent no less, only less on trust.
    pub reading: Option<Tps>,
    /// Time that a stream is held for a client that acknowledges nothing. Then it is given up.
    pub hold_max: Duration,
}

/// What one request may be, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests that are being answered, at once.
    pub at_once: usize,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Time without a piece of a request's body.
    pub body_time: Duration,
    /// Time for a connection to an engine.
    pub connect_time: Duration,
    /// Time for the head of an engine's answer. Engines let requests wait in a queue, some before they answer at all.
    pub head_time: Duration,
    /// Time without a byte from an engine, in the middle of an answer.
    pub silent_time: Duration,
    /// Time for a whole answer.
    pub total_time: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            // Twice what one gateway is meant to carry; each costs some 16 KB.
            at_once: 10_000,
            // Several large pictures in Base64.
            body_bytes: 64 << 20,
            body_time: Duration::from_secs(30),
            // Engines are near: a SYN that is lost twice is answered within 3 s.
            connect_time: Duration::from_secs(5),
            // What the SDKs of OpenAI wait for.
            head_time: Duration::from_secs(600),
            // A long prompt that is put between two tokens of a small engine.
            silent_time: Duration::from_secs(300),
            total_time: Duration::from_secs(3600),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// Nothing to pass requests on to.
    #[error("there is no engine: give at least one")]
    NoUpstream,
    /// The same engine twice would be chosen twice as often.
    #[error("engine {0} is given twice")]
    Twice(UpstreamUrl),
    /// The pace.
    #[error(transparent)]
    Pace(#[from] netdiag_embed::InvalidSettings),
    /// TLS to an engine.
    #[error(transparent)]
    Tls(#[from] netdiag_http::TlsError),
}

/// What connections may do by default: as for our other servers, with room for many streams and for long heads.
pub fn default_limits() -> Limits {
    Limits {
        connections: 20_000,
        // Cookies and traces of a whole chain of proxies.
        head_bytes: 64 * 1024,
        headers: 100,
        // Clients keep connections for another request; most close them within a minute themselves.
        head_time: Duration::from_secs(30),
        // Longer than the silences that streams are held through.
        send_time: Duration::from_secs(120),
        send_buffer: None,
        ..Limits::default()
    }
}
