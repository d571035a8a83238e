//! The gateway's metrics, in Prometheus' text formats.
//!
//! Names are OpenTelemetry's where it has some (semantic conventions for generative AI, metrics of servers), written as Prometheus
//! wants them. Labels have few values: models that nobody answers for are not counted, and after [`MOST_MODELS`] all others are
//! `other`.

mod labels;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netdiag_http::GivenUp;
use netdiag_metrics::{Described, ExportStatus, FamilyDescription};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use crate::adapter::told;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::live::{About, Counts};
use crate::meter::{End, Meter, Summary};
use crate::upstream::Upstreams;
use labels::{Answered, CauseLabel, Ended, Engine, Fate, Operation, Ordered, Outcome};

/// Models with a label of their own. A gateway has a handful; whatever clients write must not fill memory.
const MOST_MODELS: usize = 64;

/// The bounds that the conventions give.
const FIRST_TOKEN: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const DURATION: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

type OfOperation = Family<Operation, Histogram, fn() -> Histogram>;
type OfOutcome = Family<Outcome, Histogram, fn() -> Histogram>;

/// All of them.
pub(crate) struct Metrics {
    described: Described,
    first_token: OfOperation,
    per_token: OfOperation,
    duration: OfOutcome,
    requests: Family<Answered, Counter>,
    retries: Counter,
    orders: Family<Ordered, Counter>,
    streams: Gauge,
    parked: Gauge,
    resumed: Counter,
    expired: Counter,
    ended: Family<Ended, Counter>,
    tokens: Family<Fate, Counter>,
    seconds: Family<CauseLabel, Counter<f64, AtomicU64>>,
    engine_up: Family<Engine, Gauge>,
    engine_requests: Family<Engine, Gauge>,
    models: Mutex<BTreeSet<String>>,
}

/// The families of a gateway, those of an export among them.
pub fn gateway_metrics() -> Vec<FamilyDescription> {
    let (clients, admin, exports) = Default::default();
    Metrics::new(&clients, &admin, Some(&exports)).described.families().to_vec()
}

impl Metrics {
    /// Those of a gateway whose two listeners count whom they turn away in `clients` and `admin`.
    pub(crate) fn new(clients: &GivenUp, admin: &GivenUp, exports: Option<&ExportStatus>) -> Self {
        let metrics = Self {
            described: Described::new(),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN)),
            per_token: Family::new_with_constructor(|| Histogram::new(PER_TOKEN)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION)),
            requests: Family::default(),
            retries: Counter::default(),
            orders: Family::default(),
            streams: Gauge::default(),
            parked: Gauge::default(),
            resumed: Counter::default(),
            expired: Counter::default(),
            ended: Family::default(),
            tokens: Family::default(),
            seconds: Family::default(),
            engine_up: Family::default(),
            engine_requests: Family::default(),
            models: Mutex::default(),
        };
        let mut described = Described::new();
        metrics.register_times(&mut described);
        metrics.register(&mut described);
        for (prefix, given_up) in [("netdiag_gateway", clients), ("netdiag_gateway_admin", admin)] {
            let mut ours = described.within(prefix);
            for (name, help, figure) in GivenUp::FIGURES {
                let given_up = given_up.clone();
                ours.count(name, help, move || figure(&given_up));
            }
        }
        if let Some(exports) = exports {
            exports.register(&mut described);
        }
        Self { described, ..metrics }
    }

    fn register_times(&self, described: &mut Described) {
        let mut server = described.within("gen_ai_server");
        server.add_with_unit(
            "time_to_first_token",
            Unit::Seconds,
            "From a request to the first token of its stream",
            self.first_token.clone(),
        );
        server.add_with_unit(
            "time_per_output_token",
            Unit::Seconds,
            "From the first token of a stream to its last, for each after the first",
            self.per_token.clone(),
        );
        server.add_with_unit(
            "request_duration",
            Unit::Seconds,
            "From a request to the end of its stream",
            self.duration.clone(),
        );
    }

    fn register(&self, described: &mut Described) {
        let mut ours = described.within("netdiag_gateway");
        ours.version(env!("CARGO_PKG_VERSION"));
        ours.add("requests", "Requests answered, by API and status", self.requests.clone());
        ours.add("retries", "Requests sent to another engine", self.retries.clone());
        ours.add(
            "engine_calls",
            "Calls that told an engine what to do with a request, by what came of them",
            self.orders.clone(),
        );
        ours.add("streams", "Event streams that are being passed on", self.streams.clone());
        ours.add(
            "streams_parked",
            "Event streams that wait for their clients to come back",
            self.parked.clone(),
        );
        ours.add(
            "streams_resumed",
            "Times that a client has come back for its stream",
            self.resumed.clone(),
        );
        ours.add(
            "streams_expired",
            "Event streams whose clients did not come back in time",
            self.expired.clone(),
        );
        ours.add("streams_ended", "Event streams, by how they ended", self.ended.clone());
        ours.add(
            "tokens",
            "Tokens of event streams, by what was known of them when their streams ended; the last ones sent are rarely acked by then",
            self.tokens.clone(),
        );
        ours.add_with_unit(
            "stream_wait",
            Unit::Seconds,
            "Time of event streams, by what they waited for",
            self.seconds.clone(),
        );
        ours.add("engine_up", "1 while the engine is taken for well", self.engine_up.clone());
        ours.add(
            "engine_requests",
            "Requests that the engine is answering",
            self.engine_requests.clone(),
        );
    }

    /// A request was answered, or its answer has begun.
    pub(crate) fn answered(&self, dialect: Dialect, status: u16) {
        self.requests.get_or_create(&Answered { api: dialect.name(), status }).inc();
    }

    /// A request goes to another engine.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// A client has come back for its stream.
    pub(crate) fn resumed(&self) {
        self.resumed.inc();
    }

    /// A client has not.
    pub(crate) fn expired(&self) {
        self.expired.inc();
    }

    /// An engine was told what to do with a request.
    pub(crate) fn ordered(&self, order: told::Order, outcome: told::Outcome) {
        let label = Ordered { order: order.as_str(), outcome: outcome.as_str() };
        self.orders.get_or_create(&label).inc();
    }

    /// A stream is over.
    pub(crate) fn stream_ended(
        &self,
        about: &About,
        end: End,
        failure: Option<&Failure>,
        meter: &Meter,
        summary: &Summary,
    ) {
        let gen_ai_operation_name = about.dialect.operation();
        let model = self.model(about.model.as_deref());
        let operation = Operation { gen_ai_operation_name, gen_ai_request_model: model.clone() };
        let observe = |family: &OfOperation, time: Option<Duration>| {
            if let Some(time) = time {
                family.get_or_create(&operation).observe(time.as_secs_f64());
            }
        };
        observe(&self.first_token, meter.ttft());
        observe(&self.per_token, meter.tpot());
        let error_type = match (end, failure) {
            (_, Some(failure)) => failure.code(),
            (End::ClientGone, None) => "client_gone",
            _ => "",
        };
        let outcome = Outcome { gen_ai_operation_name, gen_ai_request_model: model, error_type };
        self.duration.get_or_create(&outcome).observe(about.asked.elapsed().as_secs_f64());
        self.ended.get_or_create(&Ended { end: end.as_str() }).inc();
        let tokens = &summary.tokens;
        for (fate, count) in [
            ("generated", tokens.generated),
            ("sent", tokens.sent),
            ("acked", tokens.acked.unwrap_or_default()),
            ("wasted", tokens.wasted),
        ] {
            self.tokens.get_or_create(&Fate { fate }).inc_by(count);
        }
        if let Some(path) = &summary.path {
            for (cause, time) in path.cause_seconds.each() {
                let (cause, time) = (cause.as_str(), time.as_secs_f64());
                self.seconds.get_or_create(&CauseLabel { cause }).inc_by(time);
            }
        }
    }

    /// The text of a scrape.
    pub(crate) fn encode(&self, streams: Counts, engines: &Upstreams) -> String {
        self.streams.set(streams.taken.try_into().unwrap_or(i64::MAX));
        self.parked.set(streams.parked.try_into().unwrap_or(i64::MAX));
        for engine in engines.all() {
            let label = Engine { engine: engine.url().to_string() };
            self.engine_up.get_or_create(&label).set(engine.is_healthy().into());
            let requests = engine.outstanding().try_into().unwrap_or(i64::MAX);
            self.engine_requests.get_or_create(&label).set(requests);
        }
        self.described.encode()
    }

    fn model(&self, asked: Option<&str>) -> String {
        let Some(asked) = asked else { return String::new() };
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.contains(asked) {
            return asked.to_owned();
        }
        if models.len() >= MOST_MODELS {
            return "other".to_owned();
        }
        models.insert(asked.to_owned());
        asked.to_owned()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
