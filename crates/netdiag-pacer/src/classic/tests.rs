//! The classic policy against made-up links: how far it falls, how fast, and that it comes back.

use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(500);

fn range() -> TpsRange {
    let tps = |n| Tps::try_new(n).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

fn link(p95_ms: u64, retrans_segs: u64, segs_out: u64) -> Observation {
    Observation {
        p95_rtt: Some(Duration::from_millis(p95_ms)),
        retrans_segs,
        segs_out: Some(segs_out),
        ..Observation::default()
    }
}

/// Seconds until `done`, observing `seen` every half second.
fn seconds_until(
    pacer: &mut Classic,
    seen: &Observation,
    mut done: impl FnMut(&Classic) -> bool,
) -> f64 {
    for tick in 0..1000 {
        if done(pacer) {
            return f64::from(tick) * TICK.as_secs_f64();
        }
        pacer.observe(seen, TICK);
    }
    f64::INFINITY
}

#[test]
fn it_falls_and_recovers_as_the_link_does() {
    let mut pacer = Classic::new(range());
    let calm = link(21, 0, 20);
    for _ in 0..20 {
        pacer.observe(&calm, TICK);
    }
    assert!(pacer.rate().get() >= 0.9 * 80.0, "{}", pacer.rate());
    let fall = seconds_until(&mut pacer, &link(215, 1, 20), |p| p.rate().get() <= 40.0);
    assert!(fall <= 3.0, "fell in {fall} s");
    for _ in 0..20 {
        pacer.observe(&link(215, 1, 20), TICK);
    }
    let recovery = seconds_until(&mut pacer, &calm, |p| p.rate().get() >= 0.9 * 80.0);
    assert!(recovery <= 8.0, "recovered in {recovery} s");
}

#[test]
fn one_bad_interval_does_not_halve_the_rate() {
    let mut pacer = Classic::new(range());
    for _ in 0..20 {
        pacer.observe(&link(21, 0, 20), TICK);
    }
    pacer.observe(&link(900, 3, 20), TICK);
    assert!(pacer.rate().get() > 40.0, "{}", pacer.rate());
    assert!(!pacer.hint(&Scope::Host, Duration::ZERO).anomaly);
}

#[test]
fn silence_with_data_waiting_is_a_stall_and_without_is_idle() {
    let mut pacer = Classic::new(range());
    pacer.observe(&link(21, 0, 20), TICK);
    let stall = Observation { stalled: 1.0, hold: true, ..Observation::default() };
    for _ in 0..12 {
        pacer.observe(&stall, TICK);
    }
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!((hint.state, hint.hold), (State::Stalled, true));
    assert!(hint.current_tps.get() < 6.0 && hint.anomaly);
    assert!(hint.reason.starts_with("path"), "{}", hint.reason);

    // The stream ends: the quality is remembered for a while, then the link is presumed healthy.
    let idle = Observation { segs_out: Some(0), ..Observation::default() };
    pacer.observe(&idle, TICK);
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!((hint.state, hint.hold), (State::Idle, false));
    let back = seconds_until(&mut pacer, &idle, |p| p.rate().get() >= 72.0);
    assert!((4.0..=9.0).contains(&back), "back after {back} s");
}

#[test]
fn part_of_the_flows_stalling_lowers_the_rate_by_their_part() {
    let mut pacer = Classic::new(range());
    let half = Observation { stalled: 0.5, ..link(21, 0, 20) };
    for _ in 0..40 {
        pacer.observe(&half, TICK);
    }
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert!((hint.health - 0.49).abs() < 0.02, "{}", hint.health);
    assert_eq!((hint.state, hint.hold), (State::Constrained, false));
}

#[test]
fn a_partial_stall_weighs_the_same_however_often_it_is_seen() {
    // No samples, half of the flows stall: the path is as good as it last was, for the other half.
    let stall = Observation { stalled: 0.5, ..Observation::default() };
    for tick in [50, 500, 5000].map(Duration::from_millis) {
        let mut pacer = Classic::new(range());
        for _ in 0..30_000 / tick.as_millis() {
            pacer.observe(&stall, tick);
        }
        let health = pacer.hint(&Scope::Host, Duration::ZERO).health;
        assert!((health - 0.5).abs() < 0.01, "{health} at {tick:?}");
    }
}

#[test]
fn loss_without_a_round_trip_is_not_idle() {
    let mut pacer = Classic::new(range());
    pacer.observe(&link(60, 0, 20), TICK);
    // Everything is retransmitted, and what is retransmitted gives no RTT sample.
    for _ in 0..40 {
        let lost = Observation { retrans_segs: 2, segs_out: Some(4), ..Observation::default() };
        pacer.observe(&lost, TICK);
    }
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!(hint.state, State::Constrained);
    assert!(hint.current_tps.get() < 40.0, "{hint:?}");
    assert!(hint.reason.starts_with("path: no round trip was measured, "), "{}", hint.reason);
}

#[test]
fn a_few_segments_do_not_ring_the_bell() {
    let mut pacer = Classic::new(range());
    // A trickle that loses its only segment, once.
    pacer.observe(&link(21, 1, 2), TICK);
    assert!(pacer.rate().get() > 60.0, "{}", pacer.rate());
    // A link without loss for a minute, then 5 % of hundreds of segments.
    let mut busy = Classic::new(range());
    for _ in 0..20 {
        busy.observe(&link(21, 20, 400), TICK);
    }
    assert!(busy.rate().get() < 45.0, "{}", busy.rate());
}

#[test]
fn a_reader_that_takes_nothing_is_named_and_slows_the_rate() {
    let mut pacer = Classic::new(range());
    pacer.observe(&link(20, 0, 20), TICK);
    let shut = Observation { reader_limited: true, segs_out: Some(0), ..Observation::default() };
    for _ in 0..20 {
        pacer.observe(&shut, TICK);
    }
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!((hint.state, hint.hold), (State::Reader, false));
    assert_eq!(hint.reason, "reader: receive window full, nothing was taken");
    assert!(hint.current_tps.get() < 6.0 && hint.target_tps == hint.min_tps, "{hint:?}");
    // It reads again; the path was never worse.
    for _ in 0..20 {
        pacer.observe(&link(20, 0, 20), TICK);
    }
    assert!(pacer.rate().get() > 72.0, "{}", pacer.rate());
}

#[test]
fn the_reason_is_one_sentence_of_numbers() {
    let reason = |seen: Observation| {
        let mut pacer = Classic::new(range());
        for _ in 0..40 {
            pacer.observe(&seen, TICK);
        }
        pacer.hint(&Scope::Host, Duration::ZERO).reason
    };
    assert_eq!(reason(link(204, 20, 400)), "path: p95 RTT 204 ms, 4.9 % retransmitted");
    assert_eq!(reason(link(3, 0, 400)), "p95 RTT 3.0 ms, 0.0 % retransmitted");
    let reader = Observation { reader_limited: true, ..link(20, 0, 400) };
    assert_eq!(reason(reader), "reader: receive window full; p95 RTT 20 ms, 0.0 % retransmitted");
    let stalled = Observation { stalled: 0.25, ..link(20, 0, 400) };
    assert_eq!(reason(stalled), "path: p95 RTT 20 ms, 0.0 % retransmitted, 25 % of flows stalled");
    let nothing = Observation { segs_out: Some(0), ..Observation::default() };
    assert_eq!(reason(nothing), "nothing was sent");
    let row = |retrans_segs| Observation { segs_out: None, ..link(20, retrans_segs, 0) };
    assert!(reason(row(1)).ends_with(", 1 segment retransmitted"));
    assert!(reason(row(2)).ends_with(", 2 segments retransmitted"));
    assert_eq!(reason(Observation::default()), "no round trip was measured");
}

#[test]
fn an_interval_of_no_time_changes_nothing() {
    let mut pacer = Classic::new(range());
    for _ in 0..10 {
        pacer.observe(&link(21, 0, 20), TICK);
    }
    let before = pacer.rate();
    pacer.observe(&link(900, 0, 20), Duration::ZERO);
    assert_eq!(pacer.rate(), before);
}

#[test]
fn a_row_of_the_original_family_is_understood() {
    let sample = LinkSample {
        timestamp: Duration::from_secs(1),
        rtt: None,
        srtt: None,
        retrans_segs: 2,
        segs_out: None,
        avg_cwnd: None,
        throughput_bps: None,
        flows: None,
        stalled_flows: None,
        source: None,
    };
    let mut pacer = Classic::new(range());
    let observation = Observation { p95_rtt: Some(Duration::from_millis(30)), ..(&sample).into() };
    pacer.observe(&observation, TICK);
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert!(hint.reason.contains("2 segments retransmitted"), "{}", hint.reason);
    assert_eq!(hint.source, None);
}

#[test]
fn the_interval_does_not_change_the_behaviour() {
    let after_two_seconds = |tick_ms: u64| {
        let mut pacer = Classic::new(range());
        for _ in 0..2000 / tick_ms {
            pacer.observe(&link(400, 0, tick_ms / 10), Duration::from_millis(tick_ms));
        }
        pacer.rate().get()
    };
    let (fast, slow) = (after_two_seconds(100), after_two_seconds(1000));
    assert!((fast - slow).abs() < 0.5, "{fast} at 100 ms, {slow} at 1 s");
}

proptest! {
    #[test]
    fn worse_is_never_better(
        rtt_us in 0u64..10_000_000, more_rtt in 0u64..10_000_000,
        loss in 0.0f64..1.0, more_loss in 0.0f64..1.0,
    ) {
        let rtt = Duration::from_micros(rtt_us);
        let worse = Duration::from_micros(rtt_us + more_rtt);
        prop_assert!(quality(worse, loss) <= quality(rtt, loss));
        prop_assert!(quality(rtt, loss + more_loss) <= quality(rtt, loss));
    }

    /// Two links over time, one of them never better than the other: nor is its rate ever higher.
    #[test]
    fn a_link_that_is_never_better_never_gets_more(
        steps in prop::collection::vec(
            (1u64..2000, 0u64..2000, 0u64..30, 0u64..30, 0.0f64..1.0, 0.0f64..1.0, 1u64..3000),
            1..40,
        ),
    ) {
        let (mut good, mut bad) = (Classic::new(range()), Classic::new(range()));
        for (rtt, more_rtt, lost, more_lost, stalled, more_stalled, elapsed) in steps {
            let elapsed = Duration::from_millis(elapsed);
            good.observe(&Observation { stalled, ..link(rtt, lost, 100) }, elapsed);
            let worse = link(rtt + more_rtt, lost + more_lost, 100);
            bad.observe(&Observation { stalled: stalled + more_stalled, ..worse }, elapsed);
            prop_assert!(bad.rate().get() <= good.rate().get() + 1e-9);
        }
    }

    /// What a lasting link ends at, and how fast, is the same for every sampling interval.
    #[test]
    fn the_average_does_not_depend_on_the_ticks(
        rtt_ms in 1u64..500, ticks in prop::collection::vec(10u64..1000, 1..100),
    ) {
        let seen = link(rtt_ms, 0, 20);
        let (mut uneven, mut once) = (Classic::new(range()), Classic::new(range()));
        for &tick in &ticks {
            uneven.observe(&seen, Duration::from_millis(tick));
        }
        once.observe(&seen, Duration::from_millis(ticks.iter().sum()));
        prop_assert!((uneven.rate().get() - once.rate().get()).abs() < 1e-6);
    }

    #[test]
    fn every_hint_is_within_bounds(
        steps in prop::collection::vec(
            (prop::option::of(any::<u64>()), any::<u64>(), prop::option::of(any::<u64>()), any::<f64>(), any::<u32>()),
            0..50,
        ),
    ) {
        let mut pacer = Classic::new(range());
        for (rtt, retrans_segs, segs_out, stalled, elapsed_ms) in steps {
            let observation = Observation {
                p95_rtt: rtt.map(Duration::from_nanos),
                retrans_segs,
                segs_out,
                stalled,
                hold: false,
                reader_limited: false,
                source: None,
            };
            pacer.observe(&observation, Duration::from_millis(elapsed_ms.into()));
            let hint = pacer.hint(&Scope::Host, Duration::ZERO);
            prop_assert!((5.0..=80.0).contains(&hint.current_tps.get()));
            prop_assert!((5.0..=80.0).contains(&hint.target_tps.get()));
            prop_assert!((0.0..=1.0).contains(&hint.health));
            prop_assert!((hint.sleep_seconds * hint.current_tps.get() - 1.0).abs() < 1e-6);
        }
    }
}
