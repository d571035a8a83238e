//! `--otlp`: what a collector gets is what `/metrics` says, and a collector that is no good hurts nobody.

mod tls;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, NumberDataPoint};
use prost::Message as _;
use rustix::process::Signal;
use tokio_rustls::TlsAcceptor;

use crate::gateway::{ask, engine, gateway_with_admin};
use crate::support::{DEADLINE, Running, get, netdiag, until};

/// What nobody may find in a log.
const SECRET: &str = "a-secret-of-the-collector";

/// How a collector behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    Fails(u16),
    /// It is to be asked again in more seconds than clocks count.
    AsksToWait,
    Hangs,
}

/// A collector that remembers what it was sent.
struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped, it takes all connections with it.
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    manner: Mutex<Manner>,
    taken: Mutex<Vec<(HeaderMap, ExportMetricsServiceRequest)>>,
}

impl Collector {
    fn start(address: SocketAddr) -> Self {
        Self::start_with(address, None)
    }

    /// One that speaks TLS, if it is given how.
    fn start_with(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let shared =
            Arc::new(Shared { manner: Mutex::new(Manner::Takes), taken: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = until("the port", || TcpListener::bind(address).ok());
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/v1/metrics", post(take)).with_state(Arc::clone(&shared));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            match tls {
                Some(tls) => axum::serve(tls::Listener { listener, tls }, routes).await,
                None => axum::serve(listener, routes).await,
            }
            .expect("serves");
        });
        Self { address, shared, _runtime: runtime }
    }

    fn behaves(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no panic") = manner;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn count(&self) -> usize {
        self.shared.taken.lock().expect("no panic").len()
    }

    /// The next export from now on, as all of it was then.
    fn next(&self) -> ExportMetricsServiceRequest {
        let before = self.count();
        until("an export", || (self.count() > before).then_some(()));
        let taken = self.shared.taken.lock().expect("no panic");
        taken[before].1.clone()
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let manner = *shared.manner.lock().expect("no panic");
    match manner {
        Manner::Hangs => std::future::pending().await,
        Manner::Fails(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Manner::AsksToWait => {
            let wait = [(RETRY_AFTER, u64::MAX.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, wait).into_response()
        }
        Manner::Takes => {
            let request = ExportMetricsServiceRequest::decode(body).expect("a message");
            shared.taken.lock().expect("no panic").push((headers, request));
            StatusCode::OK.into_response()
        }
    }
}

/// Samples by name and labels, as OpenMetrics has them.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// `/metrics` in the format that Prometheus asks for.
fn scrape(address: SocketAddr) -> (Samples, BTreeMap<String, String>) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (mut samples, mut types) = (Samples::new(), BTreeMap::new());
    for line in body.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            types.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            // No value of ours has a comma or a quote in it.
            let pairs = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| {
                let (name, value) = pair.split_once('=').expect("a label");
                (name.to_owned(), value.trim_matches('"').to_owned())
            });
            let labels = labels.filter(|(_, value)| !value.is_empty()).collect();
            samples.insert((name.to_owned(), labels), value.parse().expect("a number"));
        }
    }
    (samples, types)
}

fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pair = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|value| value.value.clone());
        let Some(any_value::Value::StringValue(value)) = value else { panic!("{attribute:?}") };
        (attribute.key.replace('.', "_"), value)
    };
    attributes.iter().map(pair).collect()
}

/// An export as `/metrics` would have it.
fn samples(request: &ExportMetricsServiceRequest) -> (Samples, BTreeMap<String, String>) {
    let (mut samples, mut types) = (Samples::new(), BTreeMap::new());
    let number = |point: &NumberDataPoint| match point.value {
        Some(Value::AsInt(value)) => value as f64,
        Some(Value::AsDouble(value)) => value,
        None => f64::NAN,
    };
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    for metric in metrics.flat_map(|scope| &scope.metrics) {
        let mut name = metric.name.replace('.', "_");
        if metric.unit == "s" && !name.ends_with("_seconds") {
            name.push_str("_seconds");
        }
        let kind = match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    samples.insert((name.clone(), labels(&point.attributes)), number(point));
                }
                "gauge"
            }
            Data::Sum(sum) => {
                assert!(sum.is_monotonic, "{name}");
                assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
                for point in &sum.data_points {
                    let since = point.start_time_unix_nano;
                    assert!(since > 0 && since <= point.time_unix_nano, "{name}: {point:?}");
                    let name = format!("{name}_total");
                    samples.insert((name, labels(&point.attributes)), number(point));
                }
                "counter"
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    let labels = labels(&point.attributes);
                    samples
                        .insert((format!("{name}_sum"), labels.clone()), point.sum.expect("a sum"));
                    samples.insert((format!("{name}_count"), labels.clone()), point.count as f64);
                    let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
                    let mut below = 0;
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        below += count;
                        let bound = if bound.is_finite() {
                            format!("{bound:?}")
                        } else {
                            "+Inf".to_owned()
                        };
                        let mut labels = labels.clone();
                        labels.insert("le".to_owned(), bound);
                        samples.insert((format!("{name}_bucket"), labels), below as f64);
                    }
                }
                "histogram"
            }
            other => panic!("{name}: {other:?}"),
        };
        types.insert(name, kind.to_owned());
    }
    (samples, types)
}

/// Compares an export with what the process says by itself, before and after: what did not change between is the same there.
fn compare(collector: &Collector, pages: &[SocketAddr]) -> usize {
    let all = || {
        let (mut samples, mut types) = (Samples::new(), BTreeMap::new());
        for &page in pages {
            let (more, kinds) = scrape(page);
            samples.extend(more);
            types.extend(kinds);
        }
        (samples, types)
    };
    let (before, _) = all();
    let export = collector.next();
    let (after, types) = all();
    let (exported, exported_types) = samples(&export);
    assert_eq!(exported_types, types);
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let mut compared = 0;
    for (series, value) in &after {
        let Some(&earlier) = before.get(series) else { continue };
        if same(earlier, *value) {
            let found =
                exported.get(series).unwrap_or_else(|| panic!("{series:?} is not exported"));
            assert!(same(*found, *value), "{series:?}: {found} instead of {value}");
            compared += 1;
        }
    }
    for series in exported.keys() {
        assert!(after.contains_key(series), "{series:?} is exported only");
    }
    compared
}

#[test]
fn a_collector_gets_what_metrics_say() {
    let collector = Collector::start("127.0.0.1:0".parse().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    let headers = folder.path().join("headers");
    std::fs::write(&headers, format!("authorization: Bearer {SECRET}\n")).expect("written");
    let headers = headers.to_str().expect("text");
    let otlp =
        ["--otlp", &collector.url(), "--otlp-interval", "0.3", "--otlp-headers-file", headers];

    let arguments =
        ["up", "--loopback", "--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"];
    let mut up = netdiag(arguments.iter().chain(&otlp));
    up.env("NETDIAG_NO_DASHBOARD", "false");
    let mut up = Running::start(up);
    let (hints, dashboard) = (up.address(), up.address_of("dashboard on"));
    until("telemetry", || (get(hints, "/readyz").0 == 200).then_some(()));
    assert!(compare(&collector, &[hints, dashboard]) > 15);
    {
        let taken = collector.shared.taken.lock().expect("no panic");
        let (headers, request) = taken.last().expect("an export");
        assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let resource = request.resource_metrics[0].resource.as_ref().expect("a resource");
        let resource = labels(&resource.attributes);
        assert_eq!(resource["service_name"], "netdiag-up");
        assert!(resource["service_instance_id"].ends_with(&format!(":{}", hints.port())));
    }
    let (status, told) = up.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    assert!(!told.iter().any(|line| line.contains(SECRET)), "{told:?}");

    // The gateway, whose histograms have something in them.
    let (_, address) = engine();
    let (running, clients, admin) = gateway_with_admin(address, &otlp);
    let mut text = String::new();
    ask(clients, 20).read_to_string(&mut text).expect("reads");
    let counted = "gen_ai_server_request_duration_seconds_count";
    until("the stream's end", || get(admin, "/metrics").1.contains(counted).then_some(()));
    assert!(compare(&collector, &[admin]) > 60);
    let last = collector.count();
    let (status, told) = running.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    // What was counted at the end is told as well.
    assert!(collector.count() > last);
}

#[test]
fn variables_that_are_meant_for_others_are_told_and_no_error() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", SECRET),
    ] {
        let mut serve = netdiag(["serve", "--listen", "127.0.0.1:0"]);
        serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env(name, value);
        let mut serve = Running::start(serve);
        let told = serve.line_with("metrics are not pushed");
        assert!(told.contains(name) && !told.contains(SECRET), "{told}");
        assert_eq!(get(serve.address(), "/livez").0, 200);
    }
}

#[test]
fn a_collector_that_is_no_good_hurts_nobody() {
    // A port that nobody has.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let headers = folder.path().join("headers");
    std::fs::write(&headers, format!("x-key: {SECRET}\n")).expect("written");
    let mut up = Running::start(netdiag([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--otlp",
        &format!("http://{address}"),
        "--otlp-interval",
        "0.2",
        "--otlp-headers-file",
        headers.to_str().expect("text"),
        "--log-level",
        "trace",
    ]));
    let hints = up.address();
    let value = |name: &str| {
        let (_, text) = get(hints, "/metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).expect("a value")
    };
    let dropped = || value("netdiag_otlp_exports_dropped_total");
    up.line_with("metrics are not exported meanwhile");
    until("drops", || (dropped() >= 3.0).then_some(()));
    assert_eq!(value("netdiag_otlp_up"), 0.0);

    let collector = Collector::start(address);
    up.line_with("takes metrics again");
    until("an export", || (value("netdiag_otlp_up") == 1.0).then_some(()));
    for manner in [
        Manner::Fails(500),
        Manner::Fails(503),
        Manner::AsksToWait,
        Manner::Fails(400),
        Manner::Hangs,
    ] {
        let before = dropped();
        collector.behaves(manner);
        up.line_with("metrics are not exported meanwhile");
        until("drops", || (dropped() >= before + 2.0).then_some(()));
        // Nobody waits for it.
        let asked = Instant::now();
        assert_eq!(get(hints, "/v1/hint").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{manner:?}");
        collector.behaves(Manner::Takes);
        up.line_with("takes metrics again");
    }
    // It ends in time whatever the collector does, which `end_by` sees to.
    collector.behaves(Manner::Hangs);
    let (status, told) = up.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");
    let lines = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    // One for each outage: the port that nobody had, five manners, and perhaps the last.
    assert!((6..=7).contains(&lines("not exported meanwhile")), "{told:#?}");
    assert_eq!(lines("takes metrics again"), 6, "{told:#?}");
    assert_eq!(lines(SECRET), 0, "{told:#?}");
}
