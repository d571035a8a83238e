//! The query parameters: `peer`, `rows`, `limit`, `offset`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::IntErrorKind;

use axum::http::StatusCode;
use netdiag_http::Problem;
use netdiag_telemetry::{Scope, canonical};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Most streams in one answer: about a megabyte.
const MOST_STREAMS: usize = 1000;

/// Which scope a hint is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Host,
    Peer(IpAddr),
    Stream(SocketAddr),
}

impl Target {
    /// Whose hint it is, without what that is.
    pub(crate) fn address(self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Peer(peer) => peer.to_string(),
            Self::Stream(peer) => peer.to_string(),
        }
    }
}

/// What a hint for it says that it speaks of.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => Scope::Host.fmt(f),
            Self::Peer(peer) => Scope::Peer(*peer).fmt(f),
            Self::Stream(peer) => write!(f, "stream {peer}"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct HintQuery {
    peer: Option<String>,
}

impl HintQuery {
    pub(crate) fn target(&self) -> Result<Target, Problem> {
        let Some(peer) = &self.peer else { return Ok(Target::Host) };
        if let Ok(address) = peer.parse::<SocketAddr>() {
            return Ok(Target::Stream(canonical(address)));
        }
        let bare = peer.strip_prefix('[').and_then(|peer| peer.strip_suffix(']')).unwrap_or(peer);
        match bare.parse::<IpAddr>() {
            Ok(address) => Ok(Target::Peer(address.to_canonical())),
            Err(_) => {
                let message = format!(
                    "peer `{}` is not an address: expected IP or IP:PORT, IPv6 with a port in brackets ([::1]:80)",
                    shown(peer)
                );
                Err(Problem::new(StatusCode::BAD_REQUEST, message))
            }
        }
    }
}

/// Of an event stream.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct EventsQuery {
    peer: Option<String>,
    /// Send the host's rows, too.
    #[serde(default)]
    pub(crate) rows: bool,
}

impl EventsQuery {
    pub(crate) fn target(&self) -> Result<Target, Problem> {
        HintQuery { peer: self.peer.clone() }.target()
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    #[serde(default, deserialize_with = "whole_number")]
    limit: Option<usize>,
    #[serde(default, deserialize_with = "whole_number")]
    offset: Option<usize>,
}

fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<usize>() {
        Ok(number) => Ok(Some(number)),
        // More than there can be.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(Some(usize::MAX)),
        Err(_) => {
            let shown = shown(&text);
            Err(D::Error::custom(format!("`{shown}` is not a whole number from 0 on")))
        }
    }
}

/// What was asked for, as it may be shown in an answer.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

impl PageQuery {
    /// The part of `all` that is asked for.
    pub(crate) fn page<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let rest = all.get(self.offset.unwrap_or(0)..).unwrap_or_default();
        &rest[..self.limit.unwrap_or(MOST_STREAMS).min(MOST_STREAMS).min(rest.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_in_all_their_forms() {
        let check = |peer: &str, expected: Option<Target>| {
            let query = HintQuery { peer: Some(peer.to_owned()) };
            assert_eq!(query.target().ok(), expected, "{peer}");
        };
        let ip = |text: &str| Some(Target::Peer(text.parse().expect("address")));
        let stream = |text: &str| Some(Target::Stream(text.parse().expect("address")));
        check("192.0.2.1", ip("192.0.2.1"));
        check("192.0.2.1:80", stream("192.0.2.1:80"));
        check("2001:db8::1", ip("2001:db8::1"));
        check("[2001:db8::1]", ip("2001:db8::1"));
        check("[2001:db8::1]:80", stream("[2001:db8::1]:80"));
        check("::ffff:192.0.2.1", ip("192.0.2.1"));
        check("[::ffff:192.0.2.1]:80", stream("192.0.2.1:80"));
        for bad in ["", "host", "192.0.2.1:", "192.0.2.1:99999", "192.0.2.256", "[::1", "1"] {
            check(bad, None);
        }
    }

    #[test]
    fn pages_are_bounded() {
        let all: Vec<u32> = (0..2500).collect();
        let page = |limit, offset| PageQuery { limit, offset }.page(&all).len();
        assert_eq!(page(None, None), MOST_STREAMS);
        assert_eq!(page(Some(usize::MAX), Some(2000)), 500);
        assert_eq!(page(Some(10), Some(usize::MAX)), 0);
        assert_eq!(page(Some(0), None), 0);
    }
}
