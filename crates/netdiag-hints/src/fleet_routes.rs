//! What a fleet's coordinator shows of itself over HTTP: who leads, which engines are shared, and what each node has.
//!
//! Invariant: metrics name engines, of which there are few, and no nodes, of which there are many.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use netdiag_http::{Exposure, Gate, GivenUp, Problem};
use netdiag_metrics::{
    Bound, Described, ExportStatus, FamilyDescription, Label, Labels, Scrape, respond,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use tokio::sync::watch;

use crate::bus::{EngineView, FleetView};

const PATHS: &str = "/ /v1/fleet /livez /readyz /metrics";

/// Largest request body, bytes. No route takes one.
const LARGEST_BODY: u64 = 1024;

/// Most engines that metrics name; the rest is in `/v1/fleet`.
const MOST_ENGINES: usize = 100;

#[derive(Clone)]
struct Shared {
    view: watch::Receiver<FleetView>,
    gate: Arc<Gate>,
    scrape: Scrape,
}

/// The routes over the newest `view`.
pub fn fleet_router(view: watch::Receiver<FleetView>, exposure: Exposure) -> Router {
    fleet_router_and_metrics(view, exposure, GivenUp::default(), None).0
}

/// The same, and what `/metrics` tells, for who wants it otherwise; `given_up` is whom the server turns away, `exports` what becomes of
/// metrics elsewhere.
pub fn fleet_router_and_metrics(
    view: watch::Receiver<FleetView>,
    exposure: Exposure,
    given_up: GivenUp,
    exports: Option<ExportStatus>,
) -> (Router, Scrape) {
    let gate = Gate {
        exposure,
        // Probes of an orchestrator carry no secrets.
        open: |path| matches!(path, "/livez" | "/readyz"),
        largest_body: LARGEST_BODY,
        sessions: false,
    };
    let seen = view.clone();
    let scrape =
        Scrape::new(move || described(&seen.borrow(), &given_up, exports.as_ref()).encode());
    let shared = Shared { view, gate: Arc::new(gate), scrape: scrape.clone() };
    let router = Router::new()
        .route("/", get(fleet))
        .route("/v1/fleet", get(fleet))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, format!("no such path; known paths: {PATHS}"))
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
        })
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared);
    (router, scrape)
}

async fn fleet(State(shared): State<Shared>) -> Response {
    let view = shared.view.borrow().clone();
    ([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

/// Ready is who knows of a leader, itself or another.
async fn ready(State(shared): State<Shared>) -> Response {
    let view = shared.view.borrow().clone();
    let why = match (view.is_connected, &view.leader) {
        (true, Some(_)) => return "ok\n".into_response(),
        (true, None) => "there is no leader",
        (false, _) => "there is no connection to the message bus",
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    respond(&headers, shared.scrape.now())
}

async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.gate.refusal(&request) {
        Some(response) => response,
        None => next.run(request).await,
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EngineLabel {
    engine: String,
}

impl Labels for EngineLabel {
    const LABELS: &'static [Label] =
        &[Label { name: "engine", values: "engines' names", bound: Bound::Most(MOST_ENGINES) }];
}

/// The families of a fleet's coordinator, those of an export among them.
pub fn fleet_metrics() -> Vec<FamilyDescription> {
    let (view, given_up, exports) = Default::default();
    described(&view, &given_up, Some(&exports)).families().to_vec()
}

/// What is known at present. Made anew for every scrape, so that engines that are no more are in none.
fn described(view: &FleetView, given_up: &GivenUp, exports: Option<&ExportStatus>) -> Described {
    let mut described = Described::new();
    let mut ours = described.within("netdiag_fleet");
    ours.version(env!("CARGO_PKG_VERSION"));
    let one = |value: f64| {
        let gauge = Float::default();
        gauge.set(value);
        gauge
    };
    ours.add("leader", "1 while this process leads", one(view.is_leader.into()));
    let connected = one(view.is_connected.into());
    ours.add("bus_connected", "1 while there is a connection to the message bus", connected);
    ours.add("engines", "Engines that nodes share", one(view.engines.len() as f64));
    let tokens = || Unit::Other("tokens_per_second".to_owned());
    let each = |figure: fn(&EngineView) -> f64| {
        let family: Family<EngineLabel, Float> = Family::default();
        for engine in view.engines.iter().take(MOST_ENGINES) {
            let label = EngineLabel { engine: engine.engine.to_string() };
            family.get_or_create(&label).set(figure(engine));
        }
        family
    };
    ours.add_with_unit(
        "engine_capacity",
        tokens(),
        "What the engine generates with all seats taken; no number while nobody has said",
        each(|engine| engine.capacity_tps.unwrap_or(f64::NAN)),
    );
    let demand = each(|engine| engine.demand_tps);
    ours.add_with_unit("engine_demand", tokens(), "What all its streams ask for", demand);
    let given = each(|engine| engine.given_tps);
    ours.add_with_unit("engine_given", tokens(), "What all its streams have", given);
    let nodes = each(|engine| engine.nodes.len() as f64);
    ours.add("engine_nodes", "Nodes with streams there", nodes);
    ours.add(
        "engine_silent_nodes",
        "Nodes of which nothing was heard for too long",
        each(|engine| engine.nodes.iter().filter(|node| node.is_silent).count() as f64),
    );
    let streams = each(|engine| engine.nodes.iter().map(|node| f64::from(node.streams)).sum());
    ours.add("engine_streams", "Streams there", streams);
    for (name, help, figure) in GivenUp::FIGURES {
        let given_up = given_up.clone();
        ours.count(name, help, move || figure(&given_up));
    }
    if let Some(exports) = exports {
        exports.register(&mut described);
    }
    described
}

type Float = Gauge<f64, AtomicU64>;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::bus::{EngineHistory, MemberView, NodeName};

    async fn get_path(view: FleetView, path: &str) -> (StatusCode, String) {
        let (_sender, view) = watch::channel(view);
        let address = "127.0.0.1:9002".parse().expect("an address");
        let exposure = Exposure::try_new(address, None, false).expect("loopback");
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty());
        let answer = fleet_router(view, exposure).oneshot(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    fn view() -> FleetView {
        let name = |name: &str| NodeName::try_new(name).expect("a name");
        let member = MemberView {
            node: name("n1"),
            streams: 2,
            demand_tps: 80.0,
            given_tps: 40.0,
            health: Some(0.5),
            state: None,
            age_seconds: 3.0,
            is_silent: true,
        };
        let engine = EngineView {
            engine: name("e1"),
            capacity_tps: Some(40.0),
            level: Some(1.5),
            is_busy: true,
            demand_tps: 80.0,
            given_tps: 40.0,
            nodes: vec![member],
            history: EngineHistory::default(),
        };
        FleetView {
            leader: Some(name("f1")),
            is_leader: true,
            term: Some(3),
            leader_seconds: Some(60.0),
            lease_seconds: Some(1.25),
            is_connected: true,
            engines: vec![engine],
        }
    }

    #[tokio::test]
    async fn the_fleet_is_told_as_json_and_as_metrics() {
        let (status, body) = get_path(view(), "/v1/fleet").await;
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &json["leader"], &json["term"]),
            (StatusCode::OK, &"f1".into(), &3.into())
        );
        assert_eq!(json["engines"][0]["nodes"][0]["given_tps"], 40.0);
        let (_, metrics) = get_path(view(), "/metrics").await;
        for line in [
            "netdiag_fleet_leader 1.0",
            "netdiag_fleet_engine_given_tokens_per_second{engine=\"e1\"} 40.0",
            "netdiag_fleet_engine_silent_nodes{engine=\"e1\"} 1.0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
        }
    }

    #[tokio::test]
    async fn without_a_leader_it_is_not_ready() {
        let ready = async |view| get_path(view, "/readyz").await.0;
        assert_eq!(ready(view()).await, StatusCode::OK);
        let headless = FleetView { leader: None, ..view() };
        assert_eq!(ready(headless).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ready(FleetView::default()).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get_path(view(), "/x").await.0, StatusCode::NOT_FOUND);
    }
}
