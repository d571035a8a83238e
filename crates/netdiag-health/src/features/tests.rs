//! Features of made-up links: what a path is measured by, and what one interval cannot do.

use netdiag_telemetry::RttSummary;
use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(500);

fn link(p95_ms: f64, retrans_segs: u64, segs_out: u64) -> Observation {
    let p95 = Duration::from_secs_f64(p95_ms / 1e3);
    let rtt = Some(RttRange { min: p95.mul_f64(0.9), p95 });
    Observation { rtt, retrans_segs, segs_out: Some(segs_out), stalled: 0.0 }
}

fn after(tracker: &mut FeatureTracker, seen: &Observation, ticks: u32, tick: Duration) -> View {
    let mut view = View::default();
    for _ in 0..ticks {
        view = tracker.observe(seen, tick);
    }
    view
}

#[test]
fn a_long_clean_path_is_its_own_measure() {
    for ms in [0.2, 20.0, 250.0] {
        let view = after(&mut FeatureTracker::new(), &link(ms, 0, 20), 100, TICK);
        assert!(view.features.rtt_ratio.abs() < 1e-9, "{view:?}");
        let baseline = view.recent.usual_rtt.expect("measured").as_secs_f64() * 1e3;
        assert!((baseline - ms).abs() < 1e-3, "{baseline}");
    }
}

#[test]
fn a_path_that_moved_for_good_becomes_the_norm_in_minutes() {
    let mut tracker = FeatureTracker::new();
    after(&mut tracker, &link(20.0, 0, 20), 1000, TICK);
    let ratio = |view: View| view.features.rtt_ratio.exp();
    assert!(ratio(after(&mut tracker, &link(60.0, 0, 20), 480, TICK)) > 2.9);
    assert!(ratio(after(&mut tracker, &link(60.0, 0, 20), 120, TICK)) < 1.1);
}

#[test]
fn the_interval_does_not_matter() {
    for tick in [5, 50, 100, 500, 1000].map(Duration::from_millis) {
        let ticks = |seconds: u32| (u128::from(seconds) * 1000 / tick.as_millis()) as u32;
        let segs = (40 * tick.as_millis() / 1000).max(1) as u64;
        let mut tracker = FeatureTracker::new();
        after(&mut tracker, &link(20.0, 0, segs), ticks(60), tick);
        let ratio = |view: View| view.features.rtt_ratio;
        assert!(ratio(after(&mut tracker, &link(60.0, 0, segs), ticks(1), tick)) < 0.1, "{tick:?}");
        assert!(ratio(after(&mut tracker, &link(60.0, 0, segs), ticks(2), tick)) > 1.0, "{tick:?}");
    }
}

#[test]
fn the_slope_is_per_second() {
    for tick in [100, 500].map(Duration::from_millis) {
        let mut tracker = FeatureTracker::new();
        let mut view = View::default();
        for i in 0..100 {
            let seconds = f64::from(i) * tick.as_secs_f64();
            view = tracker.observe(&link(1000.0 * (0.1 * seconds).exp(), 0, 20), tick);
        }
        assert!((view.features.rtt_slope - 0.1).abs() < 1e-3, "{view:?}");
    }
}

#[test]
fn silence_keeps_the_features_and_then_forgets_them() {
    let mut tracker = FeatureTracker::new();
    after(&mut tracker, &link(20.0, 0, 20), 100, TICK);
    let bad = after(&mut tracker, &link(80.0, 1, 20), 10, TICK);
    let idle = Observation { segs_out: Some(0), ..Observation::default() };
    let view = after(&mut tracker, &idle, 8, TICK);
    assert_eq!((view.features, view.idle), (bad.features, true));
    let view = after(&mut tracker, &idle, 2, TICK);
    assert_eq!((view.features, view.idle), (Features::default(), true));
    assert!(view.recent.usual_rtt.is_some(), "the baseline does not age in silence");
}

#[test]
fn retransmissions_are_a_share_even_where_segments_are_not_counted() {
    let check = |retrans_segs, segs_out, low: f64, high: f64| {
        let seen = Observation { segs_out, ..link(20.0, retrans_segs, 0) };
        let rate = after(&mut FeatureTracker::new(), &seen, 20, TICK).features.retrans_rate;
        assert!((low..=high).contains(&rate), "{rate}");
    };
    check(0, Some(100), 0.0, 0.0);
    check(3, Some(100), 0.02, 0.03);
    check(1, Some(2), 0.1, 0.2);
    check(2, None, 0.025, 0.04);
    check(u64::MAX, Some(0), 1.0, 1.0);
}

#[test]
fn a_link_sample_without_round_trips_stalls_or_is_idle() {
    let check = |rtt, flows, stalled_flows, expected: f64| {
        let sample = LinkSample {
            timestamp: Duration::ZERO,
            rtt,
            srtt: None,
            retrans_segs: 3,
            segs_out: Some(40),
            avg_cwnd: None,
            throughput_bps: None,
            flows,
            stalled_flows,
            source: None,
        };
        let seen = Observation::from(&sample);
        assert_eq!((seen.stalled, seen.retrans_segs, seen.segs_out), (expected, 3, Some(40)));
        assert_eq!(seen.rtt.map(|rtt| rtt.p95), rtt.map(|rtt: RttSummary| rtt.p95));
    };
    let ms = Duration::from_millis;
    let rtt = Some(RttSummary { min: ms(18), max: ms(40), avg: ms(20), p95: ms(30), samples: 9 });
    check(rtt, Some(4), Some(1), 0.25);
    check(rtt, None, None, 0.0);
    check(None, Some(4), Some(1), 0.25);
    check(None, Some(4), Some(4), 1.0);
    check(None, Some(4), Some(0), 0.0);
    check(None, None, Some(2), 1.0);
}

fn anything() -> impl Strategy<Value = (Observation, Duration)> {
    let duration = any::<u64>().prop_map(Duration::from_nanos);
    let rtt = prop::option::of((duration.clone(), duration.clone()));
    let stalled = prop_oneof![Just(0.0), 0.0..1.0, any::<f64>()];
    (rtt, any::<u64>(), prop::option::of(any::<u64>()), stalled, duration).prop_map(
        |(rtt, retrans_segs, segs_out, stalled, elapsed)| {
            let rtt = rtt.map(|(min, p95)| RttRange { min, p95 });
            (Observation { rtt, retrans_segs, segs_out, stalled }, elapsed)
        },
    )
}

/// Intervals as they occur.
fn plausible() -> impl Strategy<Value = (Observation, Duration)> {
    let link =
        (1.0..500.0, 0u64..20, 1u64..200).prop_map(|(ms, retrans, segs)| link(ms, retrans, segs));
    (link, (10u64..3000).prop_map(Duration::from_millis))
}

proptest! {
    #[test]
    fn whatever_comes_features_are_finite_and_memory_is_bounded(
        seen in prop::collection::vec(anything(), 0..200),
    ) {
        let mut tracker = FeatureTracker::new();
        for (seen, elapsed) in seen {
            let features = tracker.observe(&seen, elapsed).features;
            let all = [features.rtt_ratio, features.rtt_spread, features.retrans_rate, features.rtt_slope];
            prop_assert!(all.iter().all(|value| value.is_finite()), "{:?}", features);
            prop_assert!(tracker.round_trips.len() <= 64 && tracker.losses.len() <= 64);
        }
    }

    #[test]
    fn one_interval_alone_moves_nothing(
        ms in 1.0..300.0, spike_ms in 0.0..60_000.0, lost in 0u64..1000, tick_ms in 10u64..5000,
        stalled in 0.0..1.0,
    ) {
        let tick = Duration::from_millis(tick_ms);
        let mut tracker = FeatureTracker::new();
        let calm = link(ms, 0, 40);
        let before = after(&mut tracker, &calm, 100, tick).features;
        let spike = Observation { stalled, ..link(spike_ms, lost, 40) };
        for seen in std::iter::once(spike).chain(std::iter::repeat_n(calm, 20)) {
            let view = tracker.observe(&seen, tick);
            prop_assert!((view.features.rtt_ratio - before.rtt_ratio).abs() < 1e-9, "{:?}", view);
            prop_assert!((view.features.rtt_spread - before.rtt_spread).abs() < 1e-9, "{:?}", view);
            prop_assert!(view.features.retrans_rate <= 0.0 && view.stalled <= 0.0, "{:?}", view);
            prop_assert!(view.features.rtt_slope.abs() < 1e-9, "{:?}", view);
        }
    }

    #[test]
    fn a_worse_last_interval_is_no_better(
        past in prop::collection::vec(plausible(), 0..60), last in plausible(),
        longer in 1.0..10.0, more in 0u64..1000,
    ) {
        let mut tracker = FeatureTracker::new();
        for (seen, elapsed) in past {
            tracker.observe(&seen, elapsed);
        }
        let (seen, elapsed) = last;
        let rtt = seen.rtt.map(|rtt| RttRange { p95: rtt.p95.mul_f64(longer), ..rtt });
        let worse = Observation { rtt, retrans_segs: seen.retrans_segs + more, ..seen };
        let better = tracker.clone().observe(&seen, elapsed).features;
        let worse = tracker.observe(&worse, elapsed).features;
        prop_assert!(worse.rtt_ratio >= better.rtt_ratio);
        prop_assert!(worse.retrans_rate >= better.retrans_rate);
    }
}
