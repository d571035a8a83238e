//! The names that a request is found by: W3C trace context, a request's id, a stream's id.
//!
//! What a client brings is passed on if it is valid, and replaced if it is not: an engine's logs must be able to trust its
//! form.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The W3C's header for the trace (Trace Context §3.2).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The id of a request, in either direction.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of an event stream, for its client.
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-netdiag-stream-id");

/// What streams' ids begin with.
pub(crate) const STREAM_PREFIX: &str = "st_";

/// Digits of a stream's id that are shown. Of ten thousand streams no two have the same twelve, and twenty more are to be guessed.
const LABEL: usize = 12;

/// Longest id that is passed on.
const LONGEST_ID: usize = 128;

/// Gives the request a trace and an id if it has none, and says what the id is.
pub(crate) fn identify(headers: &mut HeaderMap) -> HeaderValue {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let valid = parents.next().is_some_and(|parent| is_traceparent(parent.as_bytes()));
    if !valid || parents.next().is_some() {
        // What belongs to a trace that cannot be read belongs to none (§3.3).
        headers.remove(&TRACESTATE);
        // Neither may be all zero, which chance does not bring about. Not sampled: that is for others to decide.
        let parent =
            format!("00-{:032x}-{:016x}-00", rand::random::<u128>(), rand::random::<u64>());
        if let Ok(parent) = HeaderValue::from_str(&parent) {
            headers.insert(TRACEPARENT, parent);
        }
    }
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) if is_id(id.as_bytes()) => id.clone(),
        _ => {
            let id = request_id();
            headers.insert(REQUEST_ID, id.clone());
            id
        }
    }
}

/// A UUID of version 4 (RFC 9562 §5.4): there are engines that answer 400 to any other form, llama.cpp's Python server for one.
fn request_id() -> HeaderValue {
    let bits = rand::random::<u128>();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    HeaderValue::from_str(&parts.join("-")).unwrap_or(HeaderValue::from_static("none"))
}

/// An id that nobody can guess: who knows a stream's may end it, and resume it.
pub(crate) fn new_id(prefix: &str) -> HeaderValue {
    let id = format!("{prefix}{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// What may be shown of a stream's id to others than its client: enough to tell streams apart, and too little to take one.
pub(crate) fn label(id: &str) -> &str {
    id.get(..STREAM_PREFIX.len() + LABEL).unwrap_or(id)
}

/// Whether it has the form of a stream's id.
pub(crate) fn is_stream_id(id: &str) -> bool {
    let digits = id.strip_prefix(STREAM_PREFIX).unwrap_or_default();
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == 32 && digits.bytes().all(is_hex)
}

fn is_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// `version-trace_id-parent_id-flags` (§3.2.2). A later version may have more behind the flags.
fn is_traceparent(value: &[u8]) -> bool {
    let parts: Vec<&[u8]> = value.split(|&byte| byte == b'-').collect();
    let [version, trace, parent, flags, rest @ ..] = &*parts else { return false };
    let hex = |part: &[u8], length: usize| {
        part.len() == length && part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    let not_zero = |part: &[u8]| part.iter().any(|&byte| byte != b'0');
    hex(version, 2)
        && *version != b"ff"
        && (*version != b"00" || rest.is_empty())
        && hex(trace, 32)
        && not_zero(trace)
        && hex(parent, 16)
        && not_zero(parent)
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn of_a_name_so_much_is_shown() {
        let check = |id: &str, expected: &str| assert_eq!(label(id), expected);
        check("st_0123456789abcdef0123456789abcdef", "st_0123456789ab");
        check("st_01", "st_01");
        check("st_0123456789é", "st_0123456789é");
        check("", "");
    }

    #[test]
    fn the_form_of_a_trace_parent_is_checked() {
        let check = |value: &str, expected| {
            assert_eq!(is_traceparent(value.as_bytes()), expected, "{value}");
        };
        check(PARENT, true);
        check(&PARENT.replacen("00-", "01-", 1), true);
        check(&format!("{}-more", PARENT.replacen("00-", "cc-", 1)), true);
        check(&format!("{PARENT}-more"), false);
        check(&PARENT.replacen("00-", "ff-", 1), false);
        check(&PARENT.to_uppercase(), false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("", false);
    }

    #[test]
    fn what_is_valid_is_kept_and_the_rest_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine"));
        assert_eq!(identify(&mut headers), "mine");
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "a=b");

        headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
        headers.insert(REQUEST_ID, HeaderValue::from_static("two words"));
        let id = identify(&mut headers);
        assert_eq!(headers[REQUEST_ID], id);
        let parts: Vec<&str> = id.to_str().expect("text").split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id:?}");
        assert!(is_traceparent(headers[TRACEPARENT].as_bytes()));
        assert!(!headers.contains_key(TRACESTATE));

        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        identify(&mut headers);
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
    }
}
