//! The routes without a network: who is let in, what the browser is told, what cannot be answered.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use netdiag_http::Token;
use tower::ServiceExt as _;

use super::*;
use crate::feed::tests::{feed, hint, point};

const SECRET: &str = "0123456789abcdef";

fn options(token: bool) -> Options {
    let token = token.then(|| {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        std::fs::write(&path, SECRET).expect("file");
        Token::read(&path).expect("token")
    });
    let listen = "127.0.0.1:8501".parse().expect("address");
    Options {
        exposure: Exposure::try_new(listen, token, false).expect("closed"),
        streams: Some(Document::new(Duration::ZERO, || Ok(b"{}".to_vec()))),
        gateway: None,
        fleet: None,
        machine: None,
        given_up: GivenUp::default(),
        exports: None,
    }
}

fn server(token: bool) -> Router {
    router(feed(), options(token))
}

fn request(path: &str) -> axum::http::request::Builder {
    Request::builder().uri(path).header(header::HOST, "localhost:8501")
}

async fn send(router: &Router, request: Request) -> (StatusCode, HeaderMap, String) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    (head.status, head.headers, String::from_utf8_lossy(&body).into_owned())
}

async fn get(router: &Router, path: &str) -> (StatusCode, HeaderMap, String) {
    send(router, request(path).body(Body::empty()).expect("request")).await
}

#[tokio::test]
async fn the_page_and_its_files_are_served_with_a_strict_policy() {
    let server = server(false);
    let (status, headers, html) = get(&server, "/").await;
    assert_eq!(status, StatusCode::OK);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
    let files: Vec<&str> = html.split('"').filter(|quoted| quoted.starts_with("assets/")).collect();
    assert!(!files.is_empty(), "{html}");
    for file in files {
        let (status, headers, _) = get(&server, &format!("/{file}")).await;
        assert_eq!(status, StatusCode::OK, "{file}");
        let cache = headers[header::CACHE_CONTROL].to_str().expect("text");
        assert!(cache.contains("immutable"), "{cache}");
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
        let zipped = request(&format!("/{file}")).header(header::ACCEPT_ENCODING, "br, gzip");
        let (_, headers, _) = send(&server, zipped.body(Body::empty()).expect("request")).await;
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    }
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let server = server(false);
    let check = async |path: &str, expected: StatusCode, why: &str| {
        let (status, _, body) = get(&server, path).await;
        assert_eq!(status, expected, "{path}");
        assert!(body.contains(why), "{path}: {body}");
    };
    check("/nowhere", StatusCode::NOT_FOUND, "the dashboard is at /").await;
    check("/assets/none.js", StatusCode::NOT_FOUND, "reload").await;
    check("/api/machine", StatusCode::NOT_FOUND, "netdiag doctor").await;
    check("/api/fleet", StatusCode::NOT_FOUND, "--fleet URL").await;
    check("/api/experiment/report", StatusCode::NOT_FOUND, "no report").await;
    check("/login", StatusCode::SEE_OTHER, "").await;
    check("/api/streams", StatusCode::OK, "{}").await;
    check("/livez", StatusCode::OK, "ok").await;
    let foreign = Request::builder().uri("/").header(header::HOST, "evil.example");
    let (status, ..) = send(&server, foreign.body(Body::empty()).expect("request")).await;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    let other_site = request("/api/streams").header("sec-fetch-site", "cross-site");
    let (status, ..) = send(&server, other_site.body(Body::empty()).expect("request")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let visit =
        request("/").header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "navigate");
    let (status, ..) = send(&server, visit.body(Body::empty()).expect("request")).await;
    assert_eq!(status, StatusCode::OK);
    let big = request("/login").method("POST").header(header::CONTENT_LENGTH, "5000");
    let (status, ..) = send(&server, big.body(Body::empty()).expect("request")).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_token_is_asked_for_once_per_browser() {
    let server = server(true);
    let (status, _, html) = get(&server, "/").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(html.contains("type=\"password\"") && !html.contains("role=\"alert\""), "{html}");
    for path in ["/api/events", "/api/streams", "/api/session", "/metrics", "/nowhere"] {
        assert_eq!(get(&server, path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let login = async |token: &str| {
        let form = request("/login")
            .method("POST")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={token}")));
        send(&server, form.expect("request")).await
    };
    let (status, headers, html) = login("wrong").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(html.contains("role=\"alert\"") && !headers.contains_key(header::SET_COOKIE));
    let (status, headers, _) = login(&format!("{SECRET}%0A")).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let cookie = headers[header::SET_COOKIE].to_str().expect("text");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    assert!(!cookie.contains(SECRET), "{cookie}");
    let session = cookie.split(';').next().expect("a cookie").to_owned();
    for path in ["/", "/api/session", "/api/streams"] {
        let asked = request(path).header(header::COOKIE, &session).body(Body::empty());
        let (status, ..) = send(&server, asked.expect("request")).await;
        assert!(status.is_success(), "{path}: {status}");
    }
    // Programs give the token itself.
    let bearer = request("/metrics").header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
    let (status, _, text) = send(&server, bearer.body(Body::empty()).expect("request")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("netdiag_dashboard_viewers_dropped"), "{text}");
}

#[tokio::test]
async fn a_report_runs_nothing_and_is_framed_by_us_alone() {
    let feed = feed();
    let server = router(feed.clone(), options(false));
    feed.begin_experiment(crate::experiment::tests::experiment());
    feed.end_experiment(Some(b"<p>report</p>".to_vec()));
    let (status, headers, html) = get(&server, "/api/experiment/report").await;
    assert_eq!((status, html.as_str()), (StatusCode::OK, "<p>report</p>"));
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    for part in ["default-src 'none'", "sandbox", "frame-ancestors 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script-src"), "{policy}");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_does_not_read_is_dropped_and_counted() {
    let feed = feed();
    let server = router(feed.clone(), options(false));
    let asked = request("/api/events").body(Body::empty()).expect("request");
    let response = server.clone().oneshot(asked).await.expect("infallible");
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("no error");
    assert!(first.into_data().expect("data").starts_with(b"retry:"));
    assert!(get(&server, "/metrics").await.2.contains("viewers 1"));
    // It reads nothing for a while, and then wants to go on.
    for second in 0..20 {
        feed.push(point(f64::from(second)), hint(netdiag_pacer::State::Clear), None);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(body.frame().await.is_none());
    drop(body);
    let told = get(&server, "/metrics").await.2;
    assert!(told.contains("viewers 0") && told.contains("viewers_dropped_total 1"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn viewers_beyond_the_limit_are_refused_and_counted() {
    let server = server(false);
    let mut open = Vec::new();
    for _ in 0..MOST_VIEWERS {
        let asked = request("/api/events").body(Body::empty()).expect("request");
        open.push(server.clone().oneshot(asked).await.expect("infallible"));
    }
    let (status, _, why) = get(&server, "/api/events").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("close one"), "{why}");
    assert!(get(&server, "/metrics").await.2.contains("viewers_refused_total 1"));
    open.pop();
    let asked = request("/api/events").body(Body::empty()).expect("request");
    let response = server.oneshot(asked).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
}
