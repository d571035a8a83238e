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
        // Of a connection that stays on a host, its end is another one's client, and nothing here says whether it does.
        flow.local = pseudonyms.socket(flow.local);
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
    use netdiag_pacer::State;

    use super::*;

    #[test]
    fn of_a_flow_neither_end_is_shown_as_it_is() {
        let pseudonyms = Pseudonyms::random([1; 32]);
        let [peer, local] = ["192.0.2.1:443", "192.0.2.2:9000"].map(|end| end.parse().expect(end));
        let flow = FlowRow {
            peer,
            local,
            p95_rtt_us: None,
            srtt_us: None,
            retrans_count: 0,
            unacked_segs: None,
            notsent_bytes: None,
            waiting_us: 0,
            throughput_bps: None,
            state: State::Clear,
            cause: None,
            current_tps: 1.0,
            hold: false,
        };
        let shown = flows(vec![flow], &pseudonyms);
        assert_eq!(shown[0].peer, pseudonyms.socket(peer));
        assert_eq!(shown[0].local, pseudonyms.socket(local));
    }

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
