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
    let stall = Observation { stalled: 1.0, ..Observation::default() };
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

    #[test]
    fn every_hint_is_within_bounds(
        steps in prop::collection::vec(
            (prop::option::of(any::<u64>()), any::<u64>(), prop::option::of(any::<u64>()), -1.0f64..2.0, any::<u32>()),
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
