//! Whole runs: the same bytes for the same seed, tokens that add up, and what each policy is for.

use std::time::Duration;

use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;

use super::*;

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
        round_trip: None,
        loss: (0.001, 1.0),
        traces: synthetic_traces(0..4),
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

fn tps(n: f64) -> Tps {
    Tps::try_new(n).expect("a rate")
}

#[test]
fn on_a_clean_long_link_carry_runs_at_the_maximum() {
    // One reader who reads as fast as anything can come, at 200 ms and at 300 ms with a lost packet in a thousand.
    let range = TpsRange::try_new(tps(5.0), tps(40.0)).expect("a range");
    let rate = |policy: Policy, rtt: u64, loss: f64| {
        let mut setup = setup(0.05);
        setup.policies = Policies { assumed_reading: Some(tps(200.0)), ..Policies::new(range) };
        setup.world = World { cellular: 0.0, leaving: 0.0, loss: (loss, 1.0), ..setup.world };
        setup.world.round_trip = Some(Duration::from_millis(rtt));
        let (records, _) = play(&setup, policy, 3).expect("runs");
        let long = records.iter().filter(|r| r.deliveries.len() > 300);
        let tpot: Vec<f64> = long.filter_map(|r| Some(r.tpot()?.as_secs_f64())).collect();
        assert!(!tpot.is_empty());
        tpot.len() as f64 / tpot.iter().sum::<f64>()
    };
    for (rtt, loss) in [(200, 0.0), (300, 0.001)] {
        let (none, carry) = (rate(Policy::None, rtt, loss), rate(Policy::Carry, rtt, loss));
        assert!(carry >= 0.99 * none.min(40.0), "{carry} of {none} at {rtt} ms, loss {loss}");
    }
}

#[test]
fn carry_wastes_less_and_serves_more_than_those_who_do_not_listen() {
    let run = |policy| run(&setup(1.2), policy, 5).expect("runs").summary;
    let (none, buffer, carry) = (run(Policy::None), run(Policy::Buffer), run(Policy::Carry));
    assert!(carry.qoe_mean > buffer.qoe_mean && buffer.qoe_mean > none.qoe_mean);
    let waste = |summary: &Summary| summary.waste_ratio.expect("tokens");
    assert!(waste(&carry) < 0.1 * waste(&none) && waste(&carry) < 0.1 * waste(&buffer));
    // Worth counts where the engine is full.
    let worth = |policy| self::run(&setup(2.0), policy, 5).expect("runs").summary.effective_tps;
    assert!(worth(Policy::Carry) > worth(Policy::None).map(|none| 3.5 * none));
}

#[test]
fn a_study_is_the_sum_of_its_jobs() {
    let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("a range");
    let mut study = Study::quick(range, synthetic_traces(0..2));
    study.setup.world.duration = Duration::from_secs(20);
    study.capacity = true;
    study.policies = vec![Policy::None, Policy::Carry];
    let done: Vec<Done> = study
        .jobs()
        .into_iter()
        .map(|job| study.work(job, || true).expect("runs").expect("done"))
        .collect();
    assert_eq!(study.work(study.jobs()[0], || false), Ok(None));
    let report = study.report(&done);
    assert_eq!((report.cells.len(), report.capacities.len()), (3, 1));
    for cell in &report.cells {
        assert_eq!(cell.rows.len(), 2);
        assert_eq!(cell.rows[0].qoe_gain, Some(Estimate { mean: 0.0, within: Some(0.0) }));
    }
    let loads = &report.capacities[0].loads;
    assert!(loads[0].1.mean < loads[1].1.mean, "{loads:?}");
}

#[test]
fn intervals_are_students() {
    // Mean 3, standard error √2.5/√5, t = 2.776.
    let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("values");
    assert_eq!(estimate.mean, 3.0);
    assert!((estimate.within.expect("several") - 2.776 * 0.5f64.sqrt()).abs() < 1e-9);
    assert_eq!(Estimate::of(&[1.0]).expect("a value").within, None);
    assert_eq!(Estimate::of(&[]), None);
}
