//! The flow table against made-up snapshots: deltas, baselines, reused ports, stalls.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::units::Bytes;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn at(monotonic_ms: u64) -> Instant {
    Instant { monotonic: ms(monotonic_ms), unix: Duration::from_secs(1_700_000_000) }
}

fn table() -> FlowTable {
    FlowTable::new(Duration::from_secs(60), Source::Ebpf)
}

fn flow(port: u16, counters: (u64, u32, u32)) -> FlowSnapshot {
    let local: SocketAddr = "192.0.2.1:8000".parse().expect("address");
    let (bytes_acked, segs_out, retrans_segs) = counters;
    FlowSnapshot {
        key: FlowKey::new(1, local, SocketAddr::new("192.0.2.2".parse().expect("address"), port)),
        opened: None,
        closed: false,
        counters: Counters { bytes_acked, segs_out, retrans_segs },
        rtt: RttSamples::default(),
        srtt: Some(ms(20)),
        rttvar: Some(ms(2)),
        cwnd: 10,
        liveness: None,
    }
}

fn opened(id: u64, snapshot: FlowSnapshot) -> FlowSnapshot {
    FlowSnapshot { opened: Some(id), ..snapshot }
}

fn waiting(
    unacked_segs: u32,
    busy_ms: u64,
    ack_age_ms: u64,
    snapshot: FlowSnapshot,
) -> FlowSnapshot {
    let liveness = Liveness {
        unacked_segs,
        notsent: Bytes(0),
        busy: ms(busy_ms),
        last_ack_age: ms(ack_age_ms),
        ..Liveness::default()
    };
    FlowSnapshot { liveness: Some(liveness), ..snapshot }
}

#[test]
fn a_flow_that_was_there_before_starts_at_its_present() {
    let mut table = table();
    let first = table.tick(&[flow(1, (1_000_000, 900, 7))], at(0)).host.sample;
    assert_eq!((first.retrans_segs, first.segs_out, first.flows), (0, Some(0), Some(1)));
    assert_eq!(first.throughput_bps, Some(0.0));
    let second = table.tick(&[flow(1, (1_062_500, 950, 9))], at(500)).host.sample;
    assert_eq!((second.retrans_segs, second.segs_out), (2, Some(50)));
    assert_eq!(second.throughput_bps, Some(1_000_000.0));
}

#[test]
fn a_flow_seen_opening_counts_from_zero() {
    let sample = table().tick(&[opened(5, flow(1, (1000, 10, 3)))], at(0)).host.sample;
    assert_eq!((sample.retrans_segs, sample.segs_out), (3, Some(10)));
}

#[test]
fn a_reused_port_is_a_new_flow_and_the_old_one_counts_to_its_end() {
    let mut table = table();
    table.tick(&[opened(5, flow(1, (1000, 10, 3)))], at(0));
    let ended = FlowSnapshot { closed: true, ..opened(5, flow(1, (1500, 14, 4))) };
    let tick = table.tick(&[ended, opened(6, flow(1, (100, 2, 1)))], at(500));
    assert_eq!(tick.host.sample.retrans_segs, 1 + 1);
    assert_eq!(tick.host.sample.segs_out, Some(4 + 2));
    let tick = table.tick(&[opened(6, flow(1, (100, 2, 1)))], at(1000));
    assert_eq!((tick.host.sample.retrans_segs, tick.host.sample.flows), (0, Some(1)));
}

#[test]
fn counters_that_step_back_start_a_new_baseline() {
    let mut table = table();
    table.tick(&[flow(1, (5000, 50, 5))], at(0));
    let sample = table.tick(&[flow(1, (100, 1, 1))], at(500)).host.sample;
    assert_eq!((sample.retrans_segs, sample.segs_out), (0, Some(0)));
    assert_eq!(sample.throughput_bps, Some(0.0));
}

#[test]
fn an_older_view_of_the_same_connection_counts_nothing_twice() {
    let mut table = table();
    let seen = |counters| opened(7, flow(1, counters));
    table.tick(&[seen((5_000, 50, 3))], at(0));
    // A dump failed, and the other source shows what it knew before.
    let older = table.tick(&[seen((4_000, 48, 2))], at(500)).host.sample;
    assert_eq!((older.segs_out, older.retrans_segs), (Some(0), 0));
    assert_eq!(older.throughput_bps, Some(0.0));
    let after = table.tick(&[seen((5_100, 52, 3))], at(1000)).host.sample;
    assert_eq!((after.segs_out, after.retrans_segs), (Some(2), 0));
    assert_eq!(after.throughput_bps, Some(1_600.0));
}

#[test]
fn the_busy_time_of_a_past_life_is_no_wait() {
    let busy_for_long = || waiting(1, 30_000, 60_000, flow(1, (5_000, 50, 0)));
    let first = table().tick(&[busy_for_long()], at(0)).host.sample;
    assert_eq!(first.stalled_flows, Some(0));
    // Unless the kernel has backed off already.
    let mut stalled = busy_for_long();
    stalled.liveness.as_mut().expect("waiting").backoff = 3;
    assert_eq!(table().tick(&[stalled], at(0)).host.sample.stalled_flows, Some(1));
}

#[test]
fn narrow_counters_wrap() {
    let mut table = table();
    table.tick(&[flow(1, (0, u32::MAX - 1, u32::MAX))], at(0));
    let sample = table.tick(&[flow(1, (0, 3, 1))], at(500)).host.sample;
    assert_eq!((sample.segs_out, sample.retrans_segs), (Some(5), 2));
}

#[test]
fn flows_are_grouped_by_peer_and_listed_by_key() {
    let mut other = flow(9, (0, 0, 0));
    other.key.peer = "192.0.2.3:9".parse().expect("address");
    let tick = table().tick(&[flow(2, (0, 0, 0)), other, flow(1, (0, 0, 0))], at(0));
    let peers: Vec<_> = tick.peers.iter().map(|(ip, s)| (ip.to_string(), s.flows)).collect();
    assert_eq!(peers, [("192.0.2.2".into(), Some(2)), ("192.0.2.3".into(), Some(1))]);
    let ports: Vec<_> = tick.streams.iter().map(|s| s.key.peer.port()).collect();
    assert_eq!(ports, [1, 2, 9]);
}

#[test]
fn silence_is_a_stall_only_when_data_waits() {
    let mut table = table();
    // Ten idle seconds, then data sent 50 ms ago: the last ACK is old, the wait is not.
    table.tick(&[waiting(0, 100, 10_000, flow(1, (0, 0, 0)))], at(0));
    let fresh = table.tick(&[waiting(3, 150, 10_050, flow(1, (0, 3, 0)))], at(500));
    assert_eq!(fresh.streams[0].waiting, ms(50));
    assert_eq!(fresh.host.sample.stalled_flows, Some(0));
    // Half a second later still nothing came back.
    let stalled = table.tick(&[waiting(3, 650, 10_550, flow(1, (0, 3, 0)))], at(1000));
    assert_eq!(stalled.streams[0].waiting, ms(550));
    assert_eq!(stalled.host.sample.stalled_flows, Some(1));
    // An ACK arrives: whatever waits now has waited since then.
    let moving = table.tick(&[waiting(1, 1150, 20, flow(1, (300, 4, 0)))], at(1500));
    assert_eq!(moving.streams[0].waiting, ms(20));
    assert_eq!(moving.host.sample.stalled_flows, Some(0));
}

#[test]
fn an_interval_without_samples_has_no_rtt() {
    let mut table = table();
    let rtt = RttSamples::one(ms(50));
    let seen = table.tick(&[FlowSnapshot { rtt, ..flow(1, (0, 0, 0)) }], at(0));
    assert_eq!(seen.host.sample.rtt.map(|rtt| rtt.samples), Some(1));
    let silent = table.tick(&[flow(1, (0, 0, 0))], at(500));
    assert_eq!(silent.host.sample.rtt, None);
    assert_eq!(silent.host.rolling.avg_rtt, Some(ms(50)));
    assert_eq!(silent.host.sample.srtt, None, "an idle flow's srtt is history");
}

proptest! {
    /// Whatever a source says, nothing panics, and what the intervals count adds up to the counters' growth.
    #[test]
    fn deltas_add_up(steps in prop::collection::vec((0u64..10_000, 0u32..100, 0u32..10, 0u64..2000), 1..50)) {
        let mut table = table();
        let (mut acked, mut segs, mut retrans, mut now) = (0, 0, 0, 0);
        let mut counted = (0, 0);
        for (more_acked, more_segs, more_retrans, elapsed) in steps {
            acked += more_acked;
            segs += more_segs;
            retrans += more_retrans;
            now += elapsed;
            let tick = table.tick(&[opened(1, flow(1, (acked, segs, retrans)))], at(now));
            counted.0 += tick.host.sample.segs_out.unwrap_or_default();
            counted.1 += tick.host.sample.retrans_segs;
            let throughput = tick.host.sample.throughput_bps.expect("known");
            prop_assert!(throughput.is_finite() && throughput >= 0.0);
        }
        prop_assert_eq!(counted, (u64::from(segs), u64::from(retrans)));
    }

    #[test]
    fn arbitrary_counters_never_panic(
        steps in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>(), prop::option::of(0u64..3), any::<bool>(), any::<u64>()),
            1..20,
        ),
    ) {
        let mut table = table();
        for (acked, segs, retrans, busy, id, closed, now) in steps {
            let mut snapshot = waiting(segs, busy >> 20, busy >> 21, flow(1, (acked, segs, retrans)));
            snapshot.opened = id;
            snapshot.closed = closed;
            table.tick(&[snapshot], at(now >> 20));
        }
    }
}
