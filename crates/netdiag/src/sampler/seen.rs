//! What several looks at the flows saw between two ticks, put together.
//!
//! Invariant: each connection is in it once, whatever its ports were used for before, and no round trip is lost.

use std::borrow::Cow;
use std::collections::HashMap;

use netdiag_telemetry::{FlowKey, FlowSnapshot, give_back};

/// What was seen of each connection since the last tick, as one snapshot of it: its newest state, and all its round trips.
#[derive(Debug, Default)]
pub(super) struct Seen {
    flows: Vec<FlowSnapshot>,
    /// Where the newest connection of each key stands among them.
    at: HashMap<FlowKey, usize>,
}

impl Seen {
    pub(super) fn add(&mut self, flows: Vec<FlowSnapshot>) {
        for flow in flows {
            let before = self.at.get(&flow.key).map(|&at| &mut self.flows[at]);
            if let Some(before) = before.filter(|before| continues(before, &flow)) {
                let mut rtt = std::mem::take(&mut before.rtt);
                rtt.merge(&flow.rtt);
                let opened = flow.opened.or(before.opened);
                *before = FlowSnapshot { rtt, opened, ..flow };
            } else {
                self.at.insert(flow.key, self.flows.len());
                self.flows.push(flow);
            }
        }
    }

    /// All of it, with `last`; nothing is left.
    pub(super) fn take<'a>(&mut self, last: &'a [FlowSnapshot]) -> Cow<'a, [FlowSnapshot]> {
        if self.flows.is_empty() {
            return Cow::Borrowed(last);
        }
        self.add(last.to_vec());
        give_back(&mut self.at);
        self.at.clear();
        Cow::Owned(std::mem::take(&mut self.flows))
    }
}

/// Whether `now` is the connection of `before`, whose key it has. That it was seen being opened may be learned late.
fn continues(before: &FlowSnapshot, now: &FlowSnapshot) -> bool {
    let is_same = match (before.opened, now.opened) {
        (Some(before), Some(now)) => before == now,
        _ => true,
    };
    is_same && !before.closed && now.counters.bytes_acked >= before.counters.bytes_acked
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netdiag_telemetry::{Counters, RttSamples};

    use super::*;

    fn flow(port: u16, opened: Option<u64>, bytes_acked: u64) -> FlowSnapshot {
        let address = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
        FlowSnapshot {
            key: FlowKey::new(1, address(80), address(port)),
            opened,
            closed: false,
            counters: Counters { bytes_acked, ..Counters::default() },
            rtt: RttSamples::one(Duration::from_millis(20)),
            srtt: None,
            rttvar: None,
            cwnd: 10,
            liveness: None,
        }
    }

    #[test]
    fn looks_of_a_connection_are_one_and_of_two_are_two() {
        let check = |looks: &[&[FlowSnapshot]], expected: &[(u64, u32)]| {
            let mut seen = Seen::default();
            let (last, before) = looks.split_last().expect("looks");
            before.iter().for_each(|look| seen.add(look.to_vec()));
            let all = seen.take(last);
            let found: Vec<(u64, u32)> = all
                .iter()
                .map(|flow| {
                    let samples = flow.rtt.summary().map_or(0, |rtt| rtt.samples);
                    (flow.counters.bytes_acked, u32::try_from(samples).expect("few"))
                })
                .collect();
            assert_eq!(found, expected);
            assert!(seen.flows.is_empty() && seen.at.is_empty());
        };
        let one = |bytes| flow(1, Some(7), bytes);
        check(&[&[one(1)], &[one(2)], &[one(3)]], &[(3, 3)]);
        check(&[&[one(1), flow(2, None, 5)], &[one(2)]], &[(2, 2), (5, 1)]);
        // It is learned later that it was seen being opened.
        check(&[&[flow(1, None, 1)], &[one(2)]], &[(2, 2)]);
        // Its ports are another's.
        check(&[&[one(9)], &[flow(1, Some(8), 10)]], &[(9, 1), (10, 1)]);
        check(&[&[flow(1, None, 9)], &[flow(1, Some(8), 2)]], &[(9, 1), (2, 1)]);
        let closed = FlowSnapshot { closed: true, ..one(9) };
        check(&[&[one(8)], &[closed], &[one(9)]], &[(9, 2), (9, 1)]);
    }
}
