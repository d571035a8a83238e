//! Names on the bus: of nodes, of subjects, and of keys in the bucket of last values.
//!
//! Invariant: a subject's levels and a key hold only characters that NATS admits in both (`A-Z a-z 0-9 - _`, levels apart by `.`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netdiag_telemetry::Scope;
use serde::{Deserialize, Serialize};

/// What all subjects of hints begin with. A change of meaning gets another version.
pub(crate) const PREFIX: &str = "netdiag.v1.hint";

/// Longest name: that of a label in DNS (RFC 1035 §2.3.4).
const LONGEST: usize = 63;

/// A node's name: one level of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

/// A name that cannot be a level of a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a node: give 1 to 63 characters of A-Z a-z 0-9 - _")]
pub struct InvalidNode(String);

impl NodeName {
    /// A name as somebody gave it.
    ///
    /// # Errors
    ///
    /// One that is empty, too long, or has other characters than those admitted.
    pub fn try_new(name: &str) -> Result<Self, InvalidNode> {
        let admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=LONGEST).contains(&name.len()) && name.bytes().all(admitted) {
            return Ok(Self(name.to_owned()));
        }
        let shown = name.chars().take(LONGEST + 1).flat_map(char::escape_debug).collect();
        Err(InvalidNode(shown))
    }

    /// The name of a host, with `-` for what is not admitted: `gpu-1.example.org` is `gpu-1-example-org`.
    pub fn of_host(name: &str) -> Self {
        let admit = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let name: String = name.chars().map(admit).take(LONGEST).collect();
        Self(if name.is_empty() { "localhost".to_owned() } else { name })
    }

    /// That of one of several processes of a host: the host's name is cut, the process' number never.
    pub fn of_process(host: &Self, process: u32) -> Self {
        let number = format!("-{process}");
        let host = &host.0[..host.0.len().min(LONGEST - number.len())];
        Self(format!("{host}{number}"))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNode;

    fn try_from(name: String) -> Result<Self, InvalidNode> {
        Self::try_new(&name)
    }
}

/// What follows the prefix in a subject; the key in the bucket of last values.
pub(crate) fn key(node: &NodeName, scope: &Scope) -> String {
    match scope {
        Scope::Host => format!("{node}.host"),
        Scope::Peer(ip) => format!("{node}.peer.{}", level(*ip)),
        Scope::Stream(flow) => format!("{node}.stream.{}", stream(flow.peer)),
    }
}

/// The subject of what has that key.
pub(crate) fn subject(key: &str) -> String {
    format!("{PREFIX}.{key}")
}

/// The key of what has that subject, and the node in it.
pub(crate) fn parse(subject: &str) -> Option<(&str, &str)> {
    let key = subject.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let (node, _scope) = key.split_once('.')?;
    Some((key, node))
}

fn stream(peer: SocketAddr) -> String {
    format!("{}_{}", level(peer.ip()), peer.port())
}

fn level(ip: IpAddr) -> String {
    ip.to_canonical().to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use netdiag_telemetry::FlowKey;

    use super::*;

    #[test]
    fn names_are_levels_of_a_subject() {
        for good in ["a", "gpu-1", "GPU_2", &"n".repeat(63)] {
            assert_eq!(NodeName::try_new(good).expect("a name").as_str(), good);
        }
        for bad in ["", "a.b", "a b", "*", ">", "é", "a\n", &"n".repeat(64)] {
            let error = NodeName::try_new(bad).expect_err("no name").to_string();
            assert!(error.contains("A-Z a-z 0-9") && !error.contains('\n'), "{error}");
        }
        let of_host = |name: &str| NodeName::of_host(name).to_string();
        assert_eq!(of_host("gpu-1.example.org"), "gpu-1-example-org");
        assert_eq!(of_host(""), "localhost");
        assert_eq!(of_host(&"é".repeat(99)).len(), 63);
        let long = NodeName::of_host(&"n".repeat(99));
        let name = NodeName::of_process(&long, 4_194_304);
        assert_eq!((name.as_str().len(), name.as_str().ends_with("n-4194304")), (63, true));
    }

    #[test]
    fn every_scope_has_a_key_of_its_own() {
        let node = NodeName::try_new("n1").expect("a name");
        let peer = |text: &str| Scope::Peer(text.parse().expect("an address"));
        let flow = |peer: &str| {
            let local = "192.0.2.9:443".parse().expect("an address");
            Scope::Stream(FlowKey::new(1, local, peer.parse().expect("an address")))
        };
        let check = |scope: Scope, expected: &str| {
            let key = key(&node, &scope);
            assert_eq!(key, expected);
            assert_eq!(parse(&subject(&key)), Some((expected, "n1")));
        };
        check(Scope::Host, "n1.host");
        check(peer("192.0.2.1"), "n1.peer.192-0-2-1");
        check(peer("2001:db8::1"), "n1.peer.2001-db8--1");
        check(peer("::1"), "n1.peer.--1");
        check(peer("::ffff:192.0.2.1"), "n1.peer.192-0-2-1");
        check(flow("192.0.2.1:50000"), "n1.stream.192-0-2-1_50000");
        check(flow("[2001:db8::1]:80"), "n1.stream.2001-db8--1_80");
        for foreign in ["", "netdiag.v1.hint", "netdiag.v1.hint.n1", "netdiag.v2.hint.n1.host"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
