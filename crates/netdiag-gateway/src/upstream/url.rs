//! Where an engine is: `http://HOST[:PORT][/BASE]` or `https://…`.
//!
//! Invariant: what is held can be connected to and written into a request as it is.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::header::HeaderValue;

/// An engine's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// What every path begins with there; empty or `/…` without a slash at its end.
    base: String,
    authority: HeaderValue,
}

/// Why a text is no address of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// No URL at all, or one of another kind.
    #[error("must be http://HOST[:PORT][/BASE] or https://…, such as http://127.0.0.1:8000")]
    Form,
    /// Secrets in an address end up in logs.
    #[error("must have no user name or password: clients send their own `Authorization`")]
    UserInfo,
    /// What comes after the path is each request's own.
    #[error("must have no query and no fragment")]
    Query,
    /// As clients' base URLs do.
    #[error("must not end in /v1, which every request's path brings with it: leave that out")]
    Version,
}

impl UpstreamUrl {
    /// Whether it is asked over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// What to connect to.
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// What goes into `Host`.
    pub(crate) fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The target of a request for `path_and_query` there, in origin form.
    pub(crate) fn target(&self, path_and_query: &str) -> Option<Uri> {
        if self.base.is_empty() {
            return path_and_query.parse().ok();
        }
        format!("{}{path_and_query}", self.base).parse().ok()
    }
}

impl FromStr for UpstreamUrl {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        if text.contains('#') {
            return Err(InvalidUpstream::Query);
        }
        let uri: Uri = text.trim().parse().map_err(|_| InvalidUpstream::Form)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidUpstream::Form),
        };
        let authority = uri.authority().ok_or(InvalidUpstream::Form)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUpstream::UserInfo);
        }
        if uri.query().is_some() {
            return Err(InvalidUpstream::Query);
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // A port that is no number is none to this parser.
        let port_is_valid =
            authority.as_str().len() == host.len() || authority.port_u16() > Some(0);
        if bare.is_empty() || !port_is_valid {
            return Err(InvalidUpstream::Form);
        }
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| InvalidUpstream::Form)?;
        let base = uri.path().trim_end_matches('/');
        if base.ends_with("/v1") {
            return Err(InvalidUpstream::Version);
        }
        Ok(Self {
            tls,
            host: bare.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            base: base.to_owned(),
            authority: value,
        })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = self.authority.to_str().unwrap_or_default();
        write!(f, "{scheme}://{authority}{}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let check = |text: &str, host: &str, port: u16, target: &str| {
            let url: UpstreamUrl = text.parse().expect(text);
            assert_eq!(url.address(), (host, port), "{text}");
            assert_eq!(url.target("/v1/models?x=1").expect("valid").to_string(), target, "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'), "{text}");
        };
        check("http://127.0.0.1:8000", "127.0.0.1", 8000, "/v1/models?x=1");
        check("http://engine", "engine", 80, "/v1/models?x=1");
        check("https://engine.example/", "engine.example", 443, "/v1/models?x=1");
        check("http://[::1]:8000/a/b/", "::1", 8000, "/a/b/v1/models?x=1");
    }

    #[test]
    fn others_are_refused() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<UpstreamUrl>(), Err(expected), "{text}");
        };
        check("", InvalidUpstream::Form);
        check("127.0.0.1:8000", InvalidUpstream::Form);
        check("/v1", InvalidUpstream::Form);
        check("unix:///run/engine", InvalidUpstream::Form);
        check("http://engine:0", InvalidUpstream::Form);
        check("http://engine:99999", InvalidUpstream::Form);
        check("http://user:secret@engine", InvalidUpstream::UserInfo);
        check("http://engine/?a=b", InvalidUpstream::Query);
        check("http://engine/#a", InvalidUpstream::Query);
        check("http://engine/v1", InvalidUpstream::Version);
        check("https://engine/openai/v1/", InvalidUpstream::Version);
    }
}
