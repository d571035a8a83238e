//! What other processes list, with pseudonyms for clients' addresses. What this process measures itself has them already, by
//! `Board::anonymised`.

use std::net::SocketAddr;

use anyhow::Context as _;
use netdiag_dashboard::FlowRow;
use netdiag_http::Pseudonyms;
use serde_json::Value;

/// A hint server's flows.
pub(crate) fn flows(mut flows: Vec<FlowRow>, pseudonyms: &Pseudonyms) -> Vec<FlowRow> {
    for flow in &mut flows {
        flow.peer = pseudonyms.socket(flow.peer);
        // Of a connection that stays on a host, its end may be another one's client.
        if flow.local.ip().is_loopback() {
            flow.local = pseudonyms.socket(flow.local);
        }
    }
    flows
}

/// A gateway's list of streams, as JSON.
pub(crate) fn streams(json: &[u8], pseudonyms: &Pseudonyms) -> anyhow::Result<Vec<u8>> {
    let mut list: Value = serde_json::from_slice(json).context("its list of streams")?;
    let streams = list["streams"].as_array_mut().context("its list of streams has none")?;
    for stream in streams {
        let peer: Option<SocketAddr> = stream["peer"].as_str().and_then(|peer| peer.parse().ok());
        // What cannot be read as an address is not shown as one.
        stream["peer"] =
            peer.map_or(Value::Null, |peer| pseudonyms.socket(peer).to_string().into());
    }
    Ok(serde_json::to_vec(&list)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_list_has_pseudonyms_and_is_the_same_otherwise() {
        let pseudonyms = Pseudonyms::random([1; 32]);
        let json = br#"{"total":2,"streams":[{"peer":"192.0.2.1:443","model":"m"},{"peer":"x"}]}"#;
        let shown = streams(json, &pseudonyms).expect("a list");
        let shown: Value = serde_json::from_slice(&shown).expect("JSON");
        let peer = pseudonyms.socket("192.0.2.1:443".parse().expect("an address"));
        assert_eq!(shown["streams"][0]["peer"], peer.to_string());
        assert_eq!(shown["streams"][0]["model"], "m");
        assert_eq!(shown["streams"][1]["peer"], Value::Null);
        assert_eq!(shown["total"], 2);
        streams(b"{}", &pseudonyms).expect_err("no list");
    }
}
