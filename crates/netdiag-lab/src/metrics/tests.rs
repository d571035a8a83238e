//! The formulas on examples worked by hand, and what must hold of them whatever happened.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A stream asked for at second 1, whose reader expects a token after 0.5 s and ten a second from then on. Times count
/// from the submission.
fn stream(deliveries: &[f64], output_tokens: u64, ending: Ending) -> StreamRecord {
    let delivered = deliveries.len() as u64;
    StreamRecord {
        submitted: S,
        deliveries: deliveries.iter().map(|&at| S + seconds(at)).collect(),
        ending,
        output_tokens,
        reader: Reader {
            rate: Tps::try_new(10.0).expect("valid"),
            expected_ttft: Duration::from_millis(500),
        },
        counts: TokenCounts { generated: delivered, acked: delivered, ..TokenCounts::default() },
    }
}

fn complete(deliveries: &[f64]) -> StreamRecord {
    stream(deliveries, deliveries.len() as u64, Ending::Complete)
}

#[track_caller]
fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a value");
    assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
}

#[test]
fn qoe_of_worked_examples() {
    // The ideal times are .5 .6 .7, which sum to 1.8.
    close(complete(&[0.5, 0.6, 0.7]).qoe(), 1.0);
    close(complete(&[0.1, 0.1, 0.1]).qoe(), 1.0);
    // Read at 1.0 1.1 1.2: late by 1.5 of 3.3, be the later ones there early or not.
    close(complete(&[1.0, 1.1, 1.2]).qoe(), 1.0 - 1.5 / 3.3);
    close(complete(&[1.0, 1.0, 1.0]).qoe(), 1.0 - 1.5 / 3.3);
    // A stall before the last: read at .5 .6 1.7, late by 1.0 of 2.8.
    close(complete(&[0.5, 0.6, 1.7]).qoe(), 1.0 - 1.0 / 2.8);
    // The same stall with the token already there does not matter.
    close(complete(&[0.5, 0.6, 0.6]).qoe(), 1.0);
}

#[test]
fn qoe_of_streams_that_are_not_complete() {
    let at = |at: f64| S + seconds(at);
    close(stream(&[], 3, Ending::Failed).qoe(), 0.0);
    // Nothing for 2.5 s: late by 2.0 of 2.5.
    close(stream(&[], 3, Ending::Cut(at(2.5))).qoe(), 0.2);
    close(stream(&[], 3, Ending::Left(at(2.5))).qoe(), 0.2);
    // Two on time, then nothing for 1.1 s and the client gives up: as if the third had come then.
    close(stream(&[0.5, 0.6], 3, Ending::Left(at(1.7))).qoe(), 1.0 - 1.0 / 2.8);
    // It left of its own accord, with nothing late.
    close(stream(&[0.5, 0.6], 3, Ending::Left(at(0.65))).qoe(), 1.0);
    // Cut before the first token was due: whether it would have been in time nobody knows.
    assert_eq!(stream(&[], 3, Ending::Cut(at(0.005))).qoe(), None);
    assert_eq!(stream(&[], 3, Ending::Left(at(0.49))).qoe(), None);
    close(stream(&[], 3, Ending::Cut(at(0.5))).qoe(), 1.0);
    // A late one, and the end before the next was due, which makes nothing better: 0.5 of 1.0.
    close(stream(&[1.0], 3, Ending::Cut(at(0.55))).qoe(), 0.5);
    // Nothing was asked for.
    assert_eq!(complete(&[]).qoe(), None);
    // All at once, as expected: 0/0.
    let mut instant = complete(&[0.0]);
    instant.reader.expected_ttft = Duration::ZERO;
    close(instant.qoe(), 1.0);
}

#[test]
fn effective_tokens_of_worked_examples() {
    let near = |record: StreamRecord, expected: f64| {
        close(Some(record.effective_tokens()), expected);
    };
    // At the reading rate nothing is ever unread.
    near(complete(&[0.5, 0.6, 0.7, 0.8]), 4.0);
    // All at once: the reader takes the first, so 0 0 1 2 3 … of 20 are unread before each.
    near(complete(&[0.5; 20]), 1.0 + 1.0 + 1.0 + 1.0 + 0.5);
    // A second later ten of them are read, and the buffer is below 10 % again.
    let late = [&[0.5; 11][..], &[1.5]].concat();
    near(stream(&late, 20, Ending::Complete), 4.5 + 1.0);
    near(complete(&[]), 0.0);
}

#[test]
fn stalls_of_worked_examples() {
    let check = |record: StreamRecord, reading: f64, waiting: f64| {
        let stalls = record.stalls();
        close(Some(stalls.reading.as_secs_f64()), reading);
        close(Some(stalls.waiting.as_secs_f64()), waiting);
    };
    // Gaps of 100, 300 and 200 ms: only the second is over 200.
    let gaps = [0.5, 0.6, 0.9, 1.1];
    check(complete(&gaps), 0.6, 0.3);
    close(complete(&gaps).stalls().ratio(), 0.5);
    // Cut after another 0.4 s without a token.
    check(stream(&gaps, 10, Ending::Cut(S + seconds(1.5))), 1.0, 0.7);
    check(complete(&[0.5]), 0.0, 0.0);
    assert_eq!(complete(&[0.5]).stalls().ratio(), None);
    assert_eq!(stream(&[], 10, Ending::Cut(9 * S)).stalls().ratio(), None);
}

#[test]
fn unread_tokens_of_worked_examples() {
    let check = |acked: u64, ending: Ending, expected: u64| {
        let mut record = stream(&[1.0; 5], 20, ending);
        record.counts = TokenCounts { generated: acked, acked, ..TokenCounts::default() };
        assert_eq!(record.unread_tokens(), expected, "{ending:?}");
    };
    // Five delivered at 1.0, read at 1.0 1.1 1.2 and so on; ten acknowledged by the client's kernel.
    check(10, Ending::Left(S + seconds(1.25)), 7);
    check(10, Ending::Left(S + seconds(0.9)), 10);
    check(10, Ending::Left(S + seconds(9.0)), 5);
    check(10, Ending::Complete, 0);
    check(10, Ending::Cut(S + seconds(1.25)), 0);
    check(2, Ending::Left(S + seconds(1.25)), 0);
}

#[test]
fn first_token_and_those_after_it() {
    assert_eq!(complete(&[]).ttft(), None);
    assert_eq!(complete(&[0.4]).ttft(), Some(seconds(0.4)));
    assert_eq!(complete(&[0.4]).tpot(), None);
    // Three intervals in 0.9 s, however uneven.
    assert_eq!(complete(&[0.4, 0.5, 0.6, 1.3]).tpot(), Some(seconds(0.3)));
}

#[test]
fn percentiles_are_nearest_ranks() {
    assert_eq!(Distribution::of([]), None);
    let hundred = Distribution::of((1..=100).rev().map(Duration::from_secs)).expect("values");
    assert_eq!(
        (hundred.p50_seconds, hundred.p95_seconds, hundred.p99_seconds, hundred.max_seconds),
        (50.0, 95.0, 99.0, 100.0)
    );
    assert_eq!((hundred.count, hundred.mean_seconds), (100, 50.5));
    let one = Distribution::of([seconds(0.25)]).expect("values");
    assert_eq!((one.p50_seconds, one.p99_seconds), (0.25, 0.25));
}

#[test]
fn a_run_is_the_sum_of_its_streams() {
    let at = |at: f64| S + seconds(at);
    let mut left = stream(&[0.5, 0.6], 3, Ending::Left(at(1.7)));
    left.counts = TokenCounts { generated: 9, acked: 4, in_flight: 2, wasted: 3 };
    let records = [complete(&[0.5, 0.6, 0.7]), left, stream(&[], 3, Ending::Failed)];
    let tokens = TokenCounts { generated: 12, acked: 7, in_flight: 2, wasted: 3 };
    let summary = Summary::of(&records, tokens, Duration::from_secs(2));
    let ended = (summary.requests, summary.finished, summary.left, summary.failed);
    assert_eq!(ended, (3, 1, 1, 1));
    close(summary.waste_ratio, 3.0 / 12.0);
    assert_eq!(summary.unread_tokens, 2);
    close(summary.qoe_mean, (1.0 + (1.0 - 1.0 / 2.8) + 0.0) / 3.0);
    close(summary.delivered_tps, 5.0 / 2.0);
    close(summary.effective_tps, 5.0 / 2.0);
    // 1.1 s of 0.2 + 0.1 + 1.1.
    close(summary.stall_ratio, 1.1 / 1.4);
    assert_eq!(summary.ttft.map(|ttft| ttft.count), Some(2));

    let nothing = Summary::of(&[], TokenCounts::default(), Duration::ZERO);
    assert_eq!((nothing.qoe_mean, nothing.effective_tps, nothing.waste_ratio), (None, None, None));
}

fn any_stream() -> impl Strategy<Value = StreamRecord> {
    let gaps = prop::collection::vec(0u64..2_000_000, 0..60);
    let ending = (0u8..4, 0u64..5_000_000);
    let reader = (0.1f64..1000.0, 0u64..3_000_000);
    (0u64..10_000_000, gaps, 0u64..80, ending, reader, any::<[u8; 3]>()).prop_map(
        |(submitted, gaps, output_tokens, (kind, after), (rate, expected), counts)| {
            let mut at = Duration::from_micros(submitted);
            let deliveries: Vec<_> = gaps
                .into_iter()
                .map(|gap| {
                    at += Duration::from_micros(gap);
                    at
                })
                .collect();
            let end = at + Duration::from_micros(after);
            let ending = [Ending::Complete, Ending::Left(end), Ending::Cut(end), Ending::Failed]
                [kind as usize];
            let [acked, in_flight, wasted] = counts.map(u64::from);
            StreamRecord {
                submitted: Duration::from_micros(submitted),
                output_tokens: output_tokens.max(deliveries.len() as u64),
                deliveries,
                ending,
                reader: Reader {
                    rate: Tps::try_new(rate).expect("valid"),
                    expected_ttft: Duration::from_micros(expected),
                },
                counts: TokenCounts {
                    generated: acked + in_flight + wasted,
                    acked,
                    in_flight,
                    wasted,
                },
            }
        },
    )
}

proptest! {
    #[test]
    fn shares_are_shares(record in any_stream()) {
        let shares = [record.qoe(), record.stalls().ratio(), record.counts.waste_ratio()];
        for share in shares.into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&share), "{share}");
        }
        let worth = record.effective_tokens();
        prop_assert!((0.0..=record.deliveries.len() as f64).contains(&worth), "{worth}");
        prop_assert!(record.unread_tokens() <= record.counts.acked);
        let stalls = record.stalls();
        prop_assert!(stalls.waiting <= stalls.reading);
    }

    /// A token later, and those behind it pushed on, is never better for the reader.
    #[test]
    fn delay_never_raises_qoe(record in any_stream(), at: prop::sample::Index, delay in 0u64..3_000_000) {
        prop_assume!(!record.deliveries.is_empty());
        let mut later = record.clone();
        let from = at.index(record.deliveries.len());
        let delayed = record.deliveries[from] + Duration::from_micros(delay);
        for delivery in &mut later.deliveries[from..] {
            *delivery = delayed.max(*delivery);
        }
        prop_assert!(later.qoe().expect("has tokens") <= record.qoe().expect("has tokens") + 1e-9);
    }

    /// Only differences of times matter.
    #[test]
    fn the_origin_of_time_does_not_matter(record in any_stream(), shift in 0u64..1000) {
        let shift = Duration::from_secs(shift);
        let mut shifted = record.clone();
        shifted.submitted += shift;
        shifted.deliveries.iter_mut().for_each(|delivery| *delivery += shift);
        shifted.ending = match record.ending {
            Ending::Left(at) => Ending::Left(at + shift),
            Ending::Cut(at) => Ending::Cut(at + shift),
            other => other,
        };
        prop_assert_eq!(shifted.qoe(), record.qoe());
        prop_assert_eq!(shifted.stalls(), record.stalls());
        prop_assert_eq!((shifted.ttft(), shifted.tpot()), (record.ttft(), record.tpot()));
    }
}
