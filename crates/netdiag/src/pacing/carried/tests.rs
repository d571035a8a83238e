//! Flows seen from outside: their tokens are counted, and the engine is shared among those that are awake.

use std::net::SocketAddr;

use netdiag_pacer::Cause;
use netdiag_telemetry::{Bytes, Counters, Liveness, RttSamples};

use super::*;

fn tps(rate: f64) -> Tps {
    Tps::try_new(rate).expect("valid")
}

fn sharing(capacity: Option<f64>, reading: Option<f64>) -> Sharing {
    let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid");
    Sharing { range, capacity: capacity.map(tps), reading: reading.map(tps) }
}

fn judged() -> Hint {
    Hint::unknown(sharing(None, None).range, &Scope::Host, "p95 RTT 20 ms, usually 20 ms")
}

/// A connection of somebody else's: how many tokens of 200 bytes it has written and how many were acknowledged.
#[derive(Clone, Copy)]
struct Other {
    client: u8,
    written: u64,
    acked: u64,
}

impl Other {
    fn new(client: u8) -> Self {
        Self { client, written: 0, acked: 0 }
    }

    fn key(&self) -> FlowKey {
        let local: SocketAddr = "192.0.2.1:80".parse().expect("an address");
        FlowKey::new(1, local, SocketAddr::from(([10, 0, 0, self.client], 4000)))
    }

    /// Tokens are written and acknowledged.
    fn send(&mut self, tokens: u64) {
        self.written += tokens;
        self.acked = self.written;
    }

    fn snapshot(&self, ack_age: Duration) -> FlowSnapshot {
        let out = self.written - self.acked;
        let live = Liveness {
            unacked_segs: u32::try_from(out).expect("few"),
            queued: Some(Bytes(out * 200)),
            last_ack_age: ack_age,
            busy: if out > 0 { ack_age } else { Duration::ZERO },
            ..Liveness::default()
        };
        FlowSnapshot {
            key: self.key(),
            opened: None,
            closed: false,
            counters: Counters {
                bytes_acked: self.acked * 200,
                segs_out: u32::try_from(self.written).expect("few"),
                retrans_segs: 0,
            },
            rtt: RttSamples::default(),
            srtt: Some(Duration::from_millis(20)),
            rttvar: Some(Duration::from_millis(2)),
            cwnd: 10,
            liveness: Some(live),
        }
    }
}

/// So many looks at flows that each send `tokens` from one to the next.
fn look(flows: &mut Flows, others: &mut [Other], looks: std::ops::Range<u32>, tokens: u64) {
    for look in looks {
        others.iter_mut().for_each(|other| other.send(tokens));
        let all: Vec<_> = others.iter().map(|other| other.snapshot(Duration::ZERO)).collect();
        flows.observe(&all, TICK * look);
    }
}

fn rate(flows: &Flows, other: &Other) -> f64 {
    flows.hint(&other.key(), &judged()).expect("known").0.current_tps.get()
}

#[test]
fn tokens_are_as_long_as_segments_that_leave_alone() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..30, 3);
    let (hint, carried) = flows.hint(&others[0].key(), &judged()).expect("known");
    assert_eq!(carried.bytes_per_token, 200.0);
    assert_eq!((hint.current_tps.get(), hint.state), (80.0, State::Clear));
    assert_eq!((carried.cause, carried.carry_tps), (Some(Cause::Engine), None));
}

#[test]
fn pieces_that_a_full_buffer_takes_are_no_tokens() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..30, 3);
    for piece in 1..100 {
        let mut flow = others[0].snapshot(Duration::ZERO);
        let waiting = Bytes(4000 + 12 * piece);
        let full =
            |live| Liveness { queued: Some(waiting), notsent: waiting, unacked_segs: 10, ..live };
        flow.liveness = flow.liveness.map(full);
        flows.observe(&[flow], TICK * (29 + u32::try_from(piece).expect("few")));
    }
    let (_, carried) = flows.hint(&others[0].key(), &judged()).expect("known");
    assert_eq!(carried.bytes_per_token, 200.0);
}

#[test]
fn an_engine_is_shared_among_those_that_are_awake() {
    let mut flows = Flows::new(sharing(Some(60.0), None), None);
    let mut others: Vec<Other> = (1..=4).map(Other::new).collect();
    look(&mut flows, &mut others, 0..30, 1);
    for other in &others {
        assert!((rate(&flows, other) - 15.0).abs() < 0.1, "{}", rate(&flows, other));
    }
    let (host, _) = flows.totals();
    let hint = flows.hint_of(&host, &judged());
    assert!((hint.current_tps.get() - 15.0).abs() < 0.1, "{hint:?}");
    assert!(hint.reason.contains("4 streams") && hint.reason.contains("60.0 tok/s"), "{hint:?}");
    // Two fall asleep, and are given a share again as soon as they wake.
    for at in 30..60 {
        others[..2].iter_mut().for_each(|other| other.send(1));
        let all: Vec<_> = others.iter().map(|other| other.snapshot(Duration::ZERO)).collect();
        flows.observe(&all, TICK * at);
    }
    assert!((rate(&flows, &others[0]) - 30.0).abs() < 0.1, "{}", rate(&flows, &others[0]));
    assert_eq!(rate(&flows, &others[3]), 80.0);
    look(&mut flows, &mut others, 60..61, 1);
    assert!((rate(&flows, &others[3]) - 15.0).abs() < 0.1, "{}", rate(&flows, &others[3]));
}

#[test]
fn nobody_is_sent_far_ahead_of_what_is_read() {
    let mut flows = Flows::new(sharing(None, Some(10.0)), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..3, 1);
    // It has nothing to read yet.
    assert!(rate(&flows, &others[0]) > 10.0, "{}", rate(&flows, &others[0]));
    look(&mut flows, &mut others, 3..50, 5);
    // Five times as much as is read came for five seconds.
    assert_eq!(rate(&flows, &others[0]), 5.0);
}

#[test]
fn a_silent_flow_is_held_and_the_host_with_it_if_it_is_the_only_one() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others = [Other::new(1), Other::new(2)];
    look(&mut flows, &mut others, 0..30, 3);
    let mut silence = |others: &mut [Other], looks: std::ops::Range<u32>| {
        for look in looks.clone() {
            others[0].written += 3;
            others[1].send(3);
            let all =
                [others[0].snapshot(TICK * (look - looks.start + 1)), others[1].snapshot(TICK)];
            flows.observe(&all, TICK * look);
        }
        let (host, peers) = flows.totals();
        let peer = flows.hint_of(&peers[&others[0].key().peer.ip()], &judged());
        (flows.hint_of(&host, &judged()), peer)
    };
    let (host, peer) = silence(&mut others, 30..40);
    assert_eq!((peer.state, peer.hold), (State::Stalled, true), "{peer:?}");
    assert!(peer.reason.starts_with("path: "), "{peer:?}");
    // The other goes on; of two states the worse is the host's.
    assert_eq!((host.state, host.hold), (State::Stalled, false), "{host:?}");
    assert_eq!(host.current_tps.get(), 80.0);
    let alone = others[0].snapshot(TICK * 11);
    flows.observe(&[alone], TICK * 40);
    let (host, _) = flows.totals();
    let host = flows.hint_of(&host, &judged());
    assert_eq!((host.hold, host.scope.as_str()), (true, "host"), "{host:?}");
}

#[test]
fn a_client_that_is_gone_holds_nobody_who_sleeps() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others: Vec<Other> = (1..=4).map(Other::new).collect();
    look(&mut flows, &mut others[..1], 0..30, 3);
    let mut hosts = Vec::new();
    for look in 30..400 {
        others[0].written += u64::from(look < 33);
        let silent = others[0].snapshot(TICK * (look - 29));
        let asleep = others[1..].iter().map(|other| other.snapshot(Duration::ZERO));
        flows.observe(&std::iter::once(silent).chain(asleep).collect::<Vec<_>>(), TICK * look);
        let (host, _) = flows.totals();
        hosts.push(flows.hint_of(&host, &judged()));
    }
    assert!(hosts.iter().all(|host| !host.hold && host.current_tps.get() == 80.0));
    assert_eq!(hosts[50].state, State::Stalled, "{:?}", hosts[50]);
    let last = hosts.last().expect("looks");
    assert_eq!(last.state, State::Idle, "{last:?}");
    assert!(last.reason.contains("1 gone without a word"), "{last:?}");
    // Its own hint stays what it is.
    assert!(flows.hint(&others[0].key(), &judged()).expect("known").0.hold);
}

#[test]
fn a_look_that_misses_a_flow_forgets_nothing() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..30, 3);
    for look in 30..32 {
        flows.observe(&[], TICK * look);
    }
    let unknown = FlowSnapshot { liveness: None, ..others[0].snapshot(Duration::ZERO) };
    flows.observe(&[unknown], TICK * 32);
    let (_, carried) = flows.hint(&others[0].key(), &judged()).expect("known");
    assert_eq!(carried.bytes_per_token, 200.0);
    for look in 33..40 {
        flows.observe(&[], TICK * look);
    }
    assert_eq!(flows.hint(&others[0].key(), &judged()), None);
}

#[test]
fn acknowledgements_of_a_long_prompt_are_no_tokens() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut other = Other::new(1);
    for look in 0..40 {
        // Twenty ACKs for each token, before and beside them.
        other.send(u64::from(look >= 10));
        let mut flow = other.snapshot(Duration::ZERO);
        flow.counters.segs_out += look * 20;
        let data_segs = Some(u32::try_from(other.written).expect("few"));
        flow.liveness = flow.liveness.map(|live| Liveness { data_segs, ..live });
        flows.observe(&[flow], TICK * look);
    }
    let (_, carried) = flows.hint(&other.key(), &judged()).expect("known");
    assert_eq!(carried.bytes_per_token, 200.0);
}

#[test]
fn the_next_client_on_the_same_ports_inherits_nothing() {
    let mut flows = Flows::new(sharing(None, Some(10.0)), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..30, 5);
    assert_eq!(rate(&flows, &others[0]), 5.0);
    let next = FlowSnapshot { opened: Some(9), ..Other::new(1).snapshot(Duration::ZERO) };
    for look in 30..32 {
        flows.observe(std::slice::from_ref(&next), TICK * look);
    }
    let (_, carried) = flows.hint(&others[0].key(), &judged()).expect("known");
    assert!(carried.causes.total() <= TICK, "{carried:?}");
    assert!(rate(&flows, &others[0]) > 10.0, "{}", rate(&flows, &others[0]));
}

#[test]
fn what_health_finds_is_told_with_it() {
    let mut flows = Flows::new(sharing(None, None), None);
    let mut others = [Other::new(1)];
    look(&mut flows, &mut others, 0..30, 3);
    let ill = Hint { anomaly: true, anomaly_score: 0.9, health: 0.2, ..judged() };
    let (hint, _) = flows.hint(&others[0].key(), &ill).expect("known");
    assert_eq!((hint.anomaly, hint.anomaly_score, hint.health), (true, 0.9, 0.2));
    assert_eq!(hint.reason, "the path carries what is sent; p95 RTT 20 ms, usually 20 ms");
}

#[test]
fn flows_without_a_backlog_are_the_classic_policys() {
    let mut flows = Flows::new(sharing(None, None), None);
    let unknown = FlowSnapshot { liveness: None, ..Other::new(1).snapshot(Duration::ZERO) };
    flows.observe(&[unknown], TICK);
    assert_eq!(flows.hint(&Other::new(1).key(), &judged()), None);
    let closed = FlowSnapshot { closed: true, ..Other::new(1).snapshot(Duration::ZERO) };
    flows.observe(&[closed], TICK * 2);
    assert_eq!(flows.hint(&Other::new(1).key(), &judged()), None);
}
