//! `GET /metrics`: who watches, in the Prometheus text format (OpenMetrics).

use std::fmt;
use std::sync::Arc;

use netdiag_http::GivenUp;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters of one dashboard; all clones are the same.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    pub(crate) viewers: Gauge,
    pub(crate) dropped: Counter,
    pub(crate) refused: Counter,
    given_up: GivenUp,
    given_up_told: Gauge,
    too_often_told: Gauge,
    wrong_tokens_told: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new(given_up: GivenUp) -> Self {
        let mut registry = Registry::with_prefix("netdiag_dashboard");
        let (viewers, dropped, refused) =
            (Gauge::default(), Counter::default(), Counter::default());
        registry.register("viewers", "Event streams open", viewers.clone());
        registry.register(
            "viewers_dropped",
            "Event streams ended because they were read too slowly",
            dropped.clone(),
        );
        registry.register(
            "viewers_refused",
            "Event streams refused because too many were open",
            refused.clone(),
        );
        let given_up_told = Gauge::default();
        registry.register(
            "connections_given_up",
            "Connections ended by the kernel because nobody read them, since the start",
            given_up_told.clone(),
        );
        let (too_often_told, wrong_tokens_told) = (Gauge::default(), Gauge::default());
        registry.register(
            "requests_too_often",
            "Requests refused because their address had asked too often, since the start",
            too_often_told.clone(),
        );
        registry.register(
            "requests_wrong_token",
            "Requests refused because their address had shown too many wrong tokens, since the start",
            wrong_tokens_told.clone(),
        );
        Self {
            registry: Arc::new(registry),
            viewers,
            dropped,
            refused,
            given_up,
            given_up_told,
            too_often_told,
            wrong_tokens_told,
        }
    }

    pub(crate) fn encode(&self) -> String {
        let given_up = &self.given_up;
        for (told, count) in [
            (&self.given_up_told, given_up.count()),
            (&self.too_often_told, given_up.too_often()),
            (&self.wrong_tokens_told, given_up.wrong_tokens()),
        ] {
            told.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Encoding into a String fails only if a metric's own encoding does, and these are the library's.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
