//! Scopes come and go; the pacers follow.

use std::net::SocketAddr;

use netdiag_pacer::State;
use netdiag_telemetry::{
    Counters, FlowSnapshot, FlowTable, Instant as TickInstant, RttSamples, Source, Tps,
};

use super::*;

const HALF: Duration = Duration::from_millis(500);

fn range() -> TpsRange {
    let tps = |rate| Tps::try_new(rate).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

fn flow(client: u32, rtt: Duration) -> FlowSnapshot {
    let peer = SocketAddr::from(([10, 0, (client >> 8) as u8, client as u8], 4000));
    let local: SocketAddr = "192.0.2.1:80".parse().expect("an address");
    FlowSnapshot {
        key: FlowKey::new(1, local, peer),
        opened: None,
        closed: false,
        counters: Counters::default(),
        rtt: RttSamples::one(rtt),
        srtt: Some(rtt),
        rttvar: None,
        cwnd: 10,
        liveness: None,
    }
}

/// Runs ticks of half a second, each with the flows given.
fn boards(ticks: impl IntoIterator<Item = Vec<FlowSnapshot>>) -> (Pacers, Board) {
    let mut pacers = Pacers::new(range(), Models::new(None), None, None);
    let mut table = FlowTable::new(Duration::from_secs(60), Source::Ebpf);
    for (number, flows) in ticks.into_iter().enumerate() {
        let at = HALF * u32::try_from(number).expect("few ticks");
        let tick = table.tick(&flows, TickInstant { monotonic: at, unix: at });
        pacers.observe(&tick, HALF);
    }
    let board = pacers.board();
    (pacers, board)
}

#[test]
fn each_peer_has_its_own_rate() {
    let (near, far) = (Duration::from_millis(20), Duration::from_millis(200));
    // The first is far away and always was; the second's path gets as long.
    let crowd = |tick| vec![flow(1, far), flow(2, if tick < 60 { near } else { far })];
    let (_, board) = boards((0..70).map(crowd));
    let hint = |client| &board.peers[&flow(client, near).key.peer.ip()];
    let (steady, worse) = (hint(1), hint(2));
    assert!(steady.current_tps.get() > 72.0 && steady.state == State::Clear, "{steady:?}");
    assert!(worse.current_tps.get() < 10.0 && worse.state == State::Constrained, "{worse:?}");
    assert!(worse.anomaly && !steady.anomaly && worse.anomaly_score > 0.5, "{worse:?}");
    let told = worse.reason.starts_with("path: p95 RTT ");
    assert!(told && worse.reason.contains("usually 20 ms"), "{worse:?}");
    assert_eq!(board.streams().len(), 2);
}

#[test]
fn scopes_that_are_gone_are_forgotten() {
    let rtt = Duration::from_millis(20);
    let crowd: Vec<_> = (0..100).map(|client| flow(client, rtt)).collect();
    let (pacers, board) = boards([crowd, vec![flow(7, rtt)], vec![flow(7, rtt)]]);
    // A peer with one connection has no memory of its own.
    assert_eq!((pacers.peers.len(), pacers.streams.len()), (0, 1));
    assert_eq!((board.peers.len(), board.streams().len()), (1, 1));
    let mut last = flow(7, rtt);
    last.closed = true;
    let (pacers, board) = boards([vec![flow(7, rtt)], vec![last], vec![], vec![]]);
    assert_eq!((pacers.peers.len(), pacers.streams.len()), (0, 0));
    assert!(board.streams().is_empty());
}

#[test]
fn a_peer_with_more_than_one_connection_remembers_what_its_first_was_like() {
    let (near, far) = (Duration::from_millis(20), Duration::from_millis(200));
    let port = |port, rtt| {
        let mut flow = flow(1, rtt);
        flow.key = FlowKey::new(1, flow.key.local, SocketAddr::new(flow.key.peer.ip(), port));
        flow
    };
    let peer = flow(1, near).key.peer.ip();
    let last = FlowSnapshot { closed: true, ..port(4000, near) };
    let alone = || (0..60).map(|_| vec![port(4000, near)]);
    // The path gets worse just when a second connection is there: beside the first, or after it, whether its end is told (by eBPF) or
    // it is only gone (`sock_diag`), with or without a pause.
    let beside = (0..5).map(|_| vec![port(4000, far), port(4001, far)]);
    let after = std::iter::once(vec![last]).chain((0..5).map(|_| vec![port(4001, far)]));
    let at_once = (0..5).map(|_| vec![port(4001, far)]);
    let later = std::iter::once(vec![]).chain(at_once.clone());
    for (_, board) in [
        boards(alone().chain(beside)),
        boards(alone().chain(after)),
        boards(alone().chain(at_once)),
        boards(alone().chain(later)),
    ] {
        let hint = &board.peers[&peer];
        assert!(hint.reason.contains("usually 20 ms") && hint.anomaly, "{hint:?}");
        assert_eq!(hint.scope, "peer 10.0.0.1");
    }
}

/// A flow that sends nothing.
fn asleep(client: u32) -> FlowSnapshot {
    FlowSnapshot {
        rtt: RttSamples::default(),
        liveness: Some(Liveness::default()),
        ..flow(client, HALF)
    }
}

/// A flow whose client is gone since so many ticks.
fn stuck(ticks: u32) -> FlowSnapshot {
    let liveness = Liveness {
        unacked_segs: 3,
        backoff: 2,
        busy: HALF * ticks,
        last_ack_age: HALF * ticks,
        ..Liveness::default()
    };
    FlowSnapshot { liveness: Some(liveness), ..asleep(0) }
}

#[test]
fn sleeping_flows_do_not_hide_a_stall_and_are_not_held_by_it() {
    let (_, board) = boards((0..6).map(|tick| (1..50).map(asleep).chain([stuck(tick)]).collect()));
    assert_eq!((board.host.state, board.host.hold), (State::Stalled, false), "{:?}", board.host);
    assert_eq!(board.host.target_tps, range().min());
    let (_, alone) = boards((0..6).map(|tick| vec![stuck(tick)]));
    assert_eq!((alone.host.state, alone.host.hold), (State::Stalled, true), "{:?}", alone.host);
}

#[test]
fn a_client_that_is_gone_does_not_slow_the_others_for_long() {
    let near = Duration::from_millis(20);
    let rates = |ticks| {
        let crowd = |tick| vec![stuck(tick), flow(1, near), asleep(2)];
        let (_, board) = boards((0..ticks).map(crowd));
        let gone = &board.peers[&stuck(0).key.peer.ip()];
        (board.host.current_tps.get(), gone.hold)
    };
    // One of two stalls, perhaps because of the link that both share.
    assert!(rates(10).0 < 45.0, "{:?}", rates(10));
    // It does not come back while the other moves on. Its own hint stays what it is.
    let (rate, hold) = rates(60);
    assert!(rate > 72.0 && hold, "{rate} {hold}");
}
