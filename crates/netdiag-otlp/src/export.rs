//! Exports, again and again, until the process ends.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use netdiag_metrics::{ExportStatus, Scrape};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::endpoint::Endpoint;
use crate::exposition::Unreadable;
use crate::headers::Headers;
use crate::post::{Answer, connector, post};
use crate::translate::{Translator, attribute};

/// Time before a collector is asked once more, doubled from one failure to the next: what OTLP asks of clients.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

/// Time for the last export, when the process ends. A collector that is there needs milliseconds.
const LAST: Duration = Duration::from_millis(500);

/// Most characters of a collector's own words that are logged.
const LONGEST_WORDS: usize = 200;

/// Where metrics are pushed, and how.
#[derive(Clone)]
pub struct Settings {
    /// The collector.
    pub endpoint: Endpoint,
    /// What it is shown besides.
    pub headers: Headers,
    /// How its certificate is checked; needed for https.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Time from one export to the next.
    pub interval: Duration,
    /// Time that it has to answer.
    pub timeout: Duration,
    /// Who we are: `service.name`, `service.instance.id` and so on.
    pub resource: Vec<(String, String)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Pushes what `scrapes` tell, at once and then every interval, until `stop`, and then a last time. `found` is told where the
/// collector is.
pub async fn export(
    settings: &Settings,
    scrapes: &[Scrape],
    status: &ExportStatus,
    found: impl Fn(&[SocketAddr]),
    stop: impl Future<Output = ()>,
) {
    let tls = settings.tls.clone().map(connector);
    let mut exporter = Exporter {
        settings,
        scrapes,
        status,
        found,
        tls,
        translator: Translator::new(now()),
        is_away: false,
        has_complained: false,
    };
    let mut stop = pin!(stop);
    let mut ticks = interval(settings.interval);
    // Those that were missed are in the next one.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let exporting = async {
        loop {
            ticks.tick().await;
            exporter.deliver(Instant::now() + settings.interval).await;
        }
    };
    tokio::select! {
        () = &mut stop => {}
        () = exporting => {}
    }
    // What was counted since is told as well, if somebody listens.
    if timeout(LAST, exporter.once(LAST)).await.is_err() {
        status.dropped();
    }
}

struct Exporter<'a, F> {
    settings: &'a Settings,
    scrapes: &'a [Scrape],
    status: &'a ExportStatus,
    found: F,
    tls: Option<TlsConnector>,
    translator: Translator,
    /// It was said that the collector cannot be had.
    is_away: bool,
    /// It was said that it rejects some points.
    has_complained: bool,
}

/// What became of an attempt.
enum Attempt {
    Taken,
    Dropped,
    /// To be tried again, after this time if the collector says so.
    Failed(Option<Duration>),
}

impl<F: Fn(&[SocketAddr])> Exporter<'_, F> {
    /// Tries until `deadline`, when there are newer metrics anyway. Each attempt tells what is so at that moment.
    async fn deliver(&mut self, deadline: Instant) {
        let (mut pause, longest) = PAUSES;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = match self.once(left.min(self.settings.timeout)).await {
                Attempt::Taken | Attempt::Dropped => return,
                Attempt::Failed(wished) => wished.unwrap_or(pause).max(pause),
            };
            // Compared and not added: a collector may ask for more time than clocks can tell.
            if wait >= deadline.saturating_duration_since(Instant::now()) {
                self.status.dropped();
                return;
            }
            sleep(wait).await;
            self.status.retries();
            pause = (pause * 2).min(longest);
        }
    }

    async fn once(&mut self, patience: Duration) -> Attempt {
        let body = match self.body() {
            Ok(body) => body,
            Err(error) => {
                self.complain(&error.to_string());
                self.status.dropped();
                return Attempt::Dropped;
            }
        };
        let Settings { endpoint, headers, .. } = self.settings;
        let asked = post(endpoint, headers, self.tls.as_ref(), body, &self.found);
        let (why, attempt) = match timeout(patience, asked).await {
            Ok(Ok(Answer::Taken { rejected, why })) => {
                self.taken(rejected, &why);
                return Attempt::Taken;
            }
            Ok(Ok(Answer::Refused(status))) => {
                self.status.dropped();
                (format!("answers {status}"), Attempt::Dropped)
            }
            Ok(Ok(Answer::Later(status, after))) => {
                (format!("answers {status}"), Attempt::Failed(after))
            }
            Ok(Err(error)) => (error.to_string(), Attempt::Failed(None)),
            Err(_) => ("did not answer in time".to_owned(), Attempt::Failed(None)),
        };
        if !std::mem::replace(&mut self.is_away, true) {
            let place = &self.settings.endpoint;
            tracing::warn!("otlp {place}: {why}; metrics are not exported meanwhile");
        }
        attempt
    }

    fn taken(&mut self, rejected: u64, why: &str) {
        if std::mem::replace(&mut self.is_away, false) {
            tracing::info!("otlp {}: takes metrics again", self.settings.endpoint);
        }
        self.status.took_but(rejected);
        if rejected > 0 {
            let words: String =
                why.chars().take(LONGEST_WORDS).flat_map(char::escape_debug).collect();
            self.complain(&format!("rejects {rejected} points: {words}"));
        }
    }

    /// Once: what is wrong with some points is wrong again in a minute.
    fn complain(&mut self, what: &str) {
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::warn!("otlp {}: {what}", self.settings.endpoint);
        }
    }

    fn body(&mut self) -> Result<Bytes, Unreadable> {
        let now = now();
        let mut metrics = Vec::new();
        for scrape in self.scrapes {
            metrics.extend(self.translator.translate(&scrape.now(), now)?);
        }
        self.translator.close(now);
        let scope = InstrumentationScope {
            name: "netdiag".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let attributes = &self.settings.resource;
        let attributes = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        Ok(request.encode_to_vec().into())
    }
}

/// Nanoseconds since 1970, as OTLP counts time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
