//! Which broker, and what it lets us in by.
//!
//! Invariant: no secret is in a message, in a log line, or in what `Debug` shows: credentials are taken out of the address first.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::net::lookup_host;

/// Address of a broker: `nats://HOST[:PORT]`, or `tls://…`, which insists on TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUrl {
    pub(super) server: ServerAddr,
    pub(super) login: Option<(String, String)>,
}

/// An address that is none of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBus {
    /// Another scheme, no host, a path, no port that there is.
    #[error(
        "must be nats://HOST[:PORT] or tls://HOST[:PORT] with a port of 1 to 65535, such as nats://127.0.0.1:4222"
    )]
    Address,
    /// A name without a password, or a password without a name.
    #[error(
        "must be nats://NAME:PASSWORD@HOST where somebody logs in, with %25 for a `%`; a token goes into a file of its own (--bus-token-file)"
    )]
    Login,
}

impl FromStr for BusUrl {
    type Err = InvalidBus;

    fn from_str(text: &str) -> Result<Self, InvalidBus> {
        let server: ServerAddr = text.trim().parse().map_err(|_| InvalidBus::Address)?;
        let mut url = server.into_inner();
        let is_plain =
            matches!(url.path(), "" | "/") && url.query().is_none() && url.port() != Some(0);
        if !matches!(url.scheme(), "nats" | "tls") || !url.has_host() || !is_plain {
            return Err(InvalidBus::Address);
        }
        let decoded = |text: &str| {
            let bytes = percent_decode_str(text).decode_utf8();
            bytes.map(|text| text.into_owned()).map_err(|_| InvalidBus::Login)
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) | (_, None) => return Err(InvalidBus::Login),
            (name, Some(password)) => Some((decoded(name)?, decoded(password)?)),
        };
        url.set_username("")
            .and_then(|()| url.set_password(None))
            .map_err(|()| InvalidBus::Address)?;
        let server = ServerAddr::from_url(url).map_err(|_| InvalidBus::Address)?;
        Ok(Self { server, login })
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.server.host();
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{host}{close}:{}", self.server.scheme(), self.server.port())
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the broker lets us in by, beyond a name and a password in its address.
#[derive(Clone)]
pub enum Credentials {
    /// The text of a credentials file: a JWT and the seed that it is signed for.
    File(String),
    /// A token.
    Token(String),
}

impl Credentials {
    /// Those in a file of this text.
    ///
    /// # Errors
    ///
    /// Not a JWT and a seed.
    pub fn file(text: String) -> std::io::Result<Self> {
        ConnectOptions::with_credentials(&text)?;
        Ok(Self::File(text))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::File(_) => "File(…)",
            Credentials::Token(_) => "Token(…)",
        })
    }
}

/// Which broker, and how it is asked.
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// The servers of one cluster.
    pub servers: Vec<BusUrl>,
    /// What it lets us in by.
    pub credentials: Option<Credentials>,
    /// What `tls://` servers are told by, and what we show them; `None` for what the system trusts.
    pub tls: Option<rustls::ClientConfig>,
    /// How the broker shows this connection to whoever runs it, and what its inbox is named after: one level of a subject.
    pub name: String,
    /// Messages that a subscription may leave untaken before the newest are dropped.
    pub untaken: usize,
}

impl BusSettings {
    /// Messages that a subscription may leave untaken, unless told otherwise: a second of a busy fleet.
    pub const UNTAKEN: usize = 16 * 1024;

    /// The broker at `servers`, with no credentials.
    pub fn new(servers: Vec<BusUrl>, name: impl Into<String>) -> Self {
        Self { servers, credentials: None, tls: None, name: name.into(), untaken: Self::UNTAKEN }
    }

    /// Where the servers are at present, as far as their names can be resolved.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for url in &self.servers {
            if let Ok(found) = lookup_host((url.server.host(), url.server.port())).await {
                all.extend(found);
            }
        }
        all
    }

    /// The servers, for people.
    pub fn place(&self) -> String {
        self.servers.iter().map(BusUrl::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms_and_never_their_secrets() {
        let check = |text: &str, shown: &str| {
            let url: BusUrl = text.parse().expect(text);
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        };
        check("nats://127.0.0.1:4222", "nats://127.0.0.1:4222");
        check("nats://broker", "nats://broker:4222");
        check("broker:4333", "nats://broker:4333");
        check("tls://broker/", "tls://broker:4222");
        check("nats://[::1]:4222", "nats://[::1]:4222");
        check("nats://me:secret@broker:4222", "nats://broker:4222");
        for bad in [
            "",
            "http://broker",
            "nats://",
            "nats://broker/x",
            "nats://broker:99999",
            "nats://broker:0",
        ] {
            assert_eq!(bad.parse::<BusUrl>(), Err(InvalidBus::Address), "{bad}");
        }
        // What is meant for a token, or lacks its half.
        for bad in ["nats://hush@broker", "nats://:hush@broker", "nats://%FF:hush@broker"] {
            let error = bad.parse::<BusUrl>().expect_err(bad);
            assert!(error == InvalidBus::Login && !error.to_string().contains("hush"), "{error}");
        }
        let url: BusUrl = "nats://me:se%2Fcr%40t@broker".parse().expect("an address");
        assert_eq!(url.login, Some(("me".to_owned(), "se/cr@t".to_owned())));
        let url: BusUrl = "nats://me:secret@broker".parse().expect("an address");
        let settings = BusSettings {
            credentials: Some(Credentials::Token("hush".to_owned())),
            ..BusSettings::new(vec![url], "n")
        };
        let shown = format!("{settings:?} {}", settings.place());
        assert!(!shown.contains("secret") && !shown.contains("hush"), "{shown}");
    }
}
