//! Where a collector is.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// Where it takes metrics, below the URL that it is known by (OTLP/HTTP, "Binary Protobuf Encoding").
const SIGNAL: &str = "/v1/metrics";

/// A collector's URL for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it stands in a URL: IPv6 in brackets.
    host: String,
    port: u16,
    path: String,
    is_tls: bool,
}

/// Why a URL is no collector's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL of HTTP.
    #[error("must be http://HOST[:PORT][/PATH] or https://…, such as http://127.0.0.1:4318")]
    NoUrl,
    /// It would be shown to whoever lists processes.
    #[error(
        "must have no name or password in it: put an authorization header into a file of headers"
    )]
    HasCredentials,
    /// What is behind a question mark would be lost.
    #[error("must have no query")]
    HasQuery,
}

impl Endpoint {
    /// The collector that is known by `url`: metrics go to `/v1/metrics` below, if that is not what it names.
    pub fn of_base(url: &str) -> Result<Self, InvalidEndpoint> {
        let mut endpoint = Self::exactly(url)?;
        if !endpoint.path.ends_with(SIGNAL) {
            let base = endpoint.path.trim_end_matches('/');
            endpoint.path = format!("{base}{SIGNAL}");
        }
        Ok(endpoint)
    }

    /// The collector that takes metrics at `url` itself.
    pub fn exactly(url: &str) -> Result<Self, InvalidEndpoint> {
        let url = Uri::from_str(url.trim()).map_err(|_| InvalidEndpoint::NoUrl)?;
        let is_tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidEndpoint::NoUrl),
        };
        let authority = url.authority().ok_or(InvalidEndpoint::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(InvalidEndpoint::HasCredentials);
        }
        if url.query().is_some() {
            return Err(InvalidEndpoint::HasQuery);
        }
        let host = authority.host().to_owned();
        // A port that is no number leaves its colon behind.
        let has_colon = authority.as_str().len() > host.len();
        let port = match (authority.port_u16(), is_tls) {
            (Some(port), _) if port > 0 => port,
            (None, false) if !has_colon => 80,
            (None, true) if !has_colon => 443,
            _ => return Err(InvalidEndpoint::NoUrl),
        };
        if host.is_empty() {
            return Err(InvalidEndpoint::NoUrl);
        }
        Ok(Self { host, port, path: url.path().to_owned(), is_tls })
    }

    /// The host as names are resolved and certificates are checked: without brackets.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What the `Host` header says.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_where_metrics_are_taken() {
        let check = |url: &str, expected: Result<&str, InvalidEndpoint>| {
            let found = Endpoint::of_base(url).map(|endpoint| endpoint.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{url}");
        };
        check("http://c:4318", Ok("http://c:4318/v1/metrics"));
        check("http://c:4318/", Ok("http://c:4318/v1/metrics"));
        check(" http://c ", Ok("http://c:80/v1/metrics"));
        check("https://c/otlp/", Ok("https://c:443/otlp/v1/metrics"));
        check("https://[::1]:4318/v1/metrics", Ok("https://[::1]:4318/v1/metrics"));
        check("http://user:secret@c", Err(InvalidEndpoint::HasCredentials));
        check("http://c/?key=secret", Err(InvalidEndpoint::HasQuery));
        for bad in [
            "",
            "c",
            "c:4318",
            "grpc://c",
            "http://",
            "http://c:0",
            "http://c:99999",
            "http://c:x",
            "http:///x",
        ] {
            check(bad, Err(InvalidEndpoint::NoUrl));
        }
    }

    #[test]
    fn an_address_of_its_own_is_taken_as_it_is() {
        let path = |url: &str| Endpoint::exactly(url).expect("a URL").path;
        assert_eq!(path("http://c/api/otlp"), "/api/otlp");
        assert_eq!(Endpoint::exactly("http://[::1]:1").expect("a URL").host(), "::1");
    }
}
