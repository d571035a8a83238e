//! What clients saw, answer by answer, and what it comes to for an arm and for each group of its clients.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use netdiag_lab::client::ClientStream;
use netdiag_lab::engine::Engine;
use netdiag_lab::metrics::{Reader, Stalls, StreamRecord, TokenCounts};

use super::bootstrap::Answer;
use super::record::{Failure, GroupFigures, Tick};

/// The streams as the metrics take them, with what the engine counted.
pub(super) fn records(
    streams: &[ClientStream],
    engine: &Engine,
    reader: Reader,
) -> Vec<StreamRecord> {
    let counts = |stream: &ClientStream| -> TokenCounts {
        stream.request_id.as_deref().and_then(|id| engine.counts(id)).unwrap_or_default()
    };
    streams.iter().map(|stream| stream.record(reader, counts(stream))).collect()
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

    use netdiag_lab::metrics::Ending;

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
