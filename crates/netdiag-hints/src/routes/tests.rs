//! The routes without a network: contract, scopes, staleness, authentication, refusals.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use http_body_util::BodyExt;
use netdiag_http::{Pseudonyms, Token};
use netdiag_pacer::{Classic, Judgement, Observation};
use netdiag_telemetry::csv::{self, RowDecoder};
use netdiag_telemetry::{FlowKey, LinkSample, Rolling, Row, Source, Tps};
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;
use crate::{Board, StreamEntry};

fn range() -> TpsRange {
    let tps = |n| Tps::try_new(n).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

/// A hint from the real policy for a link of this health.
fn observed(scope: Scope, health: f64) -> Hint {
    let mut pacer = Classic::new(range());
    let observation = Observation {
        link: Judgement { health, ..Judgement::default() },
        round_trip: true,
        source: Some(Source::Ebpf),
        ..Observation::default()
    };
    for _ in 0..20 {
        pacer.observe(observation.clone(), Duration::from_millis(500));
    }
    pacer.hint(&scope, Duration::ZERO)
}

fn board(sampled_at: Option<Instant>) -> Arc<Board> {
    let peer: IpAddr = "192.0.2.7".parse().expect("address");
    let stream = |port: u16| {
        let local: SocketAddr = "192.0.2.1:8000".parse().expect("address");
        let key = FlowKey::new(1, local, SocketAddr::new(peer, port));
        let sample = LinkSample {
            timestamp: Duration::from_secs(1),
            rtt: None,
            srtt: Some(Duration::from_millis(20)),
            retrans_segs: 0,
            segs_out: Some(10),
            avg_cwnd: Some(10.0),
            throughput_bps: Some(8000.0),
            flows: Some(1),
            stalled_flows: Some(0),
            source: Some(Source::Ebpf),
        };
        let hint = observed(Scope::Stream(key), 1.0);
        StreamEntry { key, hint, sample, liveness: None, waiting: Duration::ZERO, carried: None }
    };
    let peers = BTreeMap::from([(peer, observed(Scope::Peer(peer), 0.1))]);
    let streams = vec![stream(4002), stream(4001)];
    Arc::new(Board::new(observed(Scope::Host, 1.0), peers, streams, sampled_at))
}

#[test]
fn no_end_of_a_connection_is_shown_as_it_is() {
    let pseudonyms = Pseudonyms::random([1; 32]);
    // One that is so new that its client is none of the peers yet.
    let Board { host, .. } = (*board(None)).clone();
    let streams = board(None).streams().to_vec();
    let shown = Board::new(host, BTreeMap::new(), streams, None).anonymised(&pseudonyms);
    assert_eq!(shown.streams().len(), 2);
    for stream in shown.streams() {
        let local = "192.0.2.1:8000".parse().expect("address");
        assert_eq!(stream.key.local, pseudonyms.socket(local));
        assert!(!format!("{stream:?}").contains("192.0.2."), "{stream:?}");
    }
}

fn options(listen: &str, token: Option<Token>) -> Options {
    Options {
        range: range(),
        stale_after: Duration::from_secs(2),
        when_stale: WhenStale::Max,
        bus: None,
        given_up: GivenUp::default(),
        exports: None,
        pseudonyms: None,
        exposure: Exposure::try_new(listen.parse().expect("address"), token, false)
            .expect("closed"),
    }
}

fn server_at(sampled_at: Option<Instant>) -> Router {
    router(watch::Sender::new(board(sampled_at)).subscribe(), options("127.0.0.1:9000", None))
}

fn server() -> Router {
    server_at(Some(Instant::now()))
}

async fn send(router: &Router, request: Request) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn request(path: &str) -> Request {
    Request::builder().uri(path).body(Body::empty()).expect("request")
}

async fn get(router: &Router, path: &str) -> (StatusCode, Value) {
    send(router, request(path)).await
}

#[tokio::test]
async fn the_hint_has_exactly_the_contracts_fields() {
    let (status, hint) = get(&server(), "/").await;
    assert_eq!(status, StatusCode::OK);
    let fields: Vec<_> = hint.as_object().expect("object").keys().map(String::as_str).collect();
    let mut contract = [
        "current_tps",
        "sleep_seconds",
        "target_tps",
        "min_tps",
        "max_tps",
        "health",
        "anomaly",
        "anomaly_score",
        "state",
        "reason",
        "hold",
        "scope",
        "age_seconds",
        "source",
    ];
    contract.sort_unstable();
    assert_eq!(fields, contract);
    let number = |name: &str| hint[name].as_f64().expect(name);
    assert!((number("sleep_seconds") * number("current_tps") - 1.0).abs() < 1e-9);
    assert_eq!((number("min_tps"), number("max_tps")), (5.0, 80.0));
    assert_eq!(
        (&hint["state"], &hint["scope"], &hint["source"]),
        (&"clear".into(), &"host".into(), &"ebpf".into())
    );
    assert_eq!(get(&server(), "/v1/hint").await.1["state"], "clear");
}

#[tokio::test]
async fn scopes_are_found_by_address() {
    let server = server();
    let (_, peer) = get(&server, "/v1/hint?peer=192.0.2.7").await;
    assert_eq!((&peer["scope"], &peer["state"]), (&"peer 192.0.2.7".into(), &"constrained".into()));
    let (_, mapped) = get(&server, "/?peer=::ffff:192.0.2.7").await;
    assert_eq!(peer["scope"], mapped["scope"]);
    let (_, stream) = get(&server, "/v1/hint?peer=192.0.2.7:4001").await;
    assert_eq!(
        (&stream["scope"], &stream["state"]),
        (&"stream 192.0.2.7:4001".into(), &"clear".into())
    );
    for unknown in ["198.51.100.1", "198.51.100.1:80"] {
        let (status, hint) = get(&server, &format!("/v1/hint?peer={unknown}")).await;
        assert_eq!((status, &hint["state"]), (StatusCode::OK, &"idle".into()));
        assert_eq!(hint["current_tps"], 80.0, "what is not known is not throttled");
        assert!(hint["scope"].as_str().expect("text").ends_with(unknown));
    }
    let (status, error) = get(&server, "/v1/hint?peer=nowhere").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error["error"]["message"].as_str().expect("text").contains("`nowhere`"));
}

#[tokio::test]
async fn streams_are_listed_by_page() {
    let server = server();
    let (_, all) = get(&server, "/v1/streams").await;
    assert_eq!(all["total"], 2);
    assert_eq!(all["streams"][0]["peer"], "192.0.2.7:4001");
    assert_eq!(all["streams"][0]["hint"]["scope"], "stream 192.0.2.7:4001");
    let (_, second) = get(&server, "/v1/streams?offset=1&limit=5").await;
    assert_eq!(second["streams"].as_array().expect("list").len(), 1);
    assert_eq!(get(&server, "/v1/streams?limit=many").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn old_telemetry_never_throttles() {
    let server = server();
    tokio::time::advance(Duration::from_millis(1500)).await;
    let (_, fresh) = get(&server, "/v1/hint?peer=192.0.2.7").await;
    assert_eq!((&fresh["state"], &fresh["age_seconds"]), (&"constrained".into(), &1.5.into()));
    assert_eq!(get(&server, "/readyz").await.0, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(1)).await;
    let (_, stale) = get(&server, "/v1/hint?peer=192.0.2.7").await;
    assert_eq!((&stale["state"], &stale["current_tps"]), (&"stale".into(), &80.0.into()));
    assert_eq!(stale["reason"], "telemetry is 2.5 s old");
    assert_eq!(get(&server, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&server, "/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn before_the_first_sample_the_hint_is_stale() {
    let (status, hint) = get(&server_at(None), "/").await;
    assert_eq!((status, &hint["state"]), (StatusCode::OK, &"stale".into()));
    assert_eq!(hint["reason"], "no telemetry yet");
}

#[tokio::test]
async fn a_token_guards_everything_but_the_probes() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("write");
    let token = Token::read(&file).expect("token");
    let boards = watch::Sender::new(board(Some(Instant::now()))).subscribe();
    let server = router(boards, options("0.0.0.0:9000", Some(token)));
    for path in PATHS {
        let open = matches!(path, "/livez" | "/readyz");
        let expected = if open { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(get(&server, path).await.0, expected, "{path}");
    }
    let with = |value: &str| {
        Request::builder()
            .uri("/")
            .header("authorization", value)
            .body(Body::empty())
            .expect("request")
    };
    assert_eq!(send(&server, with("Bearer 0123456789abcdef")).await.0, StatusCode::OK);
    assert_eq!(send(&server, with("Bearer 0123456789abcdeg")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_local_server_is_not_for_foreign_pages() {
    let server = server();
    for (host, status) in [
        ("localhost:9000", 200),
        ("127.0.0.1:9000", 200),
        ("[::1]:9000", 200),
        ("LOCALHOST", 200),
        ("evil.example:9000", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ] {
        let request =
            Request::builder().uri("/").header("host", host).body(Body::empty()).expect("request");
        assert_eq!(send(&server, request).await.0.as_u16(), status, "{host}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_refused_by_name() {
    let server = server();
    let (status, error) = get(&server, "/v2/hint").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error["error"]["message"].as_str().expect("text").contains("/v1/hint"));
    let post = Request::builder().method("POST").uri("/").body(Body::empty()).expect("request");
    let response = server.clone().oneshot(post).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    let head = Request::builder().method("HEAD").uri("/").body(Body::empty()).expect("request");
    assert_eq!(send(&server, head).await, (StatusCode::OK, Value::String(String::new())));
    let body = Request::builder()
        .uri("/")
        .header("content-length", "2000")
        .body(Body::empty())
        .expect("request");
    assert_eq!(send(&server, body).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn metrics_are_lines_of_the_text_format() {
    let server = server();
    get(&server, "/").await;
    get(&server, "/nowhere").await;
    let (_, text) = get(&server, "/metrics").await;
    let text = text.as_str().expect("text");
    for line in text.lines() {
        let sample = line.rsplit_once(' ').is_some_and(|(name, value)| {
            name.starts_with("netdiag_") && value.parse::<f64>().is_ok()
        });
        assert!(line.starts_with("# ") || sample, "{line}");
    }
    for expected in [
        "netdiag_hint_current_tokens_per_second 80.0",
        "netdiag_hint_state{state=\"clear\"} 1",
        "netdiag_hint_state{state=\"stalled\"} 0",
        "netdiag_flows 2.0",
        "netdiag_http_requests_total{path=\"/\",status=\"200\"} 1",
        "netdiag_http_requests_total{path=\"other\",status=\"404\"} 1",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[tokio::test]
async fn the_openapi_document_describes_what_is_sent() {
    let server = server();
    let (_, document) = get(&server, "/openapi.json").await;
    let described = |schema: &str| -> Vec<String> {
        let properties = &document["components"]["schemas"][schema]["properties"];
        let mut names: Vec<_> = properties.as_object().expect(schema).keys().cloned().collect();
        names.sort_unstable();
        names
    };
    let sent = |value: &Value| -> Vec<String> {
        let mut names: Vec<_> = value.as_object().expect("object").keys().cloned().collect();
        names.sort_unstable();
        names
    };
    assert_eq!(described("Hint"), sent(&get(&server, "/").await.1));
    assert_eq!(described("Stream"), sent(&get(&server, "/v1/streams").await.1["streams"][0]));
    let mut paths: Vec<_> =
        document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let mut known = PATHS.to_vec();
    paths.sort_unstable();
    known.sort_unstable();
    assert_eq!(paths, known);
}

#[tokio::test]
async fn events_are_hints_the_newest_first_at_once() {
    let boards = watch::Sender::new(board(Some(Instant::now())));
    let server = router(boards.subscribe(), options("127.0.0.1:9000", None));
    let response = server.oneshot(request("/v1/events")).await.expect("infallible");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    let mut next = async || {
        let frame = body.frame().await.expect("open").expect("no error");
        String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
    };
    let first = next().await;
    assert!(first.starts_with("event: hint\ndata: {\"current_tps\":"), "{first}");
    // A client that was slow gets the newest board, once.
    boards.send_replace(board(None));
    boards.send_replace(board(Some(Instant::now())));
    assert!(next().await.contains("\"state\":\"clear\""));
    boards.send_replace(board(None));
    assert!(next().await.contains("\"state\":\"stale\""));
}

#[tokio::test]
async fn rows_come_with_the_hints_where_they_are_asked_for() {
    let sample = board(None).streams()[0].sample;
    let row = Row { sample, rolling: Rolling::default() };
    let mut with_row = (*board(Some(Instant::now()))).clone();
    with_row.row = Some(row);
    let boards = watch::Sender::new(Arc::new(with_row));
    let server = router(boards.subscribe(), options("127.0.0.1:9000", None));
    let told = async |query: &str| {
        let path = format!("/v1/events{query}");
        let response = server.clone().oneshot(request(&path)).await.expect("infallible");
        let frame = response.into_body().frame().await.expect("open").expect("no error");
        String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
    };
    let text = told("?rows=true").await;
    let line = text.strip_prefix("event: row\ndata: ").expect("a row").trim_end();
    let mut read = Vec::new();
    RowDecoder::default().push(format!("{}{line}\n", csv::header()).as_bytes(), |row| {
        read.push(row.expect("a row"))
    });
    assert_eq!(read, [row]);
    assert!(told("").await.starts_with("event: hint"));
    assert_eq!(get(&server, "/v1/events?rows=perhaps").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn event_streams_are_limited_and_given_back() {
    let server = server();
    let mut open = Vec::new();
    let refused = loop {
        let response = server.clone().oneshot(request("/v1/events")).await.expect("infallible");
        if response.status() != StatusCode::OK {
            break response.status();
        }
        open.push(response);
        assert!(open.len() <= 1000);
    };
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    open.pop();
    assert_eq!(
        server.oneshot(request("/v1/events")).await.expect("infallible").status(),
        StatusCode::OK
    );
}

proptest! {
    #[test]
    fn any_query_is_answered_or_refused(query in "[ -~]{0,60}") {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            for path in [format!("/?peer={encoded}"), format!("/v1/streams?limit={encoded}&offset={encoded}")] {
                let status = get(&server(), &path).await.0.as_u16();
                assert!(status == 200 || status == 400, "{path}: {status}");
            }
        });
    }
}

#[tokio::test]
async fn telemetry_of_the_host_alone_speaks_for_every_peer() {
    let board = Board::of_host(observed(Scope::Host, 0.1), Some(Instant::now()));
    let boards = watch::Sender::new(Arc::new(board));
    let server = router(boards.subscribe(), options("127.0.0.1:9000", None));
    let (_, host) = get(&server, "/v1/hint").await;
    for peer in ["192.0.2.7", "192.0.2.7:4001"] {
        let (status, hint) = get(&server, &format!("/v1/hint?peer={peer}")).await;
        assert_eq!((status, &hint["scope"]), (StatusCode::OK, &"host".into()), "{hint}");
        assert_eq!(hint["current_tps"], host["current_tps"]);
    }
}

#[tokio::test]
async fn a_bad_query_is_told_in_the_words_of_the_query() {
    for (query, told) in [("limit=-1", "limit: `-1`"), ("offset=", "offset: ``")] {
        let (status, problem) = get(&server(), &format!("/v1/streams?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let message = format!("query: {told} is not a whole number from 0 on");
        assert_eq!(problem["error"]["message"], message);
    }
    let (status, _) = get(&server(), "/v1/streams?limit=99999999999999999999").await;
    assert_eq!(status, StatusCode::OK);
}
