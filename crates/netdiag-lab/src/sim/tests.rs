//! Whole runs: the same bytes for the same seed, tokens that add up, and what each policy is for.

use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;

use super::*;
use crate::cellular::cellular;

fn setup(load: f64) -> Setup {
    let tps = |n| Tps::try_new(n).expect("a rate");
    let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("a range");
    let world = World {
        load,
        burstiness: 1.0,
        cellular: 0.3,
        vanishing: 0.15,
        leaving: 0.1,
        patience: None,
        outages: None,
        traces: (0..4).map(|seed| cellular(2_000_000, seed).expect("possible")).collect(),
        duration: Duration::from_secs(120),
    };
    Setup { model: Model::default(), world, policies: Policies::new(range) }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_every_token_is_somewhere() {
    for policy in Policy::ALL {
        let patient = setup(1.2);
        let world = World { patience: Some(Duration::from_secs(10)), ..patient.world.clone() };
        for setup in [Setup { world, ..patient.clone() }, patient] {
            let outcome = run(&setup, policy, 7).expect("runs");
            assert_eq!(outcome, run(&setup, policy, 7).expect("runs"), "{policy:?}");
            let tokens = outcome.summary.tokens;
            assert!(tokens.balances() && tokens.generated > 50_000, "{tokens:?}");
        }
    }
}
