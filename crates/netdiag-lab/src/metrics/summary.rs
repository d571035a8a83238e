//! A run in a few numbers, as `summary.json` has them.

use std::time::Duration;

use serde::Serialize;

use super::{Ending, Stalls, StreamRecord, TokenCounts, ratio};

/// A run, or one arm of it. `None` (JSON `null`) where there was nothing to judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Answers asked for.
    pub requests: usize,
    /// Those that came whole.
    pub finished: usize,
    /// Those whose client left before the end.
    pub left: usize,
    /// Those that the server refused or broke off.
    pub failed: usize,
    /// Where the tokens went.
    pub tokens: TokenCounts,
    /// Wasted share of the tokens generated.
    pub waste_ratio: Option<f64>,
    /// Tokens acknowledged that their reader never came to.
    pub unread_tokens: u64,
    /// Mean QoE over the streams that have one.
    pub qoe_mean: Option<f64>,
    /// Tokens/s delivered to clients over the run.
    pub delivered_tps: Option<f64>,
    /// The same, each token counted by its worth to the reader.
    pub effective_tps: Option<f64>,
    /// Share of all reading time spent waiting.
    pub stall_ratio: Option<f64>,
    /// Time to the first token, of the streams that had one.
    pub ttft: Option<Distribution>,
    /// Time per output token after the first, a value per stream.
    pub tpot: Option<Distribution>,
}

/// Where a number of durations lie, in seconds. Percentiles by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Number of values; at least 1.
    pub count: usize,
    /// Arithmetic mean.
    pub mean_seconds: f64,
    /// Median.
    pub p50_seconds: f64,
    /// 95th percentile.
    pub p95_seconds: f64,
    /// 99th percentile.
    pub p99_seconds: f64,
    /// Largest value.
    pub max_seconds: f64,
}

impl Summary {
    /// Sums up the streams of a run that took `run` of time. `tokens` are the engine's, with those of streams that no client
    /// knows of.
    pub fn of(records: &[StreamRecord], tokens: TokenCounts, run: Duration) -> Self {
        let mut stalls = Stalls::default();
        for record in records {
            let of_stream = record.stalls();
            stalls.reading += of_stream.reading;
            stalls.waiting += of_stream.waiting;
        }
        let qoe: Vec<f64> = records.iter().filter_map(StreamRecord::qoe).collect();
        let delivered: usize = records.iter().map(|record| record.deliveries.len()).sum();
        let effective: f64 = records.iter().map(StreamRecord::effective_tokens).sum();
        let per_second = |tokens: f64| (!run.is_zero()).then(|| tokens / run.as_secs_f64());
        let ended = |is: fn(Ending) -> bool| records.iter().filter(|r| is(r.ending)).count();
        Self {
            requests: records.len(),
            finished: ended(|ending| ending == Ending::Complete),
            left: ended(|ending| matches!(ending, Ending::Left(_))),
            failed: ended(|ending| ending == Ending::Failed),
            tokens,
            waste_ratio: tokens.waste_ratio(),
            unread_tokens: records.iter().map(StreamRecord::unread_tokens).sum(),
            qoe_mean: ratio(qoe.iter().sum(), qoe.len() as f64),
            delivered_tps: per_second(delivered as f64),
            effective_tps: per_second(effective),
            stall_ratio: stalls.ratio(),
            ttft: Distribution::of(records.iter().filter_map(StreamRecord::ttft)),
            tpot: Distribution::of(records.iter().filter_map(StreamRecord::tpot)),
        }
    }
}

impl Distribution {
    /// The distribution of `values`; `None` without any.
    pub fn of(values: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().map(|value| value.as_secs_f64()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (count, max) = (values.len(), *values.last()?);
        let percentile = |percent: usize| values[(count * percent).div_ceil(100).max(1) - 1];
        Some(Self {
            count,
            mean_seconds: values.iter().sum::<f64>() / count as f64,
            p50_seconds: percentile(50),
            p95_seconds: percentile(95),
            p99_seconds: percentile(99),
            max_seconds: max,
        })
    }
}
