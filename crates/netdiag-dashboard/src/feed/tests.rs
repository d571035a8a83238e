//! What a viewer is told, in which order, and that nothing is told twice or never.

use netdiag_pacer::TpsRange;
use netdiag_telemetry::{Scope, Tps};

use super::*;
use crate::experiment::{Arm, Phase};
use crate::history::VALUES;

pub(crate) fn hint(state: HintState) -> Hint {
    let tps = |n| Tps::try_new(n).expect("valid");
    let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("valid");
    Hint { state, ..Hint::unknown(range, &Scope::Host, "test") }
}

pub(crate) fn feed() -> Feed {
    let label = Label {
        mode: Mode::Up,
        telemetry: "here".into(),
        has_streams: true,
        has_gateway: false,
        has_fleet: false,
        has_machine: true,
    };
    let staleness = Staleness { after: Duration::from_secs(2), policy: WhenStale::Max };
    Feed::new(label, staleness, hint(HintState::Idle))
}

pub(crate) fn point(t: f64) -> Point {
    Point { t, values: [1.0; VALUES], state: HintState::Clear }
}

fn push(feed: &Feed, t: f64) {
    feed.push(point(t), hint(HintState::Clear), Some(Instant::now()));
}

/// The events' names and data.
fn told(news: Vec<News>) -> Vec<(String, serde_json::Value)> {
    let bytes: Vec<u8> = news.into_iter().flat_map(|news| news.into_event().to_vec()).collect();
    let text = String::from_utf8(bytes).expect("text");
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name").to_owned();
        let data = data.strip_prefix("data: ").expect("data");
        (name, serde_json::from_str(data).expect("JSON"))
    });
    events.collect()
}

fn names(told: &[(String, serde_json::Value)]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn history_comes_first_then_what_is_new() {
    let feed = feed();
    push(&feed, 1.0);
    push(&feed, 2.0);
    let (mut position, news) = feed.all();
    let first = told(news);
    assert_eq!(names(&first), ["hello", "rows", "now", "live"]);
    assert_eq!(first[0].1["mode"], "up");
    assert_eq!(first[0].1["stale_after_seconds"], 2.0);
    assert_eq!(first[1].1["t"], serde_json::json!([1, 2]));
    assert_eq!(first[2].1["state"], "clear");

    push(&feed, 3.0);
    let next = told(feed.news(&mut position).expect("news"));
    assert_eq!(names(&next), ["rows", "now"]);
    assert_eq!(next[0].1["t"], serde_json::json!([3]));
    // Nothing is told twice, and a viewer that was away gets what it missed.
    assert_eq!(names(&told(feed.news(&mut position).expect("news"))), ["now"]);
    push(&feed, 4.0);
    push(&feed, 5.0);
    let missed = told(feed.news(&mut position).expect("news"));
    assert_eq!(missed[0].1["t"], serde_json::json!([4, 5]));
    // One by one, and to each viewer.
    let mut other = position.clone();
    for t in [6.0, 7.0, 8.0] {
        push(&feed, t);
        for position in [&mut position, &mut other] {
            let news = told(feed.news(position).expect("news"));
            assert_eq!(names(&news), ["rows", "now"]);
            assert_eq!(news[0].1["t"], serde_json::json!([t as u64]));
        }
    }
    // The clock jumps: begin anew.
    push(&feed, -1000.0);
    assert!(feed.news(&mut position).is_none());
}

#[tokio::test(start_paused = true)]
async fn staleness_is_judged_when_somebody_looks() {
    let feed = feed();
    let state = || told(feed.all().1).into_iter().find(|(name, _)| name == "now").expect("now").1;
    assert_eq!(state()["state"], "stale");
    push(&feed, 1.0);
    assert_eq!(state()["state"], "clear");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!((&state()["state"], &state()["age_seconds"]), (&"stale".into(), &3.0.into()));
    // What another server calls stale stays so, in its words.
    let theirs = Hint { reason: "theirs".into(), ..hint(HintState::Stale) };
    feed.push(point(2.0), theirs, Some(Instant::now()));
    assert_eq!((&state()["state"], &state()["reason"]), (&"stale".into(), &"theirs".into()));
}

#[tokio::test(start_paused = true)]
async fn an_experiment_is_told_from_its_beginning_to_its_report() {
    let feed = feed();
    let (mut before, _) = feed.all();
    let phase = |name: &str, fault| Phase {
        name: name.into(),
        kind: "calm",
        from_seconds: 0.0,
        to_seconds: 1.0,
        fault,
    };
    feed.begin_experiment(Experiment {
        scenario: "flaky".into(),
        description: "d".into(),
        seconds: 2.0,
        streams: 8,
        phases: vec![phase("calm", false), phase("bad", true)],
        arms: ["none", "classic"]
            .map(|name| Arm { name: name.into(), paced: name != "none" })
            .into(),
    });
    assert!(feed.news(&mut before).is_none());
    let tick = |seconds| ArmTick {
        seconds,
        rtt_p95: None,
        retrans: 0,
        health: 1.0,
        anomaly: false,
        current_tps: 80.0,
        generated_tps: 640.0,
    };
    feed.push_arm(1, tick(0.5));
    let (mut position, news) = feed.all();
    let first = told(news);
    assert_eq!(names(&first), ["hello", "experiment", "arm", "now", "live"]);
    assert_eq!((&first[1].1["running"], &first[1].1["report"]), (&true.into(), &false.into()));
    assert_eq!(
        (&first[2].1["arm"], &first[2].1["seconds"]),
        (&1.into(), &serde_json::json!([0.5]))
    );
    feed.push_arm(0, tick(1.0));
    feed.push_arm(1, tick(1.0));
    assert_eq!(names(&told(feed.news(&mut position).expect("news"))), ["now", "arm", "arm"]);
    assert_eq!(feed.report(), None);
    feed.end_experiment(Some(b"<p>".to_vec()));
    let last = told(feed.news(&mut position).expect("news"));
    assert_eq!(names(&last), ["now", "experiment"]);
    assert_eq!((&last[1].1["running"], &last[1].1["report"]), (&false.into(), &true.into()));
    assert_eq!(feed.report().as_deref(), Some(&b"<p>"[..]));
}
