//! `GET /metrics`: the state of the host's hint and of the server, in Prometheus' text formats.
//!
//! Labels have few, fixed values: a path that does not exist counts as `other`, and no metric carries an address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netdiag_http::GivenUp;
use netdiag_metrics::{Bound, Described, ExportStatus, FamilyDescription, Label, Labels};
use netdiag_pacer::{Hint, State};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::board::Board;
use crate::bus::BusStatus;
use crate::routes::PATHS;

type Float = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Labels for StateLabel {
    const LABELS: &'static [Label] = &[Label {
        name: "state",
        values: "the states of a hint",
        bound: Bound::Most(State::ALL.len()),
    }];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Labels for KindLabel {
    const LABELS: &'static [Label] = &[Label {
        name: "kind",
        values: "`flows`, `rtt_samples`, `closings`",
        bound: Bound::Most(3),
    }];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    path: &'static str,
    status: u16,
}

impl Labels for RequestLabels {
    const LABELS: &'static [Label] = &[
        Label {
            name: "path",
            values: "the paths of the hint server, and `other`",
            bound: Bound::Most(PATHS.len() + 1),
        },
        Label {
            name: "status",
            values: "the statuses that it answers with",
            bound: Bound::Most(MOST_STATUSES),
        },
    ];
}

/// Statuses that our own routes and refusals answer with: 200, 400, 401, 403, 404, 405, 413, 421, 429, 500, 503, and room for a few.
const MOST_STATUSES: usize = 16;

/// The families of a hint server, those of a message bus and of an export among them.
pub fn hint_metrics() -> Vec<FamilyDescription> {
    let metrics =
        Metrics::new(Some(Arc::default()), &GivenUp::default(), Some(&ExportStatus::default()));
    metrics.described.families().to_vec()
}

/// The server's metrics. Gauges follow the board at every scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    described: Described,
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
    lost: Family<KindLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new(
        bus: Option<Arc<BusStatus>>,
        given_up: &GivenUp,
        exports: Option<&ExportStatus>,
    ) -> Self {
        let metrics = Self {
            described: Described::new(),
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
        };
        let mut described = Described::new();
        metrics.register(&mut described);
        let mut http = described.within("netdiag_http");
        for (name, help, figure) in GivenUp::FIGURES {
            let given_up = given_up.clone();
            http.count(name, help, move || figure(&given_up));
        }
        if let Some(bus) = bus {
            register_bus(&mut described, &bus);
        }
        if let Some(exports) = exports {
            exports.register(&mut described);
        }
        Self { described, ..metrics }
    }

    fn register(&self, described: &mut Described) {
        let tokens = || Unit::Other("tokens_per_second".to_owned());
        let mut r = described.within("netdiag");
        r.version(env!("CARGO_PKG_VERSION"));
        r.add_with_unit("hint_current", tokens(), "Recommended rate now", self.current.clone());
        let target = self.target.clone();
        r.add_with_unit("hint_target", tokens(), "Rate the hint is heading for", target);
        r.add("hint_health", "Link health, 0 to 1", self.health.clone());
        r.add("hint_anomaly_score", "Anomaly score, 0 to 1", self.anomaly_score.clone());
        r.add("hint_anomaly", "1 while the anomaly light is on", self.anomaly.clone());
        r.add("hint_hold", "1 while generation should be held", self.hold.clone());
        r.add("hint_state", "1 for the present state, 0 for the others", self.state.clone());
        r.add("flows", "TCP connections that match", self.flows.clone());
        let stalled = self.stalled.clone();
        r.add("stalled_flows", "Connections whose data waits without an ACK", stalled);
        let age = self.age.clone();
        r.add_with_unit("telemetry_age", Unit::Seconds, "Age of the telemetry", age);
        r.add("probe_lost", "What the probe had no room for", self.lost.clone());
        r.add("http_requests", "Requests answered", self.requests.clone());
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
            // The probe counts; it may begin anew, as counters may.
            self.lost.get_or_create(&KindLabel { kind }).inner().store(count, Ordering::Relaxed);
        }
        self.described.encode()
    }
}

/// The bus counts by itself; a scrape reads it.
fn register_bus(described: &mut Described, bus: &Arc<BusStatus>) {
    let mut ours = described.within("netdiag_bus");
    let status = Arc::clone(bus);
    let connected = move || f64::from(u8::from(status.is_connected()));
    ours.measure("connected", "1 while there is a connection to the message bus", connected);
    type Figure = fn(&BusStatus) -> u64;
    let counters: [(&str, &str, Figure); 4] = [
        ("connections", "Connections made to the message bus", BusStatus::connections),
        ("messages", "Hints pushed over the message bus", BusStatus::published),
        (
            "messages_dropped",
            "Hints that could not be pushed while they were new",
            BusStatus::dropped,
        ),
        ("values_kept", "Last values written for those who join late", BusStatus::kept),
    ];
    for (name, help, figure) in counters {
        let status = Arc::clone(bus);
        ours.count(name, help, move || figure(&status));
    }
}
