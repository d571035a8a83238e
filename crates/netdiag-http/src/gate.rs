//! What every request passes on its way to a route: bodies, the `Host` check, authentication.
//!
//! Before the routes and not in them, so that a new route is guarded without anybody thinking of it.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::Exposure;
use crate::problem::Problem;

/// The conditions on which a request is let in.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Whom the server is open to.
    pub exposure: Exposure,
    /// Paths that need no token.
    pub open: fn(&str) -> bool,
    /// Largest request body, bytes.
    pub largest_body: u64,
    /// Whether a browser's session (the cookie that [`crate::Token::session`] is the value of) is as good as the token:
    /// a page cannot send the token itself with an `EventSource`.
    pub sessions: bool,
}

impl Gate {
    /// Why a request is not let in, if it is not.
    pub fn refusal(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length > Some(self.largest_body) || headers.contains_key(header::TRANSFER_ENCODING) {
            let message = format!(
                "no body is expected, and none above {} bytes is accepted",
                self.largest_body
            );
            return Some(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).into_response());
        }
        let host = headers.get(header::HOST).map(|value| value.as_bytes());
        if self.exposure.is_local() && !host.is_none_or(names_this_host) {
            let message =
                "this server is for this host alone: ask for it as localhost or by its address";
            return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, message).into_response());
        }
        // A browser says so where another site's page asks: it could not read the answer, but it could have it computed.
        let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
        let is_visit = headers.get("sec-fetch-mode").map(|value| value.as_bytes());
        if site == Some(b"cross-site") && is_visit != Some(b"navigate") {
            let message = "pages of other sites have no business here";
            return Some(Problem::new(StatusCode::FORBIDDEN, message).into_response());
        }
        if (self.open)(request.uri().path()) || self.admits(headers) {
            return None;
        }
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "give the token of --auth-token-file as `Authorization: Bearer TOKEN`",
        );
        Some(([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response())
    }

    /// Whether the request shows what the server asks for.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.exposure.token() else { return true };
        token.admits(headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()))
            || self.sessions && token.admits_session(headers)
    }
}

/// Whether a `Host` header means this host whoever resolves it: localhost or an address.
fn names_this_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if host.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.contains(':') => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}
