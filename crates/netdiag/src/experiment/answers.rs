//! What clients saw, answer by answer, and what it comes to for an arm and for each group of its clients.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use netdiag_lab::client::ClientStream;
use netdiag_lab::engine::Engine;
use netdiag_lab::metrics::{Ending, Reader, Stalls, StreamRecord, TokenCounts};

use super::bootstrap::Answer;
use super::conditions::Via;
use super::record::{Failure, GroupFigures, Tick};

/// The streams as the metrics take them, with what the engine counted.
pub(super) fn records(
    streams: &[ClientStream],
    engine: &Engine,
    reader: Reader,
    via: Via,
) -> Vec<StreamRecord> {
    streams.iter().map(|stream| stream.record(reader, counts(stream, engine, via))).collect()
}

/// Where all the engine's tokens are.
pub(super) fn tokens(streams: &[ClientStream], engine: &Engine, via: Via) -> TokenCounts {
    let of_all = engine.tokens();
    if via == Via::Engine {
        return of_all;
    }
    let mut known = TokenCounts::default();
    streams.iter().for_each(|stream| known.add(counts(stream, engine, via)));
    // What was generated for requests that no client has had an answer to. A step of the engine may fall between the two looks.
    let others = of_all.generated.saturating_sub(known.generated);
    known.add(TokenCounts { generated: others, wasted: others, ..TokenCounts::default() });
    known
}

/// Where a stream's tokens are. Behind the gateway the engine knows what the gateway has taken, and not what has become of it: there
/// it is what the client has read that counts as delivered, and of the rest what nobody waits for any more as wasted.
fn counts(stream: &ClientStream, engine: &Engine, via: Via) -> TokenCounts {
    let id = stream.request_id.as_deref();
    let counted = id.and_then(|id| engine.counts(id)).unwrap_or_default();
    match via {
        Via::Engine => counted,
        Via::Gateway => delivered(counted.generated, stream.deliveries.len() as u64, stream.ending),
    }
}

fn delivered(generated: u64, read: u64, ending: Ending) -> TokenCounts {
    let acked = read.min(generated);
    let left = generated - acked;
    let (in_flight, wasted) = if matches!(ending, Ending::Cut(_)) { (left, 0) } else { (0, left) };
    TokenCounts { generated, acked, in_flight, wasted }
}

/// What an answer contributes to the figures that are compared.
pub(super) fn answer(record: &StreamRecord) -> Answer {
    let stalls = record.stalls();
    Answer {
        generated: record.counts.generated as f64,
        wasted: record.counts.wasted as f64,
        reading: stalls.reading.as_secs_f64(),
        waiting: stalls.waiting.as_secs_f64(),
        qoe: record.qoe(),
    }
}

/// The figures of each of `count` groups. `records` are those of `streams`; `group_of` knows clients by their address.
pub(super) fn groups(
    count: usize,
    streams: &[ClientStream],
    records: &[StreamRecord],
    group_of: &HashMap<IpAddr, usize>,
    ticks: &[Tick],
) -> Vec<GroupFigures> {
    let group = |number: usize| {
        let own: Vec<&StreamRecord> = streams
            .iter()
            .zip(records)
            .filter(|(stream, _)| {
                let address = stream.address.map(|address| address.ip());
                address.and_then(|ip| group_of.get(&ip)) == Some(&number)
            })
            .map(|(_, record)| record)
            .collect();
        let stalls = own.iter().fold(Stalls::default(), |sum, record| {
            let stalls = record.stalls();
            Stalls { reading: sum.reading + stalls.reading, waiting: sum.waiting + stalls.waiting }
        });
        let rates: Vec<f64> =
            ticks.iter().filter_map(|tick| tick.group_tps.get(number).copied().flatten()).collect();
        GroupFigures {
            answers: own.len(),
            qoe_mean: mean(&own.iter().filter_map(|record| record.qoe()).collect::<Vec<_>>()),
            stall_ratio: stalls.ratio(),
            mean_tps: mean(&rates),
            lowest_tps: rates.into_iter().reduce(f64::min),
        }
    };
    (0..count).map(group).collect()
}

/// Of the reasons why answers failed the most frequent one.
pub(super) fn failure(streams: &[ClientStream]) -> Option<Failure> {
    let mut reasons = BTreeMap::new();
    for reason in streams.iter().filter_map(|stream| stream.failure.as_ref()) {
        *reasons.entry(reason).or_insert(0) += 1;
    }
    let (reason, answers) = reasons.into_iter().max_by_key(|(_, answers)| *answers)?;
    Some(Failure { reason: reason.clone(), answers })
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stream(client: u8, failure: Option<&str>) -> ClientStream {
        ClientStream {
            request_id: None,
            address: Some(([10, 0, 0, client], 1).into()),
            submitted: Duration::ZERO,
            deliveries: [1, 2, 3].map(Duration::from_secs).to_vec(),
            ending: if failure.is_some() { Ending::Failed } else { Ending::Complete },
            output_tokens: 3,
            leaver: false,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn the_most_frequent_failure_is_told_with_its_count() {
        assert_eq!(failure(&[stream(1, None)]), None);
        let streams = [Some("refused"), Some("too many open files"), Some("refused"), None];
        let streams = streams.map(|failure| stream(1, failure));
        let expected = Failure { reason: "refused".to_owned(), answers: 2 };
        assert_eq!(failure(&streams), Some(expected));
    }

    #[test]
    fn behind_the_gateway_tokens_are_where_the_client_has_them() {
        let check = |generated, read, ending, [acked, in_flight, wasted]: [u64; 3]| {
            let counts = delivered(generated, read, ending);
            assert_eq!(counts, TokenCounts { generated, acked, in_flight, wasted });
            assert!(counts.balances());
        };
        let end = Duration::from_secs(1);
        check(9, 9, Ending::Complete, [9, 0, 0]);
        check(9, 4, Ending::Cut(end), [4, 5, 0]);
        check(9, 4, Ending::Left(end), [4, 0, 5]);
        check(9, 4, Ending::Failed, [4, 0, 5]);
        // Those of a merged event are counted by its words.
        check(9, 10, Ending::Complete, [9, 0, 0]);
    }

    #[test]
    fn groups_have_the_answers_of_their_own_clients() {
        let reader = super::super::conditions::reader().expect("valid");
        let streams = [stream(1, None), stream(2, Some("refused")), stream(1, None)];
        let records: Vec<StreamRecord> =
            streams.iter().map(|stream| stream.record(reader, TokenCounts::default())).collect();
        let group_of = HashMap::from([([10, 0, 0, 1].into(), 0), ([10, 0, 0, 2].into(), 1)]);
        let figures = groups(3, &streams, &records, &group_of, &[]);
        assert_eq!(figures.iter().map(|group| group.answers).collect::<Vec<_>>(), [2, 1, 0]);
        // Each gap of these is a second.
        assert_eq!((figures[0].stall_ratio, figures[2].stall_ratio), (Some(1.0), None));
        assert_eq!((figures[1].qoe_mean, figures[2].qoe_mean), (Some(0.0), None));
    }
}
