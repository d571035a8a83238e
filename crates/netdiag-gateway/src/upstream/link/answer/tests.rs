//! What is told by the head of an answer.

use hyper::{Response, Version};

use super::*;

fn head(version: Version, headers: &[(&'static str, &'static str)]) -> Parts {
    let mut response = Response::new(());
    *response.version_mut() = version;
    for (name, value) in headers {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response.into_parts().0
}

#[test]
fn only_the_last_coding_counts() {
    let check = |values: &[&'static str], expected| {
        let headers: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
        let head = head(Version::HTTP_11, &headers);
        assert_eq!(is_chunked(&head.headers), expected, "{values:?}");
    };
    check(&["chunked"], true);
    check(&["gzip, Chunked "], true);
    check(&["gzip", "chunked"], true);
    check(&["chunked, gzip"], false);
    check(&["chunked", "gzip"], false);
    check(&[], false);
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(b"\xff, chunked").expect("a value");
    headers.insert(header::TRANSFER_ENCODING, value);
    assert!(!is_chunked(&headers), "hyper reads until the end");
}

#[test]
fn connections_are_kept_where_both_sides_are_sure() {
    let check = |version, headers: &[(&'static str, &'static str)], expected| {
        assert_eq!(keeps_open(&head(version, headers)), expected, "{version:?} {headers:?}");
    };
    check(Version::HTTP_11, &[], true);
    check(Version::HTTP_11, &[("connection", "keep-alive")], true);
    check(Version::HTTP_11, &[("connection", "Close")], false);
    check(Version::HTTP_11, &[("connection", "x, close"), ("connection", "keep-alive")], false);
    check(Version::HTTP_11, &[("transfer-encoding", "chunked")], true);
    let both = [("transfer-encoding", "chunked"), ("content-length", "3")];
    check(Version::HTTP_11, &both, false);
    check(Version::HTTP_10, &[("connection", "keep-alive")], false);
}
