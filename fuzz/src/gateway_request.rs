//! Requests: any bytes as one, in pieces of any length, on their way through the gateway.
//!
//! The first byte of an input says how many bytes come at a time. What goes to the engine is read again here, by a reader that
//! takes nothing but the plainest form of a request: what it does not take could be taken in two ways.

use std::cell::RefCell;
use std::num::NonZeroU32;

use netdiag_gateway::examine::{Examiner, Passed, Verdict};

/// Tokens of a segment. A request for fewer is asked for as a whole.
const SEGMENT: NonZeroU32 = NonZeroU32::new(16).expect("more than none");

/// What belongs to one hop.
const HOPS: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "upgrade",
    "http2-settings",
    "expect",
];

thread_local! {
    static EXAMINER: RefCell<Option<Examiner>> = const { RefCell::new(None) };
}

/// Panics if what is refused reaches an engine, or if what reaches it could be read in two ways.
pub fn gateway_request(input: &[u8]) {
    match verdict(input) {
        Verdict::Unread | Verdict::Returning => {}
        Verdict::Refused(status) => assert!((400..600).contains(&status), "{status}"),
        Verdict::Passed(passed) => check(&passed),
    }
}

/// What becomes of the request in an input.
pub(crate) fn verdict(input: &[u8]) -> Verdict {
    let Some((&piece, bytes)) = input.split_first() else { return Verdict::Unread };
    // 0 is all at once.
    let piece = if piece == 0 { usize::MAX } else { usize::from(piece) };
    EXAMINER.with_borrow_mut(|examiner| {
        let examiner = examiner.get_or_insert_with(|| {
            let engine = "http://engine.example:8000/base".parse().expect("an address");
            Examiner::try_new(engine, SEGMENT).expect("timers")
        });
        examiner.examine(bytes, piece)
    })
}

fn check(Passed { wire, in_segments }: &Passed) {
    let text = || String::from_utf8_lossy(wire).into_owned();
    let Some(end) = wire.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        // hyper has not written it yet, for want of a body's first bytes.
        assert!(wire.is_empty(), "half a head: {}", text());
        return;
    };
    let (head, body) = (&wire[..end + 2], &wire[end + 4..]);
    let mut lines = head.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a bare LF: {}", text()));
        assert!(!line.contains(&b'\r') && !line.contains(&0), "a bare CR: {}", text());
        line
    });
    let request = lines.next().unwrap_or_default();
    let words: Vec<&[u8]> = request.split(|&byte| byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { panic!("no request: {}", text()) };
    assert!(!method.is_empty() && method != b"CONNECT", "{}", text());
    assert!(target.starts_with(b"/base"), "another target: {}", text());
    let (mut hosts, mut lengths, mut chunked) = (Vec::new(), Vec::new(), false);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or_else(|| panic!("no field: {}", text())));
        let value = value[1..].trim_ascii();
        // No white space, which some take for a part of the name and some for none.
        let name = std::str::from_utf8(name).unwrap_or_else(|_| panic!("a name: {}", text()));
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "a name: {}", text());
        let name = name.to_ascii_lowercase();
        assert!(!HOPS.contains(&&*name), "{name} is passed on: {}", text());
        match &*name {
            "host" => hosts.push(value),
            "te" => assert_eq!(value, b"trailers", "{}", text()),
            "content-length" => {
                let value = std::str::from_utf8(value).expect("a number");
                lengths.push(value.parse::<usize>().expect("a number"));
            }
            "transfer-encoding" => {
                assert!(value == b"chunked" && !chunked, "{}", text());
                chunked = true;
            }
            _ => {}
        }
    }
    assert_eq!(hosts, [b"engine.example:8000"], "{}", text());
    assert!(lengths.len() + usize::from(chunked) <= 1, "two lengths: {}", text());
    if chunked {
        check_chunks(body);
    } else {
        let length = lengths.first().copied().unwrap_or(0);
        assert!(body.len() <= length, "more than one request: {}", text());
    }
    if *in_segments {
        check_segment(body);
    }
}

/// Chunks, as far as they have come, and nothing behind the last.
fn check_chunks(mut body: &[u8]) {
    while let Some(end) = body.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size and nothing else");
        body = &body[end + 2..];
        if size == 0 {
            // Trailers, if any, and the empty line.
            assert!(body.is_empty() || body.ends_with(b"\r\n"), "{body:?}");
            let inner = body.strip_suffix(b"\r\n").unwrap_or_default();
            assert!(!inner.starts_with(b"\r\n"), "more than one request: {body:?}");
            assert!(!inner.windows(4).any(|b| b == b"\r\n\r\n"), "more than one: {body:?}");
            return;
        }
        if body.len() < size + 2 {
            return;
        }
        assert_eq!(&body[size..size + 2], b"\r\n");
        body = &body[size + 2..];
    }
}

/// The request for a first segment: streamed, no longer than a segment, with its usage.
fn check_segment(body: &[u8]) {
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["stream"], true, "{body}");
    assert_eq!(body["stream_options"]["include_usage"], true, "{body}");
    let length = ["max_tokens", "max_completion_tokens"].map(|name| body[name].as_u64());
    let longest = length.into_iter().flatten().max().expect("a length");
    assert!(longest <= u64::from(SEGMENT.get()), "{body}");
}
