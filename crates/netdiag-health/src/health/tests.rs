//! The judgement of made-up links: deaf to a spike, quick on what lasts, and never better for being worse.

use proptest::prelude::*;

use netdiag_iforest::Params;

use super::*;
use crate::features::RttRange;

const TICK: Duration = Duration::from_millis(500);

fn link(p95_ms: f64, retrans_segs: u64, segs_out: u64) -> Observation {
    let p95 = Duration::from_secs_f64(p95_ms / 1e3);
    let rtt = Some(RttRange { min: p95.mul_f64(0.9), p95 });
    Observation { rtt, retrans_segs, segs_out: Some(segs_out), stalled: 0.0 }
}

/// A link whose p95 RTT wanders within a tenth of `ms`.
fn calm(ms: f64, ticks: u32, tick: Duration) -> Health {
    let mut health = Health::new(1);
    for i in 0..ticks {
        let wander = 1.0 + 0.1 * f64::from(i * 7 % 11) / 11.0;
        let assessment = health.observe(&link(ms * wander, 0, 20), tick);
        assert!(assessment.health > 0.95 && !assessment.anomaly, "{assessment:?}");
    }
    health
}

/// Seconds of `seen` until the flag is as wanted.
fn seconds_until(
    health: &mut Health,
    wanted: bool,
    tick: Duration,
    seen: impl Fn(u64) -> Observation,
) -> f64 {
    for ticks in 1..1000 {
        if health.observe(&seen(ticks), tick).anomaly == wanted {
            return ticks as f64 * tick.as_secs_f64();
        }
    }
    f64::INFINITY
}

#[test]
fn trouble_that_lasts_raises_the_flag_within_three_seconds_and_its_end_clears_it_within_ten() {
    let check = |what: &str, ms: f64, trouble: &dyn Fn(u64) -> Observation| {
        for tick in [100, 250, 500, 1000].map(Duration::from_millis) {
            let mut health = calm(ms, 200, tick);
            let raised = seconds_until(&mut health, true, tick, trouble);
            assert!(raised <= 3.0, "{what}: raised in {raised} s at {tick:?}");
            for ticks in 0..60 {
                assert!(health.observe(&trouble(ticks), tick).anomaly, "{what} at {tick:?}");
            }
            let cleared = seconds_until(&mut health, false, tick, |_| link(ms, 0, 20));
            assert!(cleared <= 10.0, "{what}: cleared in {cleared} s at {tick:?}");
        }
    };
    check("three times the RTT", 20.0, &|_| link(60.0, 0, 20));
    check("three times a long RTT", 250.0, &|_| link(750.0, 0, 20));
    check("three times a short RTT", 4.0, &|_| link(12.0, 0, 20));
    check("3 % of many segments", 20.0, &|_| link(20.0, 3, 100));
    check("5 % of few segments", 20.0, &|_| link(20.0, 1, 20));
    check("every flow stalls", 20.0, &|_| Observation { stalled: 1.0, ..Observation::default() });
}

#[test]
fn three_percent_of_few_segments_is_told_in_time_wherever_the_losses_fall() {
    // A segment in 33 is lost, of 40 to 130 a second.
    for (segs, phase) in
        [20, 33, 65].into_iter().flat_map(|segs| (0..33).map(move |phase| (segs, phase)))
    {
        let mut health = calm(20.0, 200, TICK);
        let lost = |ticks: u64| (ticks * segs + phase) / 33 - ((ticks - 1) * segs + phase) / 33;
        let seen = |ticks| link(20.0, lost(ticks), segs);
        let raised = seconds_until(&mut health, true, TICK, seen);
        assert!(raised <= 3.0, "{raised} with {segs} segments, phase {phase}");
    }
}

#[test]
fn three_intervals_are_recent_however_long_they_are() {
    let minute = Duration::from_secs(60);
    let mut health = calm(20.0, 50, minute);
    // Two of three agree. After five minutes of it the path has moved for good.
    let lit = [(); 4].map(|()| health.observe(&link(60.0, 0, 2400), minute).anomaly);
    assert_eq!(lit, [false, true, true, true]);
}

#[test]
fn a_first_interval_that_is_not_like_the_others_is_no_trouble() {
    for first_ms in [1.0, 10.0, 20.0, 30.0, 50.0, 200.0, 5000.0] {
        for tick in [100, 500, 1000].map(Duration::from_millis) {
            let mut health = Health::new(1);
            health.observe(&link(first_ms, 0, 20), tick);
            for ticks in 0..100 {
                let assessment = health.observe(&link(60.0, 0, 20), tick);
                let fine = !assessment.anomaly && assessment.health > 0.9;
                assert!(fine, "{first_ms} ms first, tick {ticks} of {tick:?}: {assessment:?}");
            }
        }
    }
}

#[test]
fn half_a_millisecond_is_scheduling() {
    let raised = |ms: f64| {
        let mut health = calm(ms, 200, TICK);
        seconds_until(&mut health, true, TICK, |_| link(3.0 * ms, 0, 20))
    };
    assert!(raised(0.3).is_infinite());
    assert!(raised(1.0) <= 3.0);
}

#[test]
fn a_link_that_answers_no_more_is_not_well_between_two_attempts() {
    // A sender's attempts double their distance, up to two minutes; files of the original family count no stalls.
    let attempt = Observation { retrans_segs: 1, segs_out: None, ..Observation::default() };
    let mut health = calm(20.0, 200, TICK);
    let mut assessments = Vec::new();
    for attempt_after in [1, 1, 2, 4, 8, 16, 32, 64, 128, 240, 240] {
        assessments.push(health.observe(&attempt, TICK));
        let silence = (1..attempt_after).map(|_| health.observe(&Observation::default(), TICK));
        assessments.extend(silence.collect::<Vec<_>>());
    }
    let trouble = &assessments[8..];
    assert!(trouble.iter().all(|seen| seen.anomaly && seen.health < 0.1), "{trouble:?}");
    // It is given up in the end, and an answer is one.
    for _ in 0..260 {
        health.observe(&Observation::default(), TICK);
    }
    assert!(health.observe(&Observation::default(), TICK).health > 0.9);
}

#[test]
fn a_link_with_little_to_say_is_well_again_in_time() {
    for idle in 0..10 {
        let seen = move |bad: bool| {
            move |ticks: u64| match ticks % (idle + 1) {
                0 => link(if bad { 80.0 } else { 20.0 }, u64::from(bad), 20),
                _ => Observation::default(),
            }
        };
        let mut health = calm(20.0, 200, TICK);
        for ticks in 0..100 {
            health.observe(&seen(true)(ticks), TICK);
        }
        let cleared = seconds_until(&mut health, false, TICK, seen(false));
        assert!(cleared <= 10.0, "{cleared} s with {idle} idle intervals between");
    }
}

#[test]
fn streams_are_judged_by_a_model_without_gathering_rows() {
    let mut stream = Health::without_training();
    stream.set_model(some_model());
    for _ in 0..1000 {
        assert_eq!(stream.observe(&link(20.0, 0, 20), TICK).basis, Basis::Model);
    }
    assert_eq!(stream.take_training_set(), None);
}

#[test]
fn a_stray_loss_now_and_then_is_no_anomaly() {
    let mut health = calm(20.0, 200, TICK);
    for ticks in 0..2000 {
        let assessment = health.observe(&link(20.0, u64::from(ticks % 8 == 0), 20), TICK);
        assert!(!assessment.anomaly, "{assessment}");
    }
}

#[test]
fn without_a_model_it_says_so() {
    let assessment = Health::new(1).observe(&link(20.0, 0, 20), TICK);
    assert_eq!(assessment.basis, Basis::Quantiles);
    let expected = "p95 RTT 20 ms, usually 20 ms, 0.0 % retransmitted, no model yet";
    assert_eq!(assessment.to_string(), expected);
}

#[test]
fn the_reason_is_one_sentence_of_numbers() {
    let reason = |past_ms: f64, seen: Observation| {
        let mut health = calm(past_ms, 200, TICK);
        let told = (0..6).map(|_| health.observe(&seen, TICK).to_string()).last();
        told.expect("six").replace(", no model yet", "")
    };
    let lossy = reason(20.0, link(204.0, 20, 400));
    assert_eq!(lossy, "p95 RTT 204 ms, usually 20 ms, 5.0 % retransmitted");
    assert_eq!(
        reason(3.0, link(3.12, 0, 400)),
        "p95 RTT 3.1 ms, usually 3.0 ms, 0.0 % retransmitted"
    );
    let stalled = reason(20.0, Observation { stalled: 0.25, ..link(20.0, 0, 400) });
    assert!(stalled.ends_with(", 0.0 % retransmitted, 25 % of flows stalled"), "{stalled}");
    // Files of the original family count no segments.
    let row = |retrans_segs| Observation { segs_out: None, ..link(20.0, retrans_segs, 0) };
    assert!(reason(20.0, row(2)).ends_with(", 12 segments retransmitted"));
    // More than was sent: two sources counted at different moments.
    assert!(reason(20.0, link(20.0, 9, 3)).ends_with(", 100.0 % retransmitted"));
}

#[test]
fn nothing_seen_is_healthy() {
    let assessment = Health::new(1).observe(&Observation::default(), TICK);
    assert!(assessment.idle && !assessment.anomaly && assessment.health >= 1.0);
    assert!(assessment.to_string().starts_with("no round trip"), "{assessment}");
}

#[test]
fn a_change_scores_at_once_and_passes() {
    let mut health = calm(20.0, 400, TICK);
    let change = health.observe(&link(60.0, 0, 20), TICK);
    assert!(change.anomaly_score > 0.1 && change.health > 0.95, "{change:?}");
    let after = health.observe(&link(20.0, 0, 20), TICK);
    assert!(after.anomaly_score < 0.1, "{after:?}");
}

/// As the caller does it, on whatever thread.
fn train(health: &mut Health) -> bool {
    let Some(set) = health.take_training_set() else { return false };
    let params = Params { n_estimators: 50, ..Params::default() };
    health.set_model(Arc::new(set.train(&params).expect("trainable")));
    true
}

/// A link that has been watched for `seconds`, whose p95 RTT wanders by `wander` (a share), with its model.
fn trained(ms: f64, wander: f64, seconds: u32) -> Health {
    let mut health = Health::new(1);
    for i in 0..seconds * 2 {
        let p95_ms = ms * (1.0 + wander * f64::from(i * 37 % 101) / 101.0);
        health.observe(&link(p95_ms, u64::from(i % 40 == 0), 20), TICK);
        train(&mut health);
    }
    assert!(health.model().is_some());
    health
}

#[test]
fn it_trains_itself_after_a_warm_up() {
    let mut health = calm(20.0, 598, TICK);
    assert!(!train(&mut health), "299 seconds of rows are too few");
    let mut health = calm(20.0, 610, TICK);
    assert!(train(&mut health));
    let assessment = health.observe(&link(20.0, 0, 20), TICK);
    assert_eq!(assessment.basis, Basis::Model);
    assert!(!assessment.to_string().contains("no model"), "{assessment}");
}

#[test]
fn a_model_of_a_noisy_link_still_sees_what_lasts_and_nothing_else() {
    // The last one doubles its RTT again and again in peace.
    for (ms, wander) in [(20.0, 0.1), (50.0, 0.3), (20.0, 1.0)] {
        let mut health = trained(ms, wander, 1000);
        for i in 0..2000 {
            let p95_ms = ms * (1.0 + wander * f64::from(i * 29 % 103) / 103.0);
            let assessment = health.observe(&link(p95_ms, u64::from(i % 40 == 0), 20), TICK);
            assert!(!assessment.anomaly && assessment.health > 0.5, "{wander}: {assessment:?}");
        }
        let typical = ms * (1.0 + 0.5 * wander);
        let raised = seconds_until(&mut health, true, TICK, |_| link(3.0 * typical, 0, 20));
        assert!(raised <= 3.0, "{wander}: raised in {raised} s");
        let cleared = seconds_until(&mut health, false, TICK, |_| link(typical, 0, 20));
        assert!(cleared <= 10.0, "{wander}: cleared in {cleared} s");
    }
}

#[test]
fn trouble_is_not_learned_as_the_norm() {
    let mut health = trained(20.0, 0.1, 400);
    let before = health.model().expect("trained").training().rows;
    for _ in 0..400 {
        health.observe(&link(100.0, 2, 20), TICK);
    }
    assert!(health.observe(&link(100.0, 2, 20), TICK).anomaly);
    let after = health.reservoir.as_ref().map_or(0, Reservoir::len);
    // The first was trained after 300 seconds; then a hundred healthy ones, and what it takes to raise the flag.
    assert!((before..=before + 100 + 3).contains(&after), "{after} after {before}");
}

/// Intervals as they occur: also without a round trip, without a loss, and with stalls.
fn plausible() -> impl Strategy<Value = Observation> {
    let stalled = prop_oneof![3 => Just(0.0), 1 => 0.0..1.0];
    let retrans = prop_oneof![1 => Just(0u64), 1 => 0u64..20];
    (prop::option::weighted(0.7, 1.0..500.0), retrans, prop::option::of(1u64..200), stalled)
        .prop_map(|(ms, retrans, segs, stalled)| {
            let rtt = ms.and_then(|ms| link(ms, 0, 0).rtt);
            Observation { rtt, retrans_segs: retrans, segs_out: segs, stalled }
        })
}

/// The same model for all cases.
fn some_model() -> Arc<Model> {
    static MODEL: std::sync::OnceLock<Arc<Model>> = std::sync::OnceLock::new();
    MODEL.get_or_init(|| Arc::clone(trained(20.0, 0.3, 400).model().expect("trained"))).clone()
}

proptest! {
    #[test]
    fn health_never_rises_when_the_last_interval_is_worse(
        past in prop::collection::vec(plausible(), 0..60), last in plausible(),
        longer in 1.0..10.0, more in 0u64..1000, stuck in 0.0..1.0, with_model in any::<bool>(),
    ) {
        let mut health = Health::new(1);
        if with_model {
            health.set_model(some_model());
        }
        for seen in &past {
            health.observe(seen, TICK);
        }
        let rtt = last.rtt.map(|rtt| RttRange { p95: rtt.p95.mul_f64(longer), ..rtt });
        let (retrans_segs, stalled) = (last.retrans_segs + more, last.stalled.max(stuck));
        let worse = Observation { rtt, retrans_segs, stalled, ..last };
        let better = health.clone().observe(&last, TICK).health;
        let worse = health.observe(&worse, TICK).health;
        prop_assert!(worse <= better + 1e-12, "{} after {}", worse, better);
    }

    #[test]
    fn health_never_rises_with_rtt_ratio_or_retransmit_rate(
        ratio in -1.0..4.0, rate in 0.0..0.5, longer in 0.0..3.0, more in 0.0..0.5,
        spread in 0.0..3.0, slope in -1.0..1.0, usual in 0.0..1.0, with_model in any::<bool>(),
    ) {
        let health = |rtt_ratio, retrans_rate| {
            let features = Features { rtt_ratio, rtt_spread: spread, retrans_rate, rtt_slope: slope };
            let forest = if with_model { some_model().judge(&features) } else { ForestPart::default() };
            let view = crate::features::View { features, ..Default::default() };
            score::combine(&view, usual, forest, 0.0).health
        };
        let (better, worse) = (health(ratio, rate), health(ratio + longer, rate + more));
        prop_assert!((0.0..=1.0).contains(&better) && worse <= better + 1e-12, "{} after {}", worse, better);
    }

    #[test]
    fn a_single_spiked_interval_never_raises_the_flag(
        ms in 0.1..300.0, spike_ms in 0.0..60_000.0, lost in 0u64..1000, tick_ms in 10u64..5000,
        stalled in 0.0..1.0,
    ) {
        let tick = Duration::from_millis(tick_ms);
        let mut health = calm(ms, 100, tick);
        let spike = Observation { stalled, ..link(spike_ms, lost, 40) };
        for seen in std::iter::once(spike).chain(std::iter::repeat_n(link(ms, 0, 20), 20)) {
            let assessment = health.observe(&seen, tick);
            prop_assert!(!assessment.anomaly && assessment.health > 0.9, "{:?}", assessment);
        }
    }

    #[test]
    fn nor_does_one_after_a_silence(ms in 1.0..300.0, spike_ms in 0.0..60_000.0, lost in 0u64..1000) {
        let mut health = calm(ms, 100, TICK);
        let idle = std::iter::repeat_n(Observation::default(), 40);
        for seen in idle.chain([link(spike_ms, lost, 40), link(ms, 0, 20), link(ms, 0, 20)]) {
            let assessment = health.observe(&seen, TICK);
            prop_assert!(!assessment.anomaly && assessment.health > 0.9, "{:?}", assessment);
        }
    }

    #[test]
    fn nor_does_one_on_a_link_that_just_began(spike_ms in 0.1..60_000.0, lost in 0u64..1000) {
        let mut health = Health::new(1);
        for seen in [link(20.0, 0, 20), link(spike_ms, lost, 40), link(20.0, 0, 20)] {
            prop_assert!(!health.observe(&seen, TICK).anomaly);
        }
    }
}
