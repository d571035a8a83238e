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
    let mut pacers = Pacers::new(range());
    let mut table = FlowTable::new(Duration::from_secs(60), Source::Ebpf);
    let mut board = pacers.empty_board();
    for (number, flows) in ticks.into_iter().enumerate() {
        let at = HALF * u32::try_from(number).expect("few ticks");
        let tick = table.tick(&flows, TickInstant { monotonic: at, unix: at });
        board = pacers.observe(&tick, HALF);
    }
    (pacers, board)
}

#[test]
fn each_peer_has_its_own_rate() {
    let (near, far) = (Duration::from_millis(20), Duration::from_millis(400));
    let (_, board) = boards((0..20).map(|_| vec![flow(1, near), flow(2, far)]));
    let rate = |client| {
        let hint = &board.peers[&flow(client, near).key.peer.ip()];
        (hint.current_tps.get(), hint.state)
    };
    assert!(rate(1).0 > 72.0 && rate(1).1 == State::Clear, "{:?}", rate(1));
    assert!(rate(2).0 < 40.0 && rate(2).1 == State::Constrained, "{:?}", rate(2));
    assert_eq!(board.streams().len(), 2);
}

#[test]
fn scopes_that_are_gone_are_forgotten() {
    let rtt = Duration::from_millis(20);
    let crowd: Vec<_> = (0..100).map(|client| flow(client, rtt)).collect();
    let (pacers, board) = boards([crowd, vec![flow(7, rtt)]]);
    assert_eq!((pacers.peers.len(), pacers.streams.len()), (1, 1));
    assert_eq!((board.peers.len(), board.streams().len()), (1, 1));
    let mut last = flow(7, rtt);
    last.closed = true;
    let (pacers, board) = boards([vec![flow(7, rtt)], vec![last], vec![]]);
    assert_eq!((pacers.peers.len(), pacers.streams.len()), (0, 0));
    assert!(board.streams().is_empty());
}

#[test]
fn sleeping_flows_do_not_hide_a_stall() {
    use netdiag_telemetry::Liveness;
    let asleep = |client| FlowSnapshot {
        rtt: RttSamples::default(),
        liveness: Some(Liveness::default()),
        ..flow(client, HALF)
    };
    let stuck = |tick: u64| FlowSnapshot {
        rtt: RttSamples::default(),
        liveness: Some(Liveness {
            unacked_segs: 3,
            backoff: 2,
            busy: HALF * tick as u32,
            last_ack_age: Duration::from_secs(5),
            ..Liveness::default()
        }),
        ..flow(0, Duration::from_millis(20))
    };
    let ticks = (0..6).map(|tick| (1..50).map(asleep).chain([stuck(tick)]).collect());
    let (_, board) = boards(ticks);
    assert_eq!(board.host.state, State::Stalled, "{:?}", board.host);
    assert!(board.host.hold);
}
