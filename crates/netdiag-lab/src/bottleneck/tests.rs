//! The bottleneck in a time of its own: when each packet leaves, and which never does.

use proptest::prelude::*;

use super::*;
use crate::queue::{Discipline, Queue, QueueLength};

const ETHERNET: usize = 14;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A packet of so many bytes that came then.
fn packet(bytes: usize, came: Instant) -> StdPacket {
    let mut packet = StdPacket::from_raw_buffer(&vec![0; ETHERNET + bytes]);
    packet.delay_until(came);
    packet
}

fn rate(bits: u64) -> LinkSpec {
    LinkSpec::default().with_rate(bits).expect("possible")
}

fn traced(text: &str) -> LinkSpec {
    LinkSpec::default().with_trace(Trace::parse(text.as_bytes()).expect("a trace"))
}

/// When packets leave, milliseconds from the start: each came at its time with its size.
fn departures(spec: &LinkSpec, packets: &[(u64, usize)]) -> Vec<f64> {
    let start = Instant::now();
    let mut bottleneck = Bottleneck::new(spec, start);
    let mut out = Vec::new();
    let mut leave_until = |bottleneck: &mut Bottleneck, now| {
        while let Some(packet) = bottleneck.depart(now) {
            let after = packet.get_timestamp().duration_since(start);
            out.push(after.as_micros() as f64 / 1000.0);
        }
    };
    for (came, bytes) in packets {
        let now = start + ms(*came);
        leave_until(&mut bottleneck, now);
        bottleneck.arrive(packet(*bytes, now));
    }
    leave_until(&mut bottleneck, start + ms(1_000_000));
    out
}

#[track_caller]
fn check(spec: &LinkSpec, packets: &[(u64, usize)], expected: &[f64]) {
    assert_eq!(departures(spec, packets), expected, "{packets:?}");
}

#[test]
fn an_unlimited_link_holds_nothing_up() {
    check(&LinkSpec::default(), &[(0, 1500), (0, 1500), (7, 40)], &[0.0, 0.0, 7.0]);
}

#[test]
fn a_rate_sends_one_packet_after_the_other() {
    // 1500 bytes in 12 ms.
    let slow = rate(1_000_000);
    check(&slow, &[(0, 1500), (1, 1500), (2, 750)], &[12.0, 24.0, 30.0]);
    // Time in which nothing waited is lost.
    check(&slow, &[(0, 1500), (100, 1500)], &[12.0, 112.0]);
}

#[test]
fn a_trace_sends_at_its_milliseconds_only() {
    let trace = traced("2\n2\n5\n10\n");
    check(&trace, &[(0, 1500), (0, 1500), (0, 1500)], &[2.0, 2.0, 5.0]);
    // Small ones share an opportunity, large ones take two.
    check(&trace, &[(0, 1000), (0, 500), (0, 1600), (0, 10)], &[2.0, 2.0, 5.0, 5.0]);
    // What has passed unused is lost, and after the end it begins anew.
    check(&trace, &[(3, 1500), (3, 1500), (3, 1500)], &[5.0, 10.0, 12.0]);
    check(&trace, &[(10, 1500), (11, 1500)], &[10.0, 12.0]);
    let later = traced("2\n2\n5\n10\n");
    let Capacity::Trace(trace) = later.capacity() else { unreachable!() };
    let later = LinkSpec::default().with_trace(trace.clone().starting_at(ms(4)));
    check(&later, &[(0, 1500), (0, 1500), (0, 1500)], &[1.0, 6.0, 8.0]);
}

#[test]
fn a_full_queue_drops_whom_its_discipline_says() {
    let queue = |discipline, length| Queue::try_new(discipline, length).expect("possible");
    let slow = |queue| rate(1_000_000).with_queue(queue);
    let packets = [(0, 1500), (1, 1000), (1, 500), (1, 250)];
    let two = QueueLength::Packets(2);
    check(&slow(queue(Discipline::DropTail, two)), &packets, &[12.0, 20.0, 24.0]);
    check(&slow(queue(Discipline::DropHead, two)), &packets, &[12.0, 16.0, 18.0]);
    // 12 ms hold 1500 bytes.
    let time = QueueLength::Time(ms(12));
    check(&slow(queue(Discipline::DropTail, time)), &packets, &[12.0, 20.0, 24.0]);
    let bytes = QueueLength::Bytes(1500);
    check(&slow(queue(Discipline::DropTail, bytes)), &packets, &[12.0, 20.0, 24.0]);
}

#[test]
fn a_change_takes_what_waits_along() {
    let start = Instant::now();
    for discipline in [Discipline::DropTail, Discipline::DropHead, Discipline::CoDel] {
        let queue = Queue::try_new(discipline, QueueLength::Packets(10)).expect("possible");
        let mut bottleneck = Bottleneck::new(&rate(10_000).with_queue(queue), start);
        for _ in 0..4 {
            bottleneck.arrive(packet(1500, start));
        }
        assert_eq!(bottleneck.due(), Some(start + ms(1200)));
        // Faster, from now on.
        bottleneck.set(&rate(1_000_000), start + ms(100));
        let mut out = Vec::new();
        while let Some(packet) = bottleneck.depart(start + ms(1000)) {
            out.push(packet.get_timestamp().duration_since(start).as_millis());
        }
        assert_eq!(out, [112, 124, 136, 148], "{discipline:?}");
    }
}

proptest! {
    /// The definition of a trace: by no time has more left than its opportunities carry, and what waited all the while has
    /// left with the least number of them.
    #[test]
    fn no_more_leaves_than_a_trace_allows(
        mut times in proptest::collection::vec(1u64..200, 1..40),
        sizes in proptest::collection::vec(40usize..=1500, 1..100),
    ) {
        times.sort_unstable();
        let text: String = times.iter().map(|time| format!("{time}\n")).collect();
        let packets: Vec<_> = sizes.iter().map(|size| (0, *size)).collect();
        let out = departures(&traced(&text), &packets);
        prop_assert_eq!(out.len(), sizes.len());
        let period = *times.last().expect("a line") as f64;
        let mut sent = 0;
        for (left, size) in out.iter().zip(&sizes) {
            sent += size;
            let rounds = ((left - 1.0) / period).floor();
            let within = left - rounds * period;
            let until = |inclusive: bool| {
                let lines = times.iter().filter(|time| {
                    let time = **time as f64;
                    time < within || inclusive && time == within
                });
                1500 * (rounds as usize * times.len() + lines.count())
            };
            prop_assert!(sent <= until(true), "{sent} bytes by {left} ms");
            prop_assert!(sent > until(false), "{sent} bytes not before {left} ms");
        }
    }

    #[test]
    fn order_is_kept_and_no_packet_is_early(
        bits in 1000u64..10_000_000,
        packets in proptest::collection::vec((0u64..50, 40usize..=1500), 1..50),
    ) {
        let mut came = 0;
        let packets: Vec<_> = packets.into_iter().map(|(gap, bytes)| { came += gap; (came, bytes) }).collect();
        let out = departures(&rate(bits), &packets);
        prop_assert!(out.is_sorted());
        for (left, (came, bytes)) in out.iter().zip(packets) {
            prop_assert!(*left >= came as f64 + bytes as f64 * 8000.0 / bits as f64 - 1e-3);
        }
    }
}
