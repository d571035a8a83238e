//! What passes, what does not, and what is refused.

use hyper::Request;

use super::*;

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

#[test]
fn what_two_readers_could_understand_differently_is_refused() {
    let check = |uri: &str, headers: &[(&str, &str)], expected: Option<&str>| {
        let refused = super::check(&request(uri, headers), Framing::Single).err();
        assert_eq!(refused.as_ref().map(Failure::code), expected, "{uri} {headers:?} {refused:?}");
    };
    let malformed = Some("malformed_request");
    check("/", &[("host", "a")], None);
    check("/", &[("host", "")], None);
    check("/", &[("host", "[::1]:8080")], None);
    check("/", &[], malformed);
    check("/", &[("host", "a"), ("host", "a")], malformed);
    check("/", &[("host", "a/b")], malformed);
    check("/", &[("host", "user@a")], malformed);
    check("http://a/", &[("host", "A")], None);
    check("http://a/", &[], None);
    check("http://a/", &[("host", "b")], malformed);
    check("http://u@a/", &[("host", "u@a")], malformed);
    check("ftp://a/", &[("host", "a")], malformed);
    let (host, length) = (("host", "a"), ("content-length", "3"));
    check("/", &[host, length, ("transfer-encoding", "chunked")], malformed);
    check("/", &[host, length, length], malformed);
    check("/", &[host, ("transfer-encoding", "gzip, chunked")], malformed);
    check("/", &[host, ("transfer-encoding", "Chunked")], None);
    check("/", &[host, ("upgrade", "h2c, websocket")], Some("not_implemented"));
    check("/", &[host, ("upgrade", "h2c")], None);

    let chunked = request("/", &[host, ("transfer-encoding", "chunked")]);
    let plain = request("/", &[host]);
    let check = |request: &Parts, framing, refused| {
        assert_eq!(super::check(request, framing).is_err(), refused, "{framing:?} {request:?}");
    };
    check(&chunked, Framing::Double, true);
    check(&chunked, Framing::Unseen, true);
    check(&plain, Framing::Unseen, false);
    check(&plain, Framing::Double, true);
    check(&plain, Framing::Long, true);
}

#[test]
fn what_belongs_to_one_hop_stays_there() {
    let mut headers = request(
        "/",
        &[
            ("connection", "keep-alive, X-Secret , host"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a"),
            ("authorization", "Bearer x"),
            ("trailer", "x-sum"),
        ],
    )
    .headers;
    strip(&mut headers);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["authorization", "host", "trailer"]);
}

#[test]
fn an_engine_is_told_who_asks() {
    let check = |given: &[(&str, &str)], address: &str, expected: &[(&str, &str)]| {
        let parts = request("/", given);
        let mut headers = parts.headers;
        let origin = Origin { address: address.parse().expect("an address"), tls: true };
        to_engine(&mut headers, &parts.uri, origin);
        for (name, value) in expected {
            let all: Vec<_> =
                headers.get_all(*name).iter().map(|v| v.to_str().expect("text")).collect();
            assert_eq!(all.join(" | "), *value, "{name} of {headers:?}");
        }
    };
    check(
        &[("host", "api.example"), ("expect", "100-continue")],
        "::ffff:192.0.2.1",
        &[
            ("host", ""),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "api.example"),
            ("expect", ""),
            ("forwarded", ""),
        ],
    );
    check(
        &[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-host", "forged"),
            ("forwarded", "for=10.0.0.1"),
            ("te", "trailers, deflate;q=0.5"),
        ],
        "2001:db8::1",
        &[
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 2001:db8::1"),
            ("x-forwarded-host", ""),
            ("forwarded", "for=10.0.0.1 | for=\"[2001:db8::1]\";proto=https"),
            ("te", "trailers"),
        ],
    );
}

#[test]
fn cookies_of_several_lines_are_one() {
    let check = |given: &[&str], expected: &[&str]| {
        let given: Vec<_> = given.iter().map(|value| ("cookie", *value)).collect();
        let mut headers = request("/", &given).headers;
        let origin = Origin { address: [192, 0, 2, 1].into(), tls: false };
        to_engine(&mut headers, &Uri::from_static("/"), origin);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), expected);
    };
    check(&[], &[]);
    check(&["a=1; b=2"], &["a=1; b=2"]);
    check(&["a=1", "b=2", "c=3"], &["a=1; b=2; c=3"]);
}

#[test]
fn a_client_is_told_one_length_or_none() {
    let check = |status: u16, given: &[(&str, &str)], expected: &[&str]| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = request("/", given).headers;
        to_client(&mut response);
        let lengths = response.headers().get_all("content-length").iter().collect::<Vec<_>>();
        assert_eq!(lengths, expected, "{status} {given:?}");
        assert!(!response.headers().contains_key("transfer-encoding"));
    };
    let (chunked, two) = (("transfer-encoding", "chunked"), ("content-length", "2"));
    check(200, &[], &[]);
    check(200, &[two], &["2"]);
    check(200, &[two, two], &["2"]);
    check(200, &[("content-length", "2, 2")], &["2"]);
    check(200, &[two, ("content-length", "02,2")], &["2"]);
    check(200, &[chunked, two], &[]);
    check(200, &[("transfer-encoding", "gzip"), two, two], &[]);
    check(204, &[two], &[]);
    check(204, &[("content-length", "0")], &[]);
    check(304, &[two], &["2"]);
    check(304, &[two, two], &["2"]);
    // Without a body nobody has looked at them.
    check(304, &[two, ("content-length", "3")], &[]);
    check(304, &[("content-length", "2, x")], &[]);
}
