//! One level for many hosts, beside one allocator over all of their streams.

use proptest::prelude::*;

use super::*;
use crate::plan::share;

fn tps(n: f64) -> Tps {
    Tps::try_new(n).expect("valid")
}

fn need(cap: f64, reading: f64, lead: f64) -> Need {
    Need { cap, reading: tps(reading), lead, ahead: 5.0 }
}

fn any_need() -> impl Strategy<Value = Option<Need>> {
    let parts = (0.0..100.0, 1.0..50.0, 0.0..20.0);
    prop::option::of(parts.prop_map(|(cap, reading, lead)| need(cap, reading, lead)))
}

/// What all streams of all hosts have, when each host has told the others no more than its demand.
fn rates(capacity: f64, hosts: &[Vec<Option<Need>>]) -> Vec<Vec<f64>> {
    let demands: Vec<Demand> = hosts.iter().map(|needs| Demand::of(needs)).collect();
    let level = fleet_level(tps(capacity), &demands);
    let plan = |needs: &Vec<_>| Share::default().plan(Some(level), tps(capacity), needs).1;
    hosts.iter().map(plan).collect()
}

fn asking(hosts: &[Vec<Option<Need>>]) -> Vec<Need> {
    hosts.iter().flatten().flatten().copied().collect()
}

#[test]
fn hosts_that_agree_on_a_level_share_as_one_host_would() {
    let hosts = [
        vec![Some(need(80.0, 10.0, 0.0)), Some(need(80.0, 10.0, 2.0)), None],
        vec![Some(need(5.0, 10.0, 0.0))],
        vec![],
    ];
    let shared = rates(45.0, &hosts);
    let alone = share(tps(45.0), &asking(&hosts));
    assert_eq!(shared[0][2], f64::INFINITY);
    let finite = shared.iter().flatten().filter(|rate| rate.is_finite());
    for (shared, alone) in finite.zip(&alone) {
        assert!((shared - alone).abs() < 1e-9, "{shared} {alone}");
    }
}

#[test]
fn a_host_that_hears_nothing_keeps_to_what_it_had() {
    let needs = vec![Some(need(80.0, 10.0, 0.0)); 3];
    let demands = [Demand::of(&needs), Demand::of(&vec![Some(need(80.0, 10.0, 0.0)); 6])];
    let level = fleet_level(tps(90.0), &demands);
    let mut share = Share::default();
    let sum = |rates: &[f64]| rates.iter().sum::<f64>();
    // Before anything was heard it has the engine for itself.
    assert!((sum(&share.plan(None, tps(90.0), &needs).1) - 90.0).abs() < 1e-9);
    assert!((sum(&share.plan(Some(level), tps(90.0), &needs).1) - 30.0).abs() < 1e-9);
    let (load, rates) = share.plan(None, tps(90.0), &needs);
    assert!(load == Load::Idle && (sum(&rates) - 30.0).abs() < 1e-9, "{rates:?}");
    // With one stream less the others have its part.
    let (_, rates) = share.plan(None, tps(90.0), &needs[1..]);
    assert!((rates[0] - 15.0).abs() < 1e-9, "{rates:?}");
}

#[test]
fn what_is_kept_is_what_was_had_on_average() {
    // Each host's lead is a token more or less, as it comes; the leader's word is about what each said before.
    let leads = [[0.0, 0.05, 0.1], [0.1, 0.0, 0.05]];
    let needs = |host: usize, at: usize| vec![Some(need(80.0, 20.0, leads[host][at % 3])); 2];
    let mut shares = [Share::default(); 2];
    for tick in 0..200 {
        // Every third, so that words always find the same.
        let word = tick / 3 * 3;
        let demands = [Demand::of(&needs(0, word)), Demand::of(&needs(1, word))];
        let level = Level { number: word as u64, ..fleet_level(tps(60.0), &demands) };
        for (host, share) in shares.iter_mut().enumerate() {
            share.plan(Some(level), tps(60.0), &needs(host, tick));
        }
    }
    let kept: Vec<f64> = (0..2)
        .map(|host| shares[host].plan(None, tps(60.0), &needs(host, 0)).1.iter().sum())
        .collect();
    assert!(kept.iter().all(|kept| (kept / 30.0 - 1.0).abs() < 0.02), "{kept:?}");
    assert!(kept.iter().sum::<f64>() <= 60.0 * 1.01, "{kept:?}");
}

#[test]
fn what_was_had_before_others_came_is_not_kept() {
    let streams = |count| vec![Some(need(80.0, 20.0, 0.0)); count];
    let (capacity, mut first, mut second) = (tps(60.0), Share::default(), Share::default());
    let alone = fleet_level(capacity, &[Demand::of(&streams(1))]);
    (0..100).for_each(|_| drop(first.plan(Some(alone), capacity, &streams(1))));
    // Another comes, and the bus goes at once.
    let demands = [Demand::of(&streams(1)), Demand::of(&streams(3))];
    let level = Level { number: 1, ..fleet_level(capacity, &demands) };
    first.plan(Some(level), capacity, &streams(1));
    second.plan(Some(level), capacity, &streams(3));
    let kept = [(&mut first, 1, 15.0), (&mut second, 3, 45.0)];
    for (share, count, part) in kept {
        let sum: f64 = share.plan(None, capacity, &streams(count)).1.iter().sum();
        assert!((sum - part).abs() < 1e-9, "{sum} of {part}");
    }
}

#[test]
fn what_nobody_asks_for_is_every_host_s_alike() {
    let demand = Demand::of(&[Some(need(10.0, 10.0, 5.0))]);
    let level = fleet_level(tps(100.0), &[demand.clone(), demand]);
    assert_eq!((level.level, level.load, level.spare), (f64::INFINITY, Load::Idle, 40.0));
    let mut share = Share::default();
    let had = vec![Some(need(10.0, 10.0, 5.0))];
    assert_eq!(share.plan(Some(level), tps(100.0), &had).1, [10.0]);
    // Those who come before the leader's next word share what is left with those who are there, and so do those who come when
    // nothing is heard.
    let came = vec![Some(need(80.0, 10.0, 0.0)); 10];
    for level in [Some(level), None] {
        let sum: f64 = share.plan(level, tps(100.0), &came).1.iter().sum();
        assert!((sum - 50.0).abs() < 1e-9, "{sum}");
    }
    let next = Level { number: 1, ..level };
    let sum: f64 = share.plan(Some(next), tps(100.0), &came).1.iter().sum();
    assert!((sum - 100.0).abs() < 1e-9, "no more than the engine generates: {sum}");
}

#[test]
fn a_host_that_had_nothing_to_ask_for_has_an_even_part_while_nothing_is_heard() {
    let busy = Demand::of(&vec![Some(need(80.0, 10.0, 0.0)); 6]);
    let level = fleet_level(tps(60.0), &[Demand::default(), busy]);
    assert!(level.level.is_finite() && level.spare == 0.0);
    let mut share = Share::default();
    share.plan(Some(level), tps(60.0), &[None]);
    let (_, rates) = share.plan(None, tps(60.0), &[Some(need(80.0, 10.0, 0.0))]);
    assert_eq!(rates, [30.0]);
}

#[test]
fn what_no_host_says_is_refused() {
    let turn = |level, weight| Turn { level, weight };
    let check = |turns: Vec<Turn>, reading, told: &str| {
        let error = Demand::try_new(turns, reading, 1).expect_err("no demand").to_string();
        assert!(error.contains(told), "{error}");
    };
    check(vec![turn(f64::NAN, 1.0)], 1.0, "level NaN");
    check(vec![turn(-1.0, 1.0)], 1.0, "level -1");
    check(vec![turn(1.0, f64::INFINITY)], 1.0, "by inf");
    check(vec![turn(1.0, 1.0), turn(2.0, -2.0)], 1.0, "not to -1");
    check(vec![turn(1.0, 0.0); 257], 1.0, "257 turns");
    check(Vec::new(), -1.0, "-1 tokens/s");
    let demand = Demand::try_new(vec![turn(2.0, -3.0), turn(1.0, 3.0)], 1.0, 1).expect("one");
    assert_eq!((demand.at(1.5), demand.cap()), (1.5, 3.0));
}

proptest! {
    #[test]
    fn a_fleet_shares_as_one_host_would(
        hosts in prop::collection::vec(prop::collection::vec(any_need(), 0..100), 1..5),
        capacity in 1.0..2000.0,
    ) {
        let shared = rates(capacity, &hosts);
        let finite: Vec<f64> =
            shared.iter().flatten().copied().filter(|rate| rate.is_finite()).collect();
        let sum: f64 = finite.iter().sum();
        prop_assert!(sum <= capacity * (1.0 + 1e-9), "{sum} of {capacity}");
        let alone = share(tps(capacity), &asking(&hosts));
        for (shared, alone) in finite.iter().zip(&alone) {
            prop_assert!((shared - alone).abs() <= 1e-6 * capacity, "{shared} {alone}");
        }
    }

    #[test]
    fn a_demand_of_many_streams_is_small_and_nearly_theirs(
        needs in prop::collection::vec(any_need(), 0..3000),
        level in 0.0..100.0,
    ) {
        let demand = Demand::of(&needs);
        prop_assert!(demand.turns().len() <= 2 * MOST_TURNS);
        let claims: Vec<_> = needs.iter().flatten().map(claim).collect();
        let caps: f64 = claims.iter().map(|claim| claim.cap()).sum();
        prop_assert!((demand.cap() - caps).abs() <= 1e-6 * (caps + 1.0), "{caps}");
        let alone: f64 = claims.iter().map(|claim| claim.at(level)).sum();
        // Only among those that are told as one does it differ: by a quarter of their distance, for all their weight.
        let among = |kind: usize| {
            let turns = claims.iter().filter(|claim| claim.cap() > 0.0);
            let mut turns: Vec<(f64, f64)> = turns.map(|claim| claim.turns()[kind]).collect();
            turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            let together = together(turns.len());
            let apart = |turns: &[(f64, f64)]| {
                let (least, most) = (turns[0].0, turns[turns.len() - 1].0);
                let weight: f64 = turns.iter().map(|(_, weight)| weight.abs()).sum();
                if least < level && level < most { weight * (most - least) / 4.0 } else { 0.0 }
            };
            turns.chunks(together).map(apart).sum::<f64>()
        };
        let near = among(0) + among(1) + 1e-6 * (caps + 1.0);
        prop_assert!((demand.at(level) - alone).abs() <= near, "{} {alone}", demand.at(level));
        let again = Demand::try_new(demand.turns().to_vec(), demand.reading(), demand.streams());
        let again = again.expect("a demand");
        prop_assert_eq!(again.turns(), demand.turns());
    }
}
