//! Both senders over links that lose, fall silent, or do nothing of the kind.

use std::time::Duration;

use proptest::prelude::*;

use super::super::deliveries::{Deliveries, Log};
use super::super::events::{Event, Events, What};
use super::super::link::{Capacity, Link};
use super::super::receiver::Receiver;
use super::super::stream::Around;
use super::*;
use crate::loss::{Loss, Losses};

/// Writes a token every `gap`, and lets everything happen until `end`.
fn play(mut link: Link, tokens: u64, gap: Micros, end: Micros) -> (Vec<Micros>, Tcp) {
    let (mut events, mut log) = (Events::new(), Log::default());
    let mut deliveries = Deliveries::default();
    let mut tcp = Tcp::new(0, link.round_trip());
    let (mut receiver, mut wrote) = (Receiver::default(), 0);
    loop {
        let due = if wrote < tokens { wrote * gap } else { end };
        let next = events.pop(due);
        let mut around = Around {
            stream: 0,
            link: &mut link,
            events: &mut events,
            receiver: &mut receiver,
            deliveries: &mut deliveries,
            log: &mut log,
            token_bytes: 200,
        };
        match next {
            Some(Event { at, what: What::Ack { ack, start }, .. }) => {
                tcp.on_ack(at, ack.into(), start.into(), &mut around);
            }
            Some(Event { at, .. }) => tcp.on_timer(at, &mut around),
            None if wrote < tokens => {
                tcp.write(due, 200, &mut around);
                wrote += 1;
            }
            None => return (log.all(&deliveries), tcp),
        }
    }
}

#[test]
fn on_a_clean_link_each_token_takes_half_a_round_trip() {
    let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None);
    let (deliveries, tcp) = play(link, 100, 25_000, 10_000_000);
    let expected: Vec<_> = (0..100).map(|token| token * 25_000 + 50_000).collect();
    assert_eq!((deliveries, tcp.acked()), (expected, 20_000));
    assert_eq!(
        (tcp.srtt(), tcp.evidence(10_000_000).busy),
        (100e3, Duration::from_micros(2_575_000))
    );
}

#[test]
fn an_outage_backs_the_timer_off_and_is_made_up_for() {
    let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None)
        .with_outages(vec![(1_000_000, 4_000_000)]);
    let (deliveries, tcp) = play(link, 400, 25_000, 20_000_000);
    assert_eq!((deliveries.len(), tcp.acked()), (400, 80_000));
    // Retransmitted at 0.3, 0.9, 2.1 and 4.5 s or so after the outage began, in order from then on.
    let after = deliveries.iter().find(|at| **at > 1_000_000).expect("some");
    assert!((4_000_000..6_500_000).contains(after), "{after}");
    assert!(deliveries.is_sorted());
}

#[test]
fn silence_is_told_as_the_kernel_tells_it() {
    let link = Link::new(Capacity::Rate(0.0), [50_000, 50_000], None)
        .with_outages(vec![(1_000_000, 60_000_000)]);
    let (_, tcp) = play(link, 60, 25_000, 3_000_000);
    let seen = tcp.evidence(3_000_000);
    assert!(seen.backoff >= 2, "{seen:?}");
    assert!(seen.last_ack_age > Duration::from_millis(1900), "{seen:?}");
    // The last to arrive left at 0.95 s.
    assert_eq!((seen.bytes_acked, seen.queued), (38 * 200, 22 * 200));
    assert_eq!(seen.notsent, 22 * 200 - (tcp.next - tcp.una));
}

proptest! {
    #[test]
    fn everything_arrives_in_order_whatever_is_lost(
        share in 0.0..0.4f64, seed: u64, gap in 0u64..100_000, rtt in 1_000u64..500_000,
    ) {
        let losses = Losses::new(Loss::independent(share).expect("a share"), seed);
        let link = Link::new(Capacity::Rate(8.0), [rtt / 2, rtt / 2], Some(losses));
        let (deliveries, tcp) = play(link, 300, gap, 3_600_000_000);
        prop_assert_eq!(deliveries.len(), 300);
        prop_assert!(deliveries.is_sorted());
        prop_assert_eq!((tcp.acked(), tcp.pipe, tcp.flight.len()), (60_000, 0, 0));
        prop_assert_eq!(tcp.evidence(3_600_000_000).queued, 0);
    }
}

/// A wire of so many microseconds each way, on which segments of these numbers are lost.
struct Wire {
    delay: Micros,
    lost: Vec<usize>,
    /// When each segment was sent, and its bytes.
    sent: Vec<(Micros, u64, u64)>,
    arrivals: Vec<(Micros, u64, u64, Micros)>,
    wake: Option<Micros>,
}

impl Network for Wire {
    fn send(&mut self, now: Micros, start: u64, end: u64) {
        if !self.lost.contains(&self.sent.len()) {
            self.arrivals.push((now + 2 * self.delay, start, end, now));
        }
        self.sent.push((now, start, end));
    }

    fn wake(&mut self, at: Micros) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// A token of 200 bytes each 12 ms, with 16 ms of round trip.
fn play_linux(control: CongestionControl, tokens: u64, lost: Vec<usize>) -> (Tcp, Wire) {
    let mut wire = Wire { delay: 8_000, lost, sent: Vec::new(), arrivals: Vec::new(), wake: None };
    let mut tcp = Tcp::new(0, 16_000).like_linux(control);
    let (mut receiver, mut wrote) = (Receiver::default(), 0);
    loop {
        let write = (wrote < tokens).then_some(wrote * 12_000);
        let arrival = wire.arrivals.iter().map(|arrival| arrival.0).min();
        let Some(now) = [write, arrival, wire.wake].into_iter().flatten().min() else {
            return (tcp, wire);
        };
        if arrival == Some(now) {
            let place = wire.arrivals.iter().position(|arrival| arrival.0 == now);
            let (_, start, end, sent) = wire.arrivals.remove(place.expect("the first"));
            receiver.receive(start, end);
            tcp.on_selective_ack(now, receiver.next(), &receiver.blocks(), sent, &mut wire);
        } else if wire.wake == Some(now) {
            wire.wake = None;
            tcp.on_timer(now, &mut wire);
        } else {
            tcp.write(now, 200, &mut wire);
            wrote += 1;
        }
    }
}

#[test]
fn linux_finds_lost_retransmissions_by_what_was_sent_later() {
    let times = |wire: &Wire| -> Vec<(usize, Micros)> {
        let sent = wire.sent.iter().enumerate().filter(|(_, segment)| segment.1 == 4000);
        sent.map(|(number, segment)| (number, segment.0)).collect()
    };
    for control in [CongestionControl::Cubic, CongestionControl::Bbr] {
        let (_, once) = play_linux(control, 100, vec![20]);
        let (again, _) = times(&once)[1];
        let (tcp, twice) = play_linux(control, 100, vec![20, again]);
        assert_eq!(tcp.acked(), 20_000);
        // No timeout of 200 ms and more was waited for.
        let times = times(&twice);
        assert!(times.len() == 3 && times[2].1 - times[0].1 < 100_000, "{control:?}: {times:?}");
    }
}

#[test]
fn linux_repairs_several_tokens_with_a_segment_and_waits_for_a_timeout_in_silence() {
    // From the 20th on the next 40 are lost: as many as the window allows, and probes and retransmissions after them.
    let (tcp, wire) = play_linux(CongestionControl::Bbr, 60, (20..60).collect());
    assert_eq!(tcp.acked(), 12_000);
    let longest = wire.sent.iter().map(|(_, start, end)| end - start).max();
    assert!(longest.is_some_and(|longest| longest > 1000), "{longest:?}");
    let gap = wire.sent.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    assert!(gap.is_some_and(|gap| gap >= RTO_MIN as Micros), "{gap:?}");
}

#[test]
fn losses_shrink_the_window_of_cubic_and_not_that_of_bbr() {
    let lost = || (20..200).step_by(20).collect();
    let [cubic, bbr] = [CongestionControl::Cubic, CongestionControl::Bbr]
        .map(|control| play_linux(control, 200, lost()).0.cwnd);
    assert!(cubic < 9.0 && bbr >= 10.0, "{cubic} {bbr}");
}

proptest! {
    #[test]
    fn linux_delivers_everything_whatever_is_lost(
        lost in proptest::collection::vec(0usize..400, 0..200), is_bbr: bool,
    ) {
        let control = if is_bbr { CongestionControl::Bbr } else { CongestionControl::Cubic };
        let (tcp, wire) = play_linux(control, 200, lost);
        prop_assert_eq!((tcp.acked(), tcp.pipe, tcp.sacked, tcp.flight.len()), (40_000, 0, 0, 0));
        prop_assert!(wire.sent.iter().all(|(_, start, end)| end - start <= MSS));
    }
}
