//! `GET /metrics`: the state of the host's hint and of the server, in the Prometheus text format (OpenMetrics).
//!
//! Labels have few, fixed values: a path that does not exist counts as `other`, and no metric carries an address.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use netdiag_http::GivenUp;
use netdiag_pacer::{Hint, State};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::board::Board;
use crate::bus::BusStatus;

type Float = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    path: &'static str,
    status: u16,
}

/// The server's metrics. Gauges follow the board at every scrape.
pub(crate) struct Metrics {
    registry: Registry,
    current: Float,
    target: Float,
    health: Float,
    anomaly_score: Float,
    anomaly: Gauge,
    hold: Gauge,
    state: Family<StateLabel, Gauge>,
    flows: Gauge<f64, AtomicU64>,
    stalled: Gauge<f64, AtomicU64>,
    age: Float,
    lost: Family<KindLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The bus counts by itself; a scrape reads it.
#[derive(Debug)]
struct BusCollector(Arc<BusStatus>);

impl Collector for BusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::from(self.0.is_connected()));
        let help = "1 while there is a connection to the message bus";
        gauge.encode(encoder.encode_descriptor(
            "bus_connected",
            help,
            None,
            gauge.metric_type(),
        )?)?;
        let counters = [
            ("bus_connections", "Connections made to the message bus", self.0.connections()),
            ("bus_messages", "Hints pushed over the message bus", self.0.published()),
            (
                "bus_messages_dropped",
                "Hints that could not be pushed while they were new",
                self.0.dropped(),
            ),
            ("bus_values_kept", "Last values written for those who join late", self.0.kept()),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count);
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

/// The server counts by itself whom it turns away.
#[derive(Debug)]
struct GivenUpCollector(GivenUp);

impl Collector for GivenUpCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(given_up) = self;
        let counters = [
            (
                "http_connections_given_up",
                "Connections ended by the kernel because nobody read them",
                given_up.count(),
            ),
            (
                "http_requests_too_often",
                "Requests refused because their address had asked too often",
                given_up.too_often(),
            ),
            (
                "http_requests_wrong_token",
                "Requests refused because their address had shown too many wrong tokens",
                given_up.wrong_tokens(),
            ),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count);
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn new(bus: Option<Arc<BusStatus>>, given_up: GivenUp) -> Self {
        let mut registry = Registry::with_prefix("netdiag");
        registry.register_collector(Box::new(GivenUpCollector(given_up)));
        if let Some(bus) = bus {
            registry.register_collector(Box::new(BusCollector(bus)));
        }
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of netdiag", version);
        let metrics = Self {
            current: Float::default(),
            target: Float::default(),
            health: Float::default(),
            anomaly_score: Float::default(),
            anomaly: Gauge::default(),
            hold: Gauge::default(),
            state: Family::default(),
            flows: Gauge::default(),
            stalled: Gauge::default(),
            age: Float::default(),
            lost: Family::default(),
            requests: Family::default(),
            registry: Registry::default(),
        };
        let tokens = || Unit::Other("tokens_per_second".to_owned());
        let r = &mut registry;
        r.register_with_unit(
            "hint_current",
            "Recommended rate now",
            tokens(),
            metrics.current.clone(),
        );
        r.register_with_unit(
            "hint_target",
            "Rate the hint is heading for",
            tokens(),
            metrics.target.clone(),
        );
        r.register("hint_health", "Link health, 0 to 1", metrics.health.clone());
        r.register("hint_anomaly_score", "Anomaly score, 0 to 1", metrics.anomaly_score.clone());
        r.register("hint_anomaly", "1 while the anomaly light is on", metrics.anomaly.clone());
        r.register("hint_hold", "1 while generation should be held", metrics.hold.clone());
        r.register(
            "hint_state",
            "1 for the present state, 0 for the others",
            metrics.state.clone(),
        );
        r.register("flows", "TCP connections that match", metrics.flows.clone());
        r.register(
            "stalled_flows",
            "Connections whose data waits without an ACK",
            metrics.stalled.clone(),
        );
        r.register_with_unit(
            "telemetry_age",
            "Age of the telemetry",
            Unit::Seconds,
            metrics.age.clone(),
        );
        r.register(
            "probe_lost",
            "What the probe had no room for since it started",
            metrics.lost.clone(),
        );
        r.register("http_requests", "Requests answered", metrics.requests.clone());
        Self { registry, ..metrics }
    }

    pub(crate) fn count(&self, path: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { path, status }).inc();
    }

    /// The text of a scrape: `hint` is the host's as it is now, `age` that of its telemetry if there is any.
    pub(crate) fn encode(&self, board: &Board, hint: &Hint, age: Option<Duration>) -> String {
        self.current.set(hint.current_tps.get());
        self.target.set(hint.target_tps.get());
        self.health.set(hint.health);
        self.anomaly_score.set(hint.anomaly_score);
        self.anomaly.set(hint.anomaly.into());
        self.hold.set(hint.hold.into());
        for state in State::ALL {
            let label = StateLabel { state: state.as_str() };
            self.state.get_or_create(&label).set((state == hint.state).into());
        }
        let stalled = board.streams().iter().filter(|s| s.sample.stalled_flows > Some(0)).count();
        // NaN is Prometheus' own word for "no value".
        let known = |flows: usize| if board.host_only { f64::NAN } else { flows as f64 };
        self.flows.set(known(board.streams().len()));
        self.stalled.set(known(stalled));
        self.age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
        for &(kind, count) in &board.lost {
            let count = count.try_into().unwrap_or(i64::MAX);
            self.lost.get_or_create(&KindLabel { kind }).set(count);
        }
        let mut text = String::new();
        // Encoding into a String fails only if a metric's own encoding does, and these are the library's.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
