//! The formulas by examples worked out by hand, and by what must hold for any times.

use proptest::prelude::*;

use super::*;

fn seconds(seconds: &[f64]) -> Vec<Duration> {
    seconds.iter().map(|&second| Duration::from_secs_f64(second)).collect()
}

fn answer(tokens: &[f64]) -> Delivered {
    Delivered { asked: Duration::from_secs(10), tokens: seconds(tokens) }
}

/// First token within a second, then two a second.
fn reader() -> Reader {
    Reader::try_new(Duration::from_secs(1), 2.0).expect("a reader")
}

fn check(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
}

#[test]
fn quality_of_experience_by_hand() {
    // As an ideal server, and earlier than one: nobody reads faster.
    check(answer(&[11.0, 11.5, 12.0]).qoe(reader()), 1.0);
    check(answer(&[10.2, 10.3, 10.4]).qoe(reader()), 1.0);
    // Read at 2, 2.5 and 3 s instead of 1, 1.5 and 2: 3 s late of 7.5.
    check(answer(&[12.0, 12.1, 12.2]).qoe(reader()), 1.0 - 3.0 / 7.5);
    // Read at 1, 3.5 and 4 s: the gap delays all that follows. 4 s late of 8.5.
    check(answer(&[11.0, 13.5, 13.5]).qoe(reader()), 1.0 - 4.0 / 8.5);
    check(answer(&[]).qoe(reader()), 0.0);
    check(answer(&[11.0]).qoe(reader()), 1.0);
}

#[test]
fn stall_ratio_by_hand() {
    check(answer(&[12.0, 12.5, 13.0]).stall_ratio(reader()), 0.0);
    // Gaps of 200 ms are read as one goes: ready at 12.5, there at 12.65.
    check(answer(&[12.0, 12.65]).stall_ratio(reader()), 0.0);
    // Ready at 12.5, there at 14.5: 2 s of the 3 from the first to the end of the second.
    check(answer(&[12.0, 14.5]).stall_ratio(reader()), 2.0 / 3.0);
    // Three that came at once are read for 1.5 s, so half a second of the gap is a wait: of 2.5 s in all.
    check(answer(&[12.0, 12.0, 12.0, 14.0]).stall_ratio(reader()), 0.5 / 2.5);
    check(answer(&[]).stall_ratio(reader()), 0.0);
}

#[test]
fn effective_throughput_by_hand() {
    // As fast as it is read: never more than one unread of twenty.
    let paced: Vec<f64> = (0..20).map(|i| 11.0 + 0.5 * f64::from(i)).collect();
    check(answer(&paced).effective_tokens(reader(), 20), 20.0);
    // All at once: 0, 1 and 2 unread are within 10 %, 3 is half way, 4 and more are worth nothing.
    check(answer(&[11.0; 20]).effective_tokens(reader(), 20), 3.5);
    check(answer(&[]).effective_tokens(reader(), 20), 0.0);
}

#[test]
fn what_the_reader_left_behind() {
    // Read until 12.5, 13 and 13.5.
    let three = answer(&[12.0, 12.0, 12.0]);
    for (left, unread) in [(12.4, 3), (12.5, 2), (13.2, 1), (14.0, 0), (11.0, 0)] {
        assert_eq!(three.unread(reader(), Duration::from_secs_f64(left)), unread, "left at {left}");
    }
}

#[test]
fn times_to_and_between_tokens() {
    let answer = answer(&[10.4, 10.5, 11.2]);
    assert_eq!(answer.ttft(), Some(Duration::from_millis(400)));
    assert_eq!(answer.tpot(), Some(Duration::from_millis(400)));
    assert_eq!(quantile(answer.gaps(), 0.5), Some(0.4));
    assert_eq!(Delivered::default().ttft(), None);
    assert_eq!(Delivered { tokens: seconds(&[1.0]), ..Delivered::default() }.tpot(), None);
    assert_eq!((quantile([], 0.5), mean([])), (None, None));
    assert_eq!(mean([1.0, 4.0]), Some(2.5));
    let at = |second: f64| Duration::from_secs_f64(second);
    assert_eq!(reaction(at(5.0), seconds(&[4.0, 7.5, 6.0])), Some(at(1.0)));
    assert_eq!(reaction(at(5.0), seconds(&[4.0])), None);
}

#[test]
fn readers_who_cannot_be_are_refused() {
    for rate in [0.0, -1.0, 1001.0, f64::NAN, f64::INFINITY] {
        assert!(Reader::try_new(Duration::ZERO, rate).is_err(), "{rate}");
    }
}

proptest! {
    #[test]
    fn every_figure_is_within_its_range(
        mut tokens in prop::collection::vec(0.0..1e6_f64, 0..60), asked in 0.0..1e6_f64,
        ttft in 0.0..10.0_f64, rate in 0.01..1000.0_f64, output in 0_usize..100,
    ) {
        tokens.sort_by(f64::total_cmp);
        let reader = Reader::try_new(Duration::from_secs_f64(ttft), rate).expect("a reader");
        let answer = Delivered { asked: Duration::from_secs_f64(asked), tokens: seconds(&tokens) };
        prop_assert!((0.0..=1.0).contains(&answer.qoe(reader)));
        prop_assert!((0.0..=1.0).contains(&answer.stall_ratio(reader)));
        let effective = answer.effective_tokens(reader, output);
        prop_assert!((0.0..=tokens.len() as f64).contains(&effective), "{}", effective);
        prop_assert!(answer.unread(reader, answer.asked) <= tokens.len());
    }

    #[test]
    fn later_is_never_better(
        mut tokens in prop::collection::vec(0.0..100.0_f64, 1..40), which in any::<prop::sample::Index>(),
        by in 0.0..50.0_f64,
    ) {
        tokens.sort_by(f64::total_cmp);
        let sooner = Delivered { asked: Duration::ZERO, tokens: seconds(&tokens) };
        // From one token on everything comes later, as in a queue.
        let from = which.index(tokens.len());
        tokens[from..].iter_mut().for_each(|token| *token += by);
        let later = Delivered { asked: Duration::ZERO, tokens: seconds(&tokens) };
        prop_assert!(later.qoe(reader()) <= sooner.qoe(reader()) + 1e-9);
    }
}
