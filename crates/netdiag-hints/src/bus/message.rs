//! One hint on the bus: the hint's JSON, with who says it, in which order, when, and for how long it holds.
//!
//! Invariant: what is read is a hint of the node that the subject names, and no larger than [`LARGEST`].

use std::time::Duration;

use netdiag_pacer::Hint;
use serde::{Deserialize, Serialize};

use super::subject::{self, NodeName};

/// Largest message read, bytes. Ours have some five hundred; a reason may grow.
const LARGEST: usize = 16 * 1024;

/// Longest time that a hint is taken to hold, whatever it says itself: an hour of silence is no recommendation.
const LONGEST: Duration = Duration::from_secs(3600);

/// A hint as a node published it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHint {
    /// Who says it.
    pub node: NodeName,
    /// When the node began to publish, Unix milliseconds: sequences of a restarted node count anew.
    pub session: u64,
    /// Counts the node's messages of this session from 1.
    pub sequence: u64,
    /// When it was said, Unix seconds by the node's clock.
    pub time: f64,
    /// For how long it holds; without another one by then, the node or the way to it is gone.
    pub ttl_seconds: f64,
    /// How many streams the node has, on the host's hint where single ones are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<usize>,
    /// The hint.
    #[serde(flatten)]
    pub hint: Hint,
}

/// A message that is no hint.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMessage {
    /// Not a subject of hints.
    #[error("its subject is none of hints")]
    Subject,
    /// Too large to be one.
    #[error("it has {0} bytes, more than {LARGEST}")]
    Size(usize),
    /// Not the JSON that it should be.
    #[error("it is no hint: {0}")]
    Json(#[from] serde_json::Error),
    /// Somebody speaks for somebody else.
    #[error("its subject is of node `{0}` and its text of node `{1}`")]
    Node(String, NodeName),
    /// A time or a time to live that cannot be.
    #[error("its time ({0}) or its time to live ({1} s) cannot be")]
    Time(f64, f64),
}

impl NodeHint {
    /// Reads a message; gives the key, too, under which it replaces older ones.
    pub(crate) fn parse<'a>(
        subject: &'a str,
        payload: &[u8],
    ) -> Result<(&'a str, Self), InvalidMessage> {
        let (key, node) = subject::parse(subject).ok_or(InvalidMessage::Subject)?;
        if payload.len() > LARGEST {
            return Err(InvalidMessage::Size(payload.len()));
        }
        let message: Self = serde_json::from_slice(payload)?;
        if message.node.as_str() != node {
            return Err(InvalidMessage::Node(node.to_owned(), message.node));
        }
        let (time, ttl) = (message.time, message.ttl_seconds);
        if !time.is_finite() || !ttl.is_finite() || ttl < 0.0 {
            return Err(InvalidMessage::Time(time, ttl));
        }
        Ok((key, message))
    }

    /// For how long it holds.
    pub fn ttl(&self) -> Duration {
        Duration::try_from_secs_f64(self.ttl_seconds).unwrap_or(LONGEST).min(LONGEST)
    }

    /// Whether it was said after `other`, of the same node.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        (self.session, self.sequence) > (other.session, other.sequence)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use netdiag_pacer::TpsRange;
    use netdiag_telemetry::{Scope, Tps};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn message(node: &str, session: u64, sequence: u64) -> NodeHint {
        let tps = |rate| Tps::try_new(rate).expect("a rate");
        let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("a range");
        NodeHint {
            node: NodeName::try_new(node).expect("a name"),
            session,
            sequence,
            time: 1_700_000_000.25,
            ttl_seconds: 2.0,
            streams: Some(3),
            hint: Hint::unknown(range, &Scope::Host, "nothing observed yet"),
        }
    }

    fn json(message: &NodeHint) -> Vec<u8> {
        serde_json::to_vec(message).expect("JSON")
    }

    #[test]
    fn it_is_the_hint_s_json_with_five_fields_more() {
        let written = message("n1", 7, 1);
        let value: serde_json::Value = serde_json::from_slice(&json(&written)).expect("JSON");
        let hint = serde_json::to_value(&written.hint).expect("JSON");
        for (name, field) in hint.as_object().expect("an object") {
            assert_eq!(&value[name], field, "{name}");
        }
        let (key, read) = NodeHint::parse("netdiag.v1.hint.n1.host", &json(&written)).expect("ok");
        assert_eq!((key, read), ("n1.host", written));
    }

    #[test]
    fn what_is_no_hint_is_told() {
        let check = |subject: &str, payload: &[u8], told: &str| {
            let error = NodeHint::parse(subject, payload).expect_err("no hint").to_string();
            assert!(error.contains(told), "{error}");
        };
        let good = json(&message("n1", 7, 1));
        check("netdiag.v1.hint.n2.host", &good, "of node `n2` and its text of node `n1`");
        check("other", &good, "subject");
        check("netdiag.v1.hint.n1.host", b"{}", "missing field");
        check("netdiag.v1.hint.n1.host", &vec![b' '; 20_000], "20000 bytes");
        let late = NodeHint { ttl_seconds: -1.0, ..message("n1", 7, 1) };
        check("netdiag.v1.hint.n1.host", &json(&late), "-1 s");
        let bad = String::from_utf8(good).expect("text").replace("\"n1\"", "\"a.b\"");
        check("netdiag.v1.hint.n1.host", bad.as_bytes(), "A-Z a-z");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_a_panic(payload: Vec<u8>, subject: String) {
            let _ = NodeHint::parse(&subject, &payload);
            prop_assert!(NodeHint::parse("netdiag.v1.hint.n1.host", &payload).is_err());
        }
    }
}
