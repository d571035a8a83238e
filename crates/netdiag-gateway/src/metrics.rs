//! The gateway's metrics, in the Prometheus text format (OpenMetrics).
//!
//! Names are OpenTelemetry's where it has some (semantic conventions for generative AI, metrics of servers), written as Prometheus
//! wants them. Labels have few values: models that nobody answers for are not counted, and after [`MOST_MODELS`] all others are
//! `other`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netdiag_http::GivenUp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::adapter::told;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::live::{About, Counts};
use crate::meter::{End, Meter, Summary};
use crate::upstream::Upstreams;

/// Models with a label of their own. A gateway has a handful; whatever clients write must not fill memory.
const MOST_MODELS: usize = 64;

/// The bounds that the conventions give.
const FIRST_TOKEN: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const DURATION: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    error_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    api: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fate {
    fate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    end: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ordered {
    order: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Engine {
    engine: String,
}

type OfOperation = Family<Operation, Histogram, fn() -> Histogram>;
type OfOutcome = Family<Outcome, Histogram, fn() -> Histogram>;

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    first_token: OfOperation,
    per_token: OfOperation,
    duration: OfOutcome,
    requests: Family<Answered, Counter>,
    retries: Counter,
    orders: Family<Ordered, Counter>,
    streams: Gauge,
    parked: Gauge,
    too_often: Gauge,
    wrong_tokens: Gauge,
    resumed: Counter,
    expired: Counter,
    ended: Family<Ended, Counter>,
    tokens: Family<Fate, Counter>,
    seconds: Family<CauseLabel, Counter<f64, AtomicU64>>,
    engine_up: Family<Engine, Gauge>,
    engine_requests: Family<Engine, Gauge>,
    models: Mutex<BTreeSet<String>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let first_token: OfOperation = Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN));
        let per_token: OfOperation = Family::new_with_constructor(|| Histogram::new(PER_TOKEN));
        let duration: OfOutcome = Family::new_with_constructor(|| Histogram::new(DURATION));
        let seconds = || Unit::Seconds;
        let server = registry.sub_registry_with_prefix("gen_ai_server");
        server.register_with_unit(
            "time_to_first_token",
            "From a request to the first token of its stream",
            seconds(),
            first_token.clone(),
        );
        server.register_with_unit(
            "time_per_output_token",
            "From the first token of a stream to its last, for each after the first",
            seconds(),
            per_token.clone(),
        );
        server.register_with_unit(
            "request_duration",
            "From a request to the end of its stream",
            seconds(),
            duration.clone(),
        );
        let metrics = Self {
            first_token,
            per_token,
            duration,
            requests: Family::default(),
            retries: Counter::default(),
            orders: Family::default(),
            streams: Gauge::default(),
            parked: Gauge::default(),
            too_often: Gauge::default(),
            wrong_tokens: Gauge::default(),
            resumed: Counter::default(),
            expired: Counter::default(),
            ended: Family::default(),
            tokens: Family::default(),
            seconds: Family::default(),
            engine_up: Family::default(),
            engine_requests: Family::default(),
            models: Mutex::default(),
            registry: Registry::default(),
        };
        let ours = registry.sub_registry_with_prefix("netdiag_gateway");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "Version of netdiag", version);
        ours.register("requests", "Requests answered, by API and status", metrics.requests.clone());
        ours.register("retries", "Requests sent to another engine", metrics.retries.clone());
        ours.register(
            "engine_calls",
            "Calls that told an engine what to do with a request, by what came of them",
            metrics.orders.clone(),
        );
        ours.register("streams", "Event streams that are being passed on", metrics.streams.clone());
        ours.register(
            "streams_parked",
            "Event streams that wait for their clients to come back",
            metrics.parked.clone(),
        );
        ours.register(
            "streams_resumed",
            "Times that a client has come back for its stream",
            metrics.resumed.clone(),
        );
        ours.register(
            "streams_expired",
            "Event streams whose clients did not come back in time",
            metrics.expired.clone(),
        );
        ours.register("streams_ended", "Event streams, by how they ended", metrics.ended.clone());
        ours.register(
            "tokens",
            "Tokens of event streams, by what was known of them when their streams ended; the last ones sent are rarely acked by then",
            metrics.tokens.clone(),
        );
        ours.register_with_unit(
            "stream_wait",
            "Time of event streams, by what they waited for",
            seconds(),
            metrics.seconds.clone(),
        );
        ours.register(
            "requests_too_often",
            "Requests refused because their address had asked too often, since the start",
            metrics.too_often.clone(),
        );
        ours.register(
            "requests_wrong_token",
            "Requests refused because their address had shown too many wrong tokens, since the start",
            metrics.wrong_tokens.clone(),
        );
        ours.register(
            "engine_up",
            "1 while the engine is taken for well",
            metrics.engine_up.clone(),
        );
        ours.register(
            "engine_requests",
            "Requests that the engine is answering",
            metrics.engine_requests.clone(),
        );
        Self { registry, ..metrics }
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
    pub(crate) fn encode(
        &self,
        streams: Counts,
        engines: &Upstreams,
        given_up: &GivenUp,
    ) -> String {
        self.streams.set(streams.taken.try_into().unwrap_or(i64::MAX));
        self.parked.set(streams.parked.try_into().unwrap_or(i64::MAX));
        let told = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.too_often.set(told(given_up.too_often()));
        self.wrong_tokens.set(told(given_up.wrong_tokens()));
        for engine in engines.all() {
            let label = Engine { engine: engine.url().to_string() };
            self.engine_up.get_or_create(&label).set(engine.is_healthy().into());
            let requests = engine.outstanding().try_into().unwrap_or(i64::MAX);
            self.engine_requests.get_or_create(&label).set(requests);
        }
        let mut text = String::new();
        // Encoding into a String fails only if a metric's own encoding does, and these are the library's.
        let _ = text::encode(&mut text, &self.registry);
        text
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
