//! Demands of made-up nodes: who is given what, who is left out, and what a restart, a silence and garbage do.

use proptest::prelude::*;

use super::*;

fn name(name: &str) -> NodeName {
    NodeName::try_new(name).expect("a name")
}

/// A node that asks for `cap` tokens/s at any level.
fn message(node: &str, sequence: u64, cap: f64, capacity_tps: Option<f64>) -> DemandMessage {
    DemandMessage {
        node: name(node),
        engine: name("e1"),
        session: 1,
        sequence,
        ttl_seconds: 1.0,
        capacity_tps,
        streams: 1,
        reading_tps: 10.0,
        health: Some(0.75),
        state: Some(State::Constrained),
        turns: vec![(0.0, 10.0), (cap as f32 / 10.0, -10.0)],
    }
}

fn hear(demands: &mut Demands, message: &DemandMessage, now: Instant) -> Result<(), String> {
    let subject = format!("{DEMANDS}.{}.{}", message.engine, message.node);
    let payload = serde_json::to_vec(message).expect("JSON");
    demands.hear(&subject, &payload, now).map_err(|error| error.to_string())
}

fn given(demands: &mut Demands, now: Instant) -> Vec<f64> {
    let engines = demands.engines(now);
    engines.iter().flat_map(|(view, _)| view.nodes.iter().map(|member| member.given_tps)).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_share_what_the_most_cautious_says_and_silent_ones_keep_theirs() {
    let now = Instant::now();
    let mut demands = Demands::default();
    hear(&mut demands, &message("n1", 1, 80.0, None), now).expect("heard");
    assert_eq!(given(&mut demands, now), [80.0]);
    hear(&mut demands, &message("n2", 1, 80.0, Some(60.0)), now).expect("heard");
    hear(&mut demands, &message("n3", 1, 10.0, Some(50.0)), now).expect("heard");
    assert_eq!(given(&mut demands, now), [20.0, 20.0, 10.0]);
    // What is older than what is known is left out.
    hear(&mut demands, &message("n3", 0, 80.0, Some(50.0)), now).expect("heard");
    assert_eq!(given(&mut demands, now), [20.0, 20.0, 10.0]);
    let later = now + HOLDS + Duration::from_secs(1);
    hear(&mut demands, &message("n2", 2, 80.0, Some(60.0)), later).expect("heard");
    let view = &demands.engines(later)[0].0;
    let silent: Vec<bool> = view.nodes.iter().map(|member| member.is_silent).collect();
    assert_eq!((silent, view.given_tps), (vec![true, false, true], 50.0));
    let ages: Vec<f64> = view.nodes.iter().map(|member| member.age_seconds).collect();
    assert_eq!(ages, [2.0, 0.0, 2.0]);
    let gone = now + HOLDS + KEPT;
    assert_eq!(given(&mut demands, gone), [60.0]);
    // Who takes its leave is gone at once.
    let leave = DemandMessage { ttl_seconds: 0.0, ..message("n2", 3, 80.0, None) };
    hear(&mut demands, &leave, gone).expect("heard");
    assert!(demands.engines(gone).is_empty() && demands.count == 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_no_second_process() {
    let mut demands = Demands::default();
    let start = Instant::now();
    let of = |session, sequence| DemandMessage { session, ..message("n1", sequence, 80.0, None) };
    let is_told = |demands: &Demands| demands.by_engine[&name("e1")][&name("n1")].is_told;
    // What the one before says last comes behind the first of the next.
    hear(&mut demands, &of(1, 1), start).expect("heard");
    hear(&mut demands, &of(2, 1), start).expect("heard");
    hear(&mut demands, &of(1, 2), start).expect("heard");
    for late in [Duration::ZERO, 2 * HOLDS] {
        let leave = DemandMessage { ttl_seconds: 0.0, ..of(1, 3) };
        hear(&mut demands, &leave, start + late).expect("heard");
        assert_eq!(given(&mut demands, start + late), [80.0], "{late:?}");
        assert!(!is_told(&demands));
    }
    // The next restart, much later, is none either.
    let next = start + 10 * TOGETHER;
    hear(&mut demands, &of(2, 2), next).expect("heard");
    hear(&mut demands, &of(3, 1), next).expect("heard");
    hear(&mut demands, &of(2, 3), next).expect("heard");
    assert!(!is_told(&demands));
    // Two that both go on.
    for tick in 0..40 {
        let now = next + tick * HOLDS / 10;
        hear(&mut demands, &of(3, 10 + u64::from(tick)), now).expect("heard");
        hear(&mut demands, &of(2, 10 + u64::from(tick)), now).expect("heard");
        assert_eq!(is_told(&demands), now >= next + TOGETHER, "{tick}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_runs_the_fleet_knows_engines_best() {
    let capacity = Tps::try_new(30.0).expect("a rate");
    let mut demands = Demands::new(BTreeMap::from([(name("e1"), capacity)]));
    let now = Instant::now();
    hear(&mut demands, &message("n1", 1, 80.0, Some(60.0)), now).expect("heard");
    assert_eq!(given(&mut demands, now), [30.0]);
}

#[tokio::test(start_paused = true)]
async fn how_a_node_is_is_told_and_what_a_later_version_says_of_it_costs_nothing() {
    let mut demands = Demands::default();
    let now = Instant::now();
    let mut heard = |sequence, health: &str, state: &str| {
        let json = serde_json::to_string(&message("n1", sequence, 80.0, None)).expect("JSON");
        let json = json.replace("0.75", health).replace("constrained", state);
        demands.hear("netdiag.v1.demand.e1.n1", json.as_bytes(), now).expect("heard");
        let member = demands.engines(now)[0].0.nodes[0].clone();
        (member.health, member.state, member.given_tps)
    };
    assert_eq!(heard(1, "0.75", "constrained"), (Some(0.75), Some(State::Constrained), 80.0));
    assert_eq!(heard(2, "7.5", "congealed"), (None, None, 80.0));
    assert_eq!(heard(3, "null", "clear"), (None, Some(State::Clear), 80.0));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_of_ours_says_is_left_out() {
    let mut demands = Demands::default();
    let now = Instant::now();
    let bad = DemandMessage { turns: vec![(0.0, 1.0)], ..message("n1", 1, 80.0, None) };
    assert!(hear(&mut demands, &bad, now).expect_err("refused").contains("add up to 0"));
    let bad = message("n1", 1, 80.0, Some(-1.0));
    assert!(hear(&mut demands, &bad, now).expect_err("refused").contains("-1 tokens/s"));
    let payload = serde_json::to_vec(&message("n1", 1, 80.0, None)).expect("JSON");
    let forged = demands.hear("netdiag.v1.demand.e1.n2", &payload, now);
    assert!(matches!(forged, Err(InvalidFleetMessage::Subject)));
    assert!(demands.engines(now).is_empty());
}

proptest! {
    #[test]
    fn garbage_is_never_a_panic(payload: Vec<u8>, subject: String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("one");
        let _in = runtime.enter();
        let _ = Demands::default().hear(&subject, &payload, Instant::now());
        let _ = read_level(&name("e1"), &payload);
    }
}
