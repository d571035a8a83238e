//! Whole rehearsals: the same bytes for the same seed, tokens that add up, and what each arm is for.

use netdiag_telemetry::Tps;

use super::*;
use crate::Scenario;

fn rehearsal(scenario: &str) -> (Rehearsal, u64) {
    let tps = |n| Tps::try_new(n).expect("a rate");
    let scenario = Scenario::builtin(scenario).expect("shipped");
    let rehearsal = Rehearsal {
        schedules: vec![scenario.schedules()[0].clone(); 8],
        streams: 8,
        model: Model {
            step: Duration::from_millis(11),
            step_per_seat: Duration::from_micros(150),
            ..Model::default()
        },
        output_tokens: 200..=600,
        leavers: 0.2,
        patience: Duration::from_secs(2),
        reader: Reader { rate: tps(10.0), expected_ttft: Duration::from_secs(1) },
        ramp: Duration::from_secs(1),
        duration: scenario.duration(),
        range: TpsRange::try_new(tps(5.0), tps(80.0)).expect("a range"),
        control: CongestionControl::Bbr,
        link_seed: scenario.seed(),
    };
    (rehearsal, scenario.seed())
}

#[test]
fn a_clean_link_wastes_nothing_and_never_stalls() {
    let (of, seed) = rehearsal("clean-long-haul");
    for arm in Arm::ALL {
        let summary = rehearse(&of, arm, seed).expect("runs");
        assert_eq!((summary.waste_ratio, summary.left), (Some(0.0), 0), "{arm:?}");
        assert!(summary.stall_ratio.is_some_and(|ratio| ratio < 0.01), "{summary:?}");
        // 80 tokens/s for each of eight, but for what passes between two answers.
        assert!(summary.delivered_tps.is_some_and(|tps| tps > 550.0), "{summary:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_and_pacing_wastes_less() {
    for scenario in ["flaky-wifi", "lte-drive"] {
        let (of, seed) = rehearsal(scenario);
        // Chance decides who leaves, so one seed says little.
        let waste = Arm::ALL.map(|arm| {
            let wasted = (seed..seed + 4).map(|seed| {
                let summary = rehearse(&of, arm, seed).expect("runs");
                assert!(summary.tokens.balances(), "{summary:?}");
                assert!(summary.tokens.generated > 3_000, "{summary:?}");
                summary.waste_ratio.expect("tokens")
            });
            wasted.sum::<f64>()
        });
        let again = |arm| rehearse(&of, arm, seed).expect("runs");
        assert_eq!(again(Arm::Carry), again(Arm::Carry));
        assert!(waste[1] < waste[0] && waste[2] < waste[0], "{scenario}: {waste:?}");
    }
}
