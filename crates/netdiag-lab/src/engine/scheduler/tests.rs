//! An engine's day in virtual time.

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn spec() -> EngineSpec {
    EngineSpec { seats: 2, step: ms(10), step_per_seat: ms(5), prefill: ms(20), queue: 3 }
}

/// Steps until `end`, idle time included; tokens as (milliseconds, request).
fn run(scheduler: &mut Scheduler, from: Duration, end: Duration) -> Vec<(u128, u64)> {
    let (mut now, mut tokens) = (from, Vec::new());
    while now < end {
        let step = scheduler.step(now);
        now += if step.tokens.is_empty() { step.idle.unwrap_or(end).max(ms(1)) } else { step.took };
        tokens.extend(step.tokens.iter().map(|(id, _)| (now.as_millis(), id.0)));
    }
    tokens
}

#[test]
fn a_step_takes_longer_with_more_requests_and_prompts() {
    let mut scheduler = Scheduler::new(spec());
    scheduler.submit(2).expect("room");
    scheduler.submit(3).expect("room");
    scheduler.submit(1).expect("room");
    // 10 + 2·5 + 2·20, then 10 + 2·5; the third comes in when the first is done.
    let expected = [(60, 1), (60, 2), (80, 1), (80, 2), (120, 2), (120, 3)];
    assert_eq!(run(&mut scheduler, Duration::ZERO, ms(300)), expected);
    let totals = Totals { generated_tokens: 6, requests: 3, finished: 3, aborted: 0 };
    assert_eq!(scheduler.totals(), totals);
}

#[test]
fn a_full_queue_refuses() {
    let mut scheduler = Scheduler::new(spec());
    for _ in 0..3 {
        scheduler.submit(9).expect("room");
    }
    assert_eq!(scheduler.submit(9), Err(QueueFull(3)));
    scheduler.step(Duration::ZERO);
    assert!(scheduler.submit(9).is_ok(), "two have seats now");
}

#[test]
fn who_is_held_gives_the_seat_away_and_comes_back_first() {
    let mut scheduler = Scheduler::new(EngineSpec { seats: 1, ..spec() });
    let ids: Vec<RequestId> = (0..3).map(|_| scheduler.submit(1000).expect("room")).collect();
    let phases = |scheduler: &Scheduler| {
        ids.iter().map(|id| scheduler.phase(*id).expect("there")).collect::<Vec<_>>()
    };
    scheduler.step(Duration::ZERO);
    assert_eq!(phases(&scheduler), [Phase::Running, Phase::Queued, Phase::Queued]);
    assert!(scheduler.set_paused(ids[0], true));
    let step = scheduler.step(ms(100));
    assert_eq!(step.tokens, [(ids[1], false)]);
    assert_eq!(phases(&scheduler), [Phase::Held, Phase::Running, Phase::Queued]);
    scheduler.set_paused(ids[0], false);
    scheduler.allow(ids[1], Allowance { rate: None, hold: true }, ms(200));
    let step = scheduler.step(ms(200));
    // Its prompt was worked on once.
    assert_eq!((&step.tokens[..], step.took), (&[(ids[0], false)][..], ms(15)));
    assert!(!scheduler.set_paused(RequestId(99), true));
}

#[test]
fn a_rate_is_kept() {
    let mut scheduler = Scheduler::new(spec());
    let paced = scheduler.submit(10_000).expect("room");
    scheduler.allow(
        paced,
        Allowance { rate: Tps::try_new(10.0).ok(), hold: false },
        Duration::ZERO,
    );
    scheduler.submit(10_000).expect("room");
    let tokens = run(&mut scheduler, Duration::ZERO, ms(10_000));
    let slow = tokens.iter().filter(|(_, id)| *id == paced.0).count();
    assert!((98..=101).contains(&slow), "{slow}");
    // The other one goes as fast as the engine: 15 ms, and 20 when both have a turn.
    assert!(tokens.len() - slow > 600, "{}", tokens.len());
}

#[test]
fn an_idle_engine_says_how_long() {
    let mut scheduler = Scheduler::new(spec());
    assert_eq!(scheduler.step(Duration::ZERO), Step::default());
    let id = scheduler.submit(5).expect("room");
    scheduler.allow(id, Allowance { rate: Tps::try_new(2.0).ok(), hold: false }, Duration::ZERO);
    assert_eq!(scheduler.step(Duration::ZERO).tokens.len(), 1);
    assert_eq!(scheduler.step(Duration::ZERO).idle, Some(ms(500)));
    assert!(scheduler.abort(id) && !scheduler.abort(id));
    assert_eq!((scheduler.totals().aborted, scheduler.step(ms(900))), (1, Step::default()));
}

proptest! {
    /// Whatever is done to them: nobody gets more than was asked for, seats are respected, and the books balance.
    #[test]
    fn tokens_are_counted_once(
        actions in prop::collection::vec((0_u8..6, 1_u64..8, 1_u32..6), 1..200),
    ) {
        let mut scheduler = Scheduler::new(spec());
        let (mut now, mut got) = (Duration::ZERO, BTreeMap::<RequestId, u32>::new());
        let mut asked = BTreeMap::new();
        for (action, which, tokens) in actions {
            let id = RequestId(which);
            match action {
                0 => if let Ok(id) = scheduler.submit(tokens) { asked.insert(id, tokens); },
                1 => {
                    scheduler.abort(id);
                }
                2 => {
                    scheduler.set_paused(id, tokens > 2);
                }
                3 => {
                    let rate = Tps::try_new(f64::from(tokens) * 20.0).ok();
                    scheduler.allow(id, Allowance { rate, hold: tokens == 5 }, now);
                }
                _ => {
                    let step = scheduler.step(now);
                    prop_assert!(step.tokens.len() <= 2);
                    now += step.took.max(ms(1));
                    for (id, last) in step.tokens {
                        let count = got.entry(id).or_default();
                        *count += 1;
                        prop_assert_eq!(last, *count == asked[&id]);
                    }
                }
            }
        }
        let sum: u32 = got.values().sum();
        let totals = scheduler.totals();
        prop_assert_eq!(totals.generated_tokens, u64::from(sum));
        let open = scheduler.requests.len() as u64;
        prop_assert_eq!(totals.requests, totals.finished + totals.aborted + open);
        prop_assert!(got.iter().all(|(id, count)| count <= &asked[id]));
    }
}
