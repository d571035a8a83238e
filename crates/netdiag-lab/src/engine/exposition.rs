//! `GET /metrics`: where the tokens are and how full the engine is, in the Prometheus text format (version 0.0.4).
//!
//! All of it is counted elsewhere, so it is written from one look at the engine: a registry would be a second set of books.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Engine;

/// The type of the format, for scrapers.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a scrape.
pub(crate) async fn metrics(State(engine): State<Engine>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&engine))
}

fn text(engine: &Engine) -> String {
    let (tokens, occupancy, aborted) = (engine.tokens(), engine.occupancy(), engine.aborted());
    let as_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let counters = [
        ("generated_tokens", "Tokens generated", tokens.generated),
        ("acked_tokens", "Tokens that their clients' kernels acknowledged", tokens.acked),
        ("wasted_tokens", "Tokens whose connection was gone before that", tokens.wasted),
        (
            "aborted_requests",
            "Requests aborted, mostly because their client left",
            aborted.requests,
        ),
        ("aborted_tokens", "Tokens generated for requests that were aborted", aborted.tokens),
    ];
    let gauges = [
        (
            "in_flight_tokens",
            "Tokens generated, and neither acknowledged nor wasted",
            tokens.in_flight,
        ),
        ("admitted_requests", "Requests with a place in the KV cache", as_u64(occupancy.admitted)),
        ("queued_requests", "Requests that wait for a seat", as_u64(occupancy.queued)),
        ("kv_tokens", "Tokens reserved in the KV cache", occupancy.kv_tokens),
    ];
    let mut text = String::new();
    let mut write = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "# HELP netdiag_engine_{name} {help}\n# TYPE netdiag_engine_{name} {kind}\nnetdiag_engine_{name} {value}"
        );
    };
    for (name, help, value) in counters {
        write(&format!("{name}_total"), "counter", help, value);
    }
    for (name, help, value) in gauges {
        write(name, "gauge", help, value);
    }
    text
}
