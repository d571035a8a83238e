//! The classic policy against made-up judgements: how far it falls, how fast, and that it comes back.

use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(500);

fn range() -> TpsRange {
    let tps = |n| Tps::try_new(n).expect("valid");
    TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid")
}

/// A link that moves data.
fn link(health: f64) -> Observation {
    let reason = "p95 RTT 20 ms, usually 20 ms".to_owned();
    Observation {
        link: Judgement { health, reason, ..Judgement::default() },
        round_trip: true,
        ..Observation::default()
    }
}

/// The hint after observing `seen` for ten seconds.
fn hint_of(seen: &Observation) -> Hint {
    let mut pacer = Classic::new(range());
    for _ in 0..20 {
        pacer.observe(seen.clone(), TICK);
    }
    pacer.hint(&Scope::Host, Duration::ZERO)
}

#[test]
fn it_falls_and_recovers_as_the_link_does() {
    let mut pacer = Classic::new(range());
    let mut seconds_until = |seen: Observation, done: fn(f64) -> bool| {
        let tick = (0..100).find(|_| {
            pacer.observe(seen.clone(), TICK);
            done(pacer.rate().get())
        });
        f64::from(tick.expect("reached") + 1) * TICK.as_secs_f64()
    };
    assert_eq!(seconds_until(link(1.0), |rate| rate >= 80.0), 0.5);
    assert_eq!(seconds_until(link(0.1), |rate| rate <= 40.0), 0.5);
    assert!(seconds_until(link(0.1), |rate| rate <= 14.0) <= 2.0);
    assert!(seconds_until(link(1.0), |rate| rate >= 72.0) <= 1.5);
}

#[test]
fn the_rate_is_healths_share_of_the_range() {
    let check = |health: f64, rate: f64, state| {
        let hint = hint_of(&link(health));
        assert!((hint.current_tps.get() - rate).abs() < 0.1, "{hint:?}");
        assert_eq!((hint.state, hint.hold), (state, false));
    };
    check(1.0, 80.0, State::Clear);
    check(0.8, 65.0, State::Clear);
    check(0.5, 42.5, State::Constrained);
    check(0.0, 5.0, State::Constrained);
    check(-3.0, 5.0, State::Constrained);
    check(f64::NAN, 80.0, State::Clear);
}

#[test]
fn the_judgement_is_passed_on() {
    let link = Judgement { health: 0.4, anomaly: true, anomaly_score: 0.6, reason: "slow".into() };
    let hint = hint_of(&Observation { link, round_trip: true, ..Observation::default() });
    assert_eq!((hint.health, hint.anomaly, hint.anomaly_score), (0.4, true, 0.6));
    assert_eq!(hint.reason, "path: slow");
}

#[test]
fn a_stall_is_told_at_once_and_held() {
    let mut pacer = Classic::new(range());
    pacer.observe(link(1.0), TICK);
    let stall = Observation { stalled: 1.0, hold: true, round_trip: false, ..link(1.0) };
    pacer.observe(stall, TICK);
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!((hint.state, hint.hold, hint.target_tps), (State::Stalled, true, hint.min_tps));
    assert!(hint.current_tps.get() < 40.0 && hint.reason.starts_with("path"), "{hint:?}");
    // The stream ends; the link is as well as it was.
    pacer.observe(Observation { idle: true, round_trip: false, ..link(1.0) }, TICK);
    let hint = pacer.hint(&Scope::Host, Duration::ZERO);
    assert_eq!((hint.state, hint.hold), (State::Idle, false));
    assert_eq!(hint.target_tps, hint.max_tps);
}

#[test]
fn part_of_the_flows_stalling_lowers_the_rate_by_their_part() {
    let hint = hint_of(&Observation { stalled: 0.5, ..link(1.0) });
    assert!((hint.current_tps.get() - 42.5).abs() < 0.1, "{hint:?}");
    assert_eq!((hint.state, hint.hold), (State::Constrained, false));
    // Health that knows of the stall already is not lowered twice.
    assert_eq!(hint_of(&Observation { stalled: 0.5, ..link(0.5) }).current_tps, hint.current_tps);
}

#[test]
fn a_reader_that_takes_nothing_is_named_and_slows_the_rate() {
    let shut = Observation { reader_limited: true, round_trip: false, ..link(1.0) };
    let hint = hint_of(&shut);
    assert_eq!((hint.state, hint.hold), (State::Reader, false));
    assert_eq!(hint.reason, "reader: receive window full, nothing was taken");
    assert!(hint.current_tps.get() < 6.0 && hint.target_tps == hint.min_tps, "{hint:?}");
    // One that takes little is told, and the path's rate is what it is.
    let hint = hint_of(&Observation { reader_limited: true, ..link(1.0) });
    assert_eq!((hint.state, hint.target_tps), (State::Reader, hint.max_tps));
    assert_eq!(hint.reason, "reader: receive window full; p95 RTT 20 ms, usually 20 ms");
}

#[test]
fn an_interval_of_no_time_leaves_the_rate() {
    let mut pacer = Classic::new(range());
    pacer.observe(link(1.0), TICK);
    let before = pacer.rate();
    pacer.observe(link(0.0), Duration::ZERO);
    assert_eq!(pacer.rate(), before);
}

proptest! {
    /// Two links over time, one of them never better than the other: nor is its rate ever higher.
    #[test]
    fn a_link_that_is_never_better_never_gets_more(
        steps in prop::collection::vec(
            (0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 1u64..3000), 1..40,
        ),
    ) {
        let (mut good, mut bad) = (Classic::new(range()), Classic::new(range()));
        for (health, less_health, stalled, more_stalled, elapsed) in steps {
            let elapsed = Duration::from_millis(elapsed);
            good.observe(Observation { stalled, ..link(health) }, elapsed);
            let worse = link(health - less_health);
            bad.observe(Observation { stalled: stalled + more_stalled, ..worse }, elapsed);
            prop_assert!(bad.rate().get() <= good.rate().get() + 1e-9);
        }
    }

    /// What a lasting link ends at, and how fast, is the same for every sampling interval.
    #[test]
    fn the_average_does_not_depend_on_the_ticks(
        health in 0.0f64..1.0, ticks in prop::collection::vec(10u64..1000, 1..100),
    ) {
        let (mut uneven, mut once) = (Classic::new(range()), Classic::new(range()));
        for &tick in &ticks {
            uneven.observe(link(health), Duration::from_millis(tick));
        }
        once.observe(link(health), Duration::from_millis(ticks.iter().sum()));
        prop_assert!((uneven.rate().get() - once.rate().get()).abs() < 1e-6);
    }

    #[test]
    fn every_hint_is_within_bounds(
        steps in prop::collection::vec(
            (any::<f64>(), any::<f64>(), any::<[bool; 4]>(), any::<u32>()), 0..50,
        ),
    ) {
        let mut pacer = Classic::new(range());
        for (health, stalled, [round_trip, idle, hold, reader_limited], elapsed_ms) in steps {
            let seen = Observation {
                round_trip, idle, stalled, hold, reader_limited, source: None, ..link(health)
            };
            pacer.observe(seen, Duration::from_millis(elapsed_ms.into()));
            let hint = pacer.hint(&Scope::Host, Duration::ZERO);
            prop_assert!((5.0..=80.0).contains(&hint.current_tps.get()));
            prop_assert!((5.0..=80.0).contains(&hint.target_tps.get()));
            prop_assert!((0.0..=1.0).contains(&hint.health));
            prop_assert!((hint.sleep_seconds * hint.current_tps.get() - 1.0).abs() < 1e-6);
        }
    }
}
