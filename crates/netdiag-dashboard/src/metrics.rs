//! `GET /metrics`: who watches, in Prometheus' text formats.

use std::sync::Arc;

use netdiag_http::GivenUp;
use netdiag_metrics::{Described, ExportStatus, FamilyDescription};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The counters of one dashboard; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    described: Arc<Described>,
    pub(crate) viewers: Gauge,
    pub(crate) dropped: Counter,
    pub(crate) refused: Counter,
}

/// The families of a dashboard, those of an export among them.
pub fn dashboard_metrics() -> Vec<FamilyDescription> {
    let metrics = Metrics::new(&GivenUp::default(), Some(&ExportStatus::default()));
    metrics.described.families().to_vec()
}

impl Metrics {
    pub(crate) fn new(given_up: &GivenUp, exports: Option<&ExportStatus>) -> Self {
        let mut described = Described::new();
        let (viewers, dropped, refused) =
            (Gauge::default(), Counter::default(), Counter::default());
        let mut ours = described.within("netdiag_dashboard");
        ours.version(env!("CARGO_PKG_VERSION"));
        ours.add("viewers", "Event streams open", viewers.clone());
        ours.add(
            "viewers_dropped",
            "Event streams ended because they were read too slowly",
            dropped.clone(),
        );
        ours.add(
            "viewers_refused",
            "Event streams refused because too many were open",
            refused.clone(),
        );
        for (name, help, figure) in GivenUp::FIGURES {
            let given_up = given_up.clone();
            ours.count(name, help, move || figure(&given_up));
        }
        if let Some(exports) = exports {
            exports.register(&mut described);
        }
        Self { described: Arc::new(described), viewers, dropped, refused }
    }

    pub(crate) fn encode(&self) -> String {
        self.described.encode()
    }
}
