//! Headers on their way through: what belongs to one hop stays there (RFC 9110 §7.6.1), what an engine should know of the
//! client is added, and what could mean different things to two readers is refused.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Uri, Version};

use netdiag_http::Token;

use crate::failure::Failure;
use crate::framing::Framing;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// nginx' word for whether it may collect an answer (`proxy_buffering`).
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const REPORT: HeaderName = HeaderName::from_static("x-netdiag-report");

/// What concerns one connection and is never passed on (RFC 9110 §7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // HTTP/2's settings in an upgrade (RFC 9113 §3.1 has done away with it).
    HeaderName::from_static("http2-settings"),
];

/// Of a proxy that asks for a password, and who answers it: the next proxy, which is us.
const OF_PROXIES: [HeaderName; 2] = [header::PROXY_AUTHORIZATION, header::PROXY_AUTHENTICATE];

/// Refuses requests that two readers could understand differently, or that ask for what is not done here.
pub(crate) fn check(request: &Parts, framing: Framing) -> Result<(), Failure> {
    if framing == Framing::Long {
        return Err(Failure::HeadTooLong);
    }
    let headers = &request.headers;
    if request.method == Method::CONNECT {
        return Err(Failure::NotImplemented("this is no tunnel: CONNECT is not answered"));
    }
    if asks_for_websocket(headers) {
        return Err(Failure::NotImplemented(
            "WebSockets are not passed on: ask for an event stream",
        ));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let encoded = headers.contains_key(header::TRANSFER_ENCODING);
    if lengths > 1 || (lengths == 1 && encoded) || framing == Framing::Double {
        return Err(Failure::Malformed("the length of the request's body is given in two ways"));
    }
    if encoded && framing == Framing::Unseen {
        return Err(Failure::Malformed(
            "a request with a coded body must wait for the answer to the one before",
        ));
    }
    let codings = headers.get_all(header::TRANSFER_ENCODING);
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.iter().count() > 1 || !codings.iter().all(chunked) {
        return Err(Failure::Malformed("no Transfer-Encoding but chunked is understood"));
    }
    check_host(request.version, &request.uri, headers)
}

/// One host, and the same wherever it is named (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Failure::Malformed("there is more than one Host header"));
    }
    if let Some(scheme) = uri.scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(Failure::Malformed("the request's target is neither http nor https"));
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(Failure::Malformed("the request's target has a user name"));
    }
    match (host, authority) {
        (None, None) if version == Version::HTTP_11 => {
            Err(Failure::Malformed("there is no Host header"))
        }
        (Some(host), Some(authority))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            Err(Failure::Malformed("the Host header and the request's target differ"))
        }
        (Some(host), None) if !is_host(host.as_bytes()) => {
            Err(Failure::Malformed("the Host header is malformed"))
        }
        _ => Ok(()),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), by its characters. Clients of a proxy may send it empty.
fn is_host(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    host.iter().all(allowed)
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(header::UPGRADE).iter();
    let names = protocols.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    names.map(str::trim).any(|name| name.eq_ignore_ascii_case("websocket"))
}

/// Takes away what belongs to one hop.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let names = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        named.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    for name in named.iter().chain(&HOP_BY_HOP).chain(&OF_PROXIES) {
        // `Connection: host` must not take away what we put in its place, nor the frame of the message.
        if *name != header::HOST && *name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// The client as an engine is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    pub(crate) tls: bool,
}

/// Makes a client's headers those of a request to an engine.
/// Whose `Host` it has is up to the engine that is chosen.
pub(crate) fn to_engine(headers: &mut HeaderMap, uri: &Uri, origin: Origin) {
    // Whether trailers are understood is asked hop by hop. We understand them, and pass on if the client does.
    let trailers = wants_trailers(headers);
    strip(headers);
    join_cookies(headers);
    // We have said `100 Continue` by reading the body.
    headers.remove(header::EXPECT);
    let asked = match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers.get(header::HOST).cloned(),
    };
    headers.remove(header::HOST);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // The last address is the one that we vouch for; those before it are what the client says.
    let address = origin.address.to_canonical().to_string();
    let mut chain: Vec<u8> = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(address.as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    let scheme = if origin.tls { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    match asked {
        Some(asked) => drop(headers.insert(FORWARDED_HOST, asked)),
        None => drop(headers.remove(&FORWARDED_HOST)),
    }
    // Where somebody tells the chain in the standard's way (RFC 7239), it must not end before us.
    if headers.contains_key(header::FORWARDED) {
        let node = match origin.address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        if let Ok(element) = HeaderValue::from_str(&format!("for={node};proto={scheme}")) {
            headers.append(header::FORWARDED, element);
        }
    }
}

/// HTTP/2 may send each cookie in a line of its own, which elsewhere must be one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let cookies: Vec<&[u8]> = cookies.collect();
    if cookies.len() > 1
        && let Ok(all) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, all);
    }
}

/// Takes away the token that the gateway asks for, as OpenAI's and as Anthropic's SDKs send keys. Without it the request is refused.
/// An engine's own key cannot go with it, and so does not meet with it either.
pub(crate) fn take_token(headers: &mut HeaderMap, token: &Token) -> Result<(), Failure> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let key = headers.get(&API_KEY).and_then(|value| value.to_str().ok());
    let [by_bearer, by_key] = [bearer, key].map(|given| given.is_some_and(|given| token.is(given)));
    // Where both say it, neither goes on.
    if by_bearer {
        headers.remove(header::AUTHORIZATION);
    }
    if by_key {
        headers.remove(API_KEY);
    }
    if by_bearer || by_key { Ok(()) } else { Err(Failure::Unauthorized) }
}

/// Whether a request shows something that may be the wrong token.
pub(crate) fn shows_token(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(API_KEY)
}

/// Asks proxies in front not to collect an event stream: that would undo its pacing, and hide a client that takes nothing. What the
/// engine says of it stays.
pub(crate) fn forbid_buffering(headers: &mut HeaderMap) {
    headers.entry(ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
}

/// Whether the client wants to be told at the end of its stream how it went. That is between it and us.
pub(crate) fn take_report(headers: &mut HeaderMap) -> bool {
    headers.remove(REPORT).is_some_and(|value| value == "1" || value == "true")
}

/// Makes an engine's headers those of our answer.
pub(crate) fn to_client<B>(response: &mut Response<B>) {
    let status = response.status();
    let headers = response.headers_mut();
    settle_length(status, headers);
    strip(headers);
}

/// Leaves one length at most, and only one by which the body was read (RFC 9112 §6.3): the client would believe another one, and
/// end the answer elsewhere. An answer to HEAD and one of 304 tell the length of what they do not have, and keep it.
fn settle_length(status: StatusCode, headers: &mut HeaderMap) {
    let told = headers.get_all(header::CONTENT_LENGTH);
    let is_list = |value: &HeaderValue| value.as_bytes().contains(&b',');
    let is_repeated = told.iter().count() > 1 || told.iter().any(is_list);
    let is_coded = headers.contains_key(header::TRANSFER_ENCODING);
    if is_coded || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    } else if is_repeated {
        match one_length(headers) {
            Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
            // hyper has refused it, unless there is no body.
            None => drop(headers.remove(header::CONTENT_LENGTH)),
        }
    }
}

/// The length that is told several times, if it is the same each time.
fn one_length(headers: &HeaderMap) -> Option<u64> {
    let mut one = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for length in value.to_str().ok()?.split(',') {
            let length = length.trim().parse().ok()?;
            if one.replace(length).is_some_and(|other| other != length) {
                return None;
            }
        }
    }
    one
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::TE).iter();
    let names = codings.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    names.map(str::trim).any(|name| name.eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests;
