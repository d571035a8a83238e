//! The scheduler in virtual time: what a step takes, who is in it, and what holds whatever is asked of it.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn tokens(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

/// Two seats, 10 ms a step and 1 more for each member, 10 prompt tokens a step at 1 ms each.
fn model() -> Model {
    Model {
        seats: NonZeroUsize::new(2).expect("not zero"),
        step: ms(10),
        step_per_seat: ms(1),
        step_per_prompt_token: ms(1),
        prompt_chunk: tokens(10),
        kv_tokens: 1000,
        queue: 4,
    }
}

fn phase(scheduler: &Scheduler, id: RequestId) -> Option<Phase> {
    Some(scheduler.status(id)?.phase)
}

fn scheduler() -> Scheduler {
    Scheduler::try_new(model()).expect("valid")
}

/// Runs until `until`; tokens as (request, index, milliseconds).
fn run(scheduler: &mut Scheduler, from: Duration, until: Duration) -> Vec<(u64, u32, u64)> {
    let (mut now, mut tokens) = (from, Vec::new());
    while let Some(next) = scheduler.advance(now, &mut tokens) {
        if next > until {
            break;
        }
        assert!(next > now, "time goes on");
        now = next;
    }
    tokens.iter().map(|t| (t.request.0, t.index, t.at.as_millis() as u64)).collect()
}

#[test]
fn a_step_takes_as_long_as_its_members_make_it() {
    let mut scheduler = scheduler();
    scheduler.submit(5, tokens(3)).expect("room");
    // One member with five prompt tokens: 10 + 1 + 5; then 10 + 1 each.
    assert_eq!(run(&mut scheduler, ms(0), ms(1000)), [(0, 0, 16), (0, 1, 27), (0, 2, 38)]);
    assert_eq!(scheduler.occupancy(), Occupancy::default());
    scheduler.submit(1, tokens(1)).expect("room");
    scheduler.submit(1, tokens(2)).expect("room");
    // Two members with a prompt token each: 10 + 2 + 2; then one.
    assert_eq!(run(&mut scheduler, ms(100), ms(1000)), [(1, 0, 114), (2, 0, 114), (2, 1, 125)]);
}

#[test]
fn a_long_prompt_is_worked_off_in_chunks_beside_the_others() {
    let mut scheduler = scheduler();
    scheduler.submit(1, tokens(4)).expect("room");
    scheduler.submit(25, tokens(1)).expect("room");
    let expected = [
        // 1 + 9 of 10 prompt tokens, 10 more, the last 6, none.
        (0, 0, 22),
        (0, 1, 22 + 22),
        (0, 2, 44 + 18),
        (1, 0, 44 + 18),
        (0, 3, 62 + 11),
    ];
    assert_eq!(run(&mut scheduler, ms(0), ms(1000)), expected);
}

#[test]
fn seats_are_taken_in_order_of_arrival_and_the_queue_is_bounded() {
    let mut scheduler = scheduler();
    for _ in 0..6 {
        scheduler.submit(1, tokens(1)).expect("two seats and four places");
    }
    assert_eq!(scheduler.submit(1, tokens(1)), Err(Refused::Busy(4)));
    let order: Vec<_> = run(&mut scheduler, ms(0), ms(1000)).iter().map(|t| t.0).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    let too_long = Refused::TooLong { needed: 1001, kv_tokens: 1000 };
    assert_eq!(scheduler.submit(1, tokens(1000)), Err(too_long));
    assert_eq!(
        too_long.to_string(),
        "1001 tokens of prompt and answer do not fit into 1000: ask for fewer"
    );
}

#[test]
fn who_does_not_fit_into_the_kv_cache_waits_though_a_seat_is_free() {
    let mut scheduler = scheduler();
    scheduler.submit(1, tokens(599)).expect("room");
    let second = scheduler.submit(1, tokens(400)).expect("a place in the queue");
    assert_eq!(phase(&scheduler, second), Some(Phase::Queued));
    assert_eq!(scheduler.occupancy(), Occupancy { admitted: 1, queued: 1, kv_tokens: 600 });
    run(&mut scheduler, ms(0), ms(100));
    assert_eq!(phase(&scheduler, second), Some(Phase::Queued));
    assert!(scheduler.abort(RequestId(0)));
    run(&mut scheduler, ms(200), ms(300));
    assert_eq!(scheduler.occupancy(), Occupancy { admitted: 1, queued: 0, kv_tokens: 401 });
}

#[test]
fn a_paused_request_gives_its_seat_to_others_and_is_back_in_the_next_step() {
    let mut scheduler = scheduler();
    let ids: Vec<_> = (0..3).map(|_| scheduler.submit(1, tokens(100)).expect("room")).collect();
    let served = |scheduler: &mut Scheduler, from: u64, until: u64| {
        let mut requests: Vec<_> =
            run(scheduler, ms(from), ms(until)).iter().map(|token| token.0).collect();
        requests.sort_unstable();
        requests.dedup();
        requests
    };
    assert_eq!(served(&mut scheduler, 0, 50), [0, 1]);
    assert!(scheduler.pause(ids[0]));
    // The step under way still has it.
    assert_eq!(served(&mut scheduler, 50, 62), [0, 1]);
    assert_eq!(served(&mut scheduler, 62, 130), [1, 2]);
    // Its place in the cache it keeps.
    assert_eq!(scheduler.occupancy(), Occupancy { admitted: 3, queued: 0, kv_tokens: 303 });
    assert!(scheduler.resume(ids[0]));
    // Now three share two seats.
    assert_eq!(served(&mut scheduler, 130, 190), [0, 1, 2]);
    assert!(!scheduler.pause(RequestId(99)) && !scheduler.resume(RequestId(99)));
    assert!(!scheduler.abort(RequestId(99)));
}

#[test]
fn nothing_runs_while_all_are_stopped() {
    let mut scheduler = scheduler();
    let id = scheduler.submit(1, tokens(10)).expect("room");
    let hold = Pace { rate: None, hold: true };
    assert!(scheduler.pace(ms(0), id, hold));
    assert!(scheduler.pause(id));
    assert_eq!(scheduler.advance(ms(0), &mut Vec::new()), None);
    // Both must be lifted.
    assert!(scheduler.resume(id));
    assert_eq!(scheduler.advance(ms(1), &mut Vec::new()), None);
    assert!(scheduler.pace(ms(2), id, Pace::default()));
    assert_eq!(scheduler.advance(ms(2), &mut Vec::new()), Some(ms(14)));
}

#[test]
fn an_abort_takes_effect_within_the_step() {
    let mut scheduler = scheduler();
    let id = scheduler.submit(1, tokens(10)).expect("room");
    let mut tokens = Vec::new();
    assert_eq!(scheduler.advance(ms(0), &mut tokens), Some(ms(12)));
    assert!(scheduler.abort(id));
    assert_eq!(scheduler.advance(ms(12), &mut tokens), None);
    assert_eq!(tokens, []);
    assert_eq!(phase(&scheduler, id), None);
}

#[test]
fn a_rate_is_kept_though_steps_quantise_it() {
    let mut scheduler = scheduler();
    let id = scheduler.submit(1, tokens(900)).expect("room");
    let rate = Tps::try_new(30.0).expect("valid");
    scheduler.pace(ms(0), id, Pace { rate: Some(rate), hold: false });
    let count = run(&mut scheduler, ms(0), ms(10_000)).len();
    assert!((298..=303).contains(&count), "{count} tokens in 10 s at 30 a second");
}

#[test]
fn pacing_lets_more_streams_run_than_there_are_seats() {
    let mut scheduler = scheduler();
    for _ in 0..6 {
        let id = scheduler.submit(1, tokens(100)).expect("room");
        let rate = Tps::try_new(20.0).expect("valid");
        scheduler.pace(ms(0), id, Pace { rate: Some(rate), hold: false });
    }
    // Two seats at 12 ms a step are 166 tokens/s; six streams at 20 are 120.
    let tokens = run(&mut scheduler, ms(0), ms(2000));
    for id in 0..6 {
        let count = tokens.iter().filter(|token| token.0 == id).count();
        assert!((38..=43).contains(&count), "stream {id}: {count} in 2 s at 20 a second");
    }
}

#[test]
fn late_timers_do_not_slow_it_down_and_a_long_sleep_does_not_burst() {
    let mut scheduler = scheduler();
    scheduler.submit(1, tokens(500)).expect("room");
    let (mut now, mut out) = (ms(0), Vec::new());
    while now < ms(1101) {
        // A millisecond late every time; a step takes 11.
        now = scheduler.advance(now, &mut out).expect("busy") + ms(1);
    }
    assert!((99..=100).contains(&out.len()), "{} tokens", out.len());
    out.clear();
    scheduler.advance(now + ms(5000), &mut out);
    assert!(out.len() <= 10, "{} tokens at once after a sleep", out.len());
}

#[test]
fn an_engine_whose_steps_take_no_time_or_for_ever_is_refused() {
    let check = |model: Model, expected: Option<InvalidModel>| {
        assert_eq!(Scheduler::try_new(model).err(), expected);
    };
    check(Model { step: Duration::ZERO, ..model() }, Some(InvalidModel::Instant));
    // Two seats at 1 ms and ten prompt tokens at 1 ms come on top.
    check(Model { step: Duration::from_secs(3600) - ms(12), ..model() }, None);
    let slow = InvalidModel::Slow(Duration::from_secs(3600) + ms(1));
    check(Model { step: Duration::from_secs(3600) - ms(11), ..model() }, Some(slow));
    for forever in [
        Model { step: Duration::MAX, ..model() },
        Model { step_per_seat: Duration::MAX, ..model() },
        Model { step_per_prompt_token: Duration::MAX, ..model() },
    ] {
        check(forever, Some(InvalidModel::Slow(Duration::MAX)));
    }
}

/// Something done to the scheduler. The index picks a request among all ever made, so that dead ones are tried too.
#[derive(Clone, Debug)]
enum Action {
    Submit(u32, u32),
    Abort(prop::sample::Index),
    Pause(prop::sample::Index),
    Resume(prop::sample::Index),
    Pace(prop::sample::Index, Option<f64>, bool),
    Wait(u64),
}

fn any_action() -> impl Strategy<Value = Action> {
    let pick = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0u32..60, 1u32..40).prop_map(|(prompt, output)| Action::Submit(prompt, output)),
        1 => pick().prop_map(Action::Abort),
        1 => pick().prop_map(Action::Pause),
        2 => pick().prop_map(Action::Resume),
        2 => (pick(), prop::option::of(1.0f64..1e6), prop::bool::weighted(0.2))
            .prop_map(|(at, rate, hold)| Action::Pace(at, rate, hold)),
        6 => (0u64..200).prop_map(Action::Wait),
    ]
}

proptest! {
    /// Whatever is asked of it: each request gets its tokens in order, none after its end, and as many as it asked for
    /// once nothing stops it; no step has more members than seats; the KV cache holds what is admitted, and no more.
    #[test]
    fn tokens_come_in_order_and_the_engine_is_never_overfull(
        actions in prop::collection::vec(any_action(), 1..120),
        seats in 1usize..5,
        kv_tokens in 100u64..400,
    ) {
        let seats = NonZeroUsize::new(seats).expect("not zero");
        let mut scheduler =
            Scheduler::try_new(Model { seats, kv_tokens, ..model() }).expect("valid");
        let mut now = Duration::ZERO;
        let mut asked: Vec<(RequestId, u32, u64)> = Vec::new();
        let mut got: BTreeMap<RequestId, u32> = BTreeMap::new();
        let mut aborted = Vec::new();
        let mut drain = |scheduler: &mut Scheduler, now: &mut Duration, until: Duration, aborted: &[RequestId]| {
            loop {
                let mut tokens = Vec::new();
                let next = scheduler.advance(*now, &mut tokens);
                // A step's tokens come together.
                assert!(tokens.len() <= seats.get(), "{tokens:?}");
                for token in tokens {
                    let count = got.entry(token.request).or_default();
                    assert_eq!(token.index, *count);
                    assert!(!aborted.contains(&token.request));
                    assert!(token.at <= *now);
                    *count += 1;
                }
                match next {
                    Some(next) if next <= until => *now = next,
                    next => return next,
                }
            }
        };
        let id = |at: &prop::sample::Index, asked: &[(RequestId, u32, u64)]| {
            (!asked.is_empty()).then(|| asked[at.index(asked.len())].0)
        };
        for action in &actions {
            match action {
                Action::Submit(prompt, output) => {
                    if let Ok(new) = scheduler.submit(*prompt, tokens(*output)) {
                        asked.push((new, *output, u64::from((*prompt).max(1) + *output)));
                    }
                }
                Action::Abort(at) => {
                    if let Some(id) = id(at, &asked) && scheduler.abort(id) {
                        aborted.push(id);
                    }
                }
                Action::Pause(at) => { id(at, &asked).map(|id| scheduler.pause(id)); }
                Action::Resume(at) => { id(at, &asked).map(|id| scheduler.resume(id)); }
                Action::Pace(at, rate, hold) => {
                    let rate = rate.map(|rate| Tps::try_new(rate).expect("valid"));
                    let pace = Pace { rate, hold: *hold };
                    id(at, &asked).map(|id| scheduler.pace(now, id, pace));
                }
                Action::Wait(time) => {
                    let until = now + ms(*time);
                    drain(&mut scheduler, &mut now, until, &aborted);
                    now = until;
                }
            }
            let admitted = |id| phase(&scheduler, id) == Some(Phase::Admitted);
            let reserved: u64 =
                asked.iter().filter(|(id, ..)| admitted(*id)).map(|(.., kv)| kv).sum();
            prop_assert_eq!(scheduler.occupancy().kv_tokens, reserved);
            prop_assert!(reserved <= kv_tokens);
        }
        for &(id, ..) in &asked {
            scheduler.resume(id);
            scheduler.pace(now, id, Pace::default());
        }
        let end = now + Duration::from_secs(3600);
        prop_assert_eq!(drain(&mut scheduler, &mut now, end, &aborted), None);
        for (id, output, _) in asked.iter().filter(|(id, ..)| !aborted.contains(id)) {
            prop_assert_eq!(got.get(id), Some(output));
        }
        prop_assert_eq!(scheduler.occupancy(), Occupancy::default());
    }

    /// Among requests that nothing stops none gets ahead of another by more than a turn, however many there are.
    #[test]
    fn seats_go_round(streams in 1usize..12, seats in 1usize..5) {
        let seats = NonZeroUsize::new(seats).expect("not zero");
        let model = Model { seats, kv_tokens: 1 << 20, queue: 100, ..model() };
        let mut scheduler = Scheduler::try_new(model).expect("valid");
        let ids: Vec<_> =
            (0..streams).map(|_| scheduler.submit(1, tokens(10_000)).expect("room")).collect();
        // Admitted one after the other by pausing those before, then let go together.
        let mut now = Duration::ZERO;
        for &id in &ids {
            now += ms(60);
            scheduler.advance(now, &mut Vec::new());
            scheduler.pause(id);
        }
        now += ms(60);
        scheduler.advance(now, &mut Vec::new());
        ids.iter().for_each(|&id| { scheduler.resume(id); });
        let mut counts = vec![0i64; streams];
        for (id, ..) in run(&mut scheduler, now, now + ms(2000)) {
            counts[id as usize] += 1;
        }
        let (least, most) = (counts.iter().min(), counts.iter().max());
        prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
    }
}
