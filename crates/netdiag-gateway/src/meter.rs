//! One stream's figures: when tokens came and were handed on, and what became of them.

use std::time::Duration;

use netdiag_pacer::Causes;
use serde::Serialize;
use tokio::time::Instant;

/// Buckets of gaps between tokens, for each doubling of the gap: quantiles are within 9 %, which is closer than two runs are.
const PER_DOUBLING: f64 = 4.0;

/// The shortest gap that is told apart; shorter ones are tokens that came together.
const SHORTEST: f64 = 0.0001;

/// From 0.1 ms to a minute and a half.
const BUCKETS: usize = 80;

/// The memory of one stream.
#[derive(Debug)]
pub(crate) struct Meter {
    asked: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    generated: u64,
    sent: u64,
    gaps: [u32; BUCKETS],
    /// Tokens that the client had when it took this connection: all of those before it, and no more.
    had: u64,
    /// Of all connections that are over.
    past: Past,
}

/// What is known of connections that are over.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    acked: Option<u64>,
    path: Option<Path>,
}

/// What is known of the connection that a stream goes out on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// Tokens of the stream that were handed on there and have arrived.
    pub(crate) acked: f64,
    /// What the stream waited for there.
    pub(crate) causes: Causes,
    pub(crate) srtt_seconds: Option<f64>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With all that the engine had.
    Complete,
    /// The client left.
    ClientGone,
    /// Because somebody who may has stopped it.
    Stopped,
    /// With an error event.
    Failed,
}

/// What a client is told in the last comment of its stream, and the log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) ttft_seconds: Option<f64>,
    /// From the first token to the last, for each after the first.
    pub(crate) tpot_seconds: Option<f64>,
    pub(crate) gap_p50_seconds: Option<f64>,
    pub(crate) gap_p95_seconds: Option<f64>,
    pub(crate) gap_p99_seconds: Option<f64>,
    pub(crate) tokens: Tokens,
    /// What the stream waited for; absent for one that is not paced.
    #[serde(flatten)]
    pub(crate) path: Option<Path>,
}

/// Where tokens are.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Tokens {
    /// Sent by the engine.
    pub(crate) generated: u64,
    /// Handed on.
    pub(crate) sent: u64,
    /// Acknowledged by the client's kernel so far; absent where the kernel was not asked.
    pub(crate) acked: Option<u64>,
    /// Generated, and never to be delivered.
    pub(crate) wasted: u64,
}

/// What the kernel says of the way to the client.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Path {
    pub(crate) cause: Option<&'static str>,
    pub(crate) cause_seconds: Causes,
    pub(crate) srtt_seconds: Option<f64>,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl Meter {
    pub(crate) fn new(asked: Instant) -> Self {
        Self {
            asked,
            first: None,
            last: None,
            generated: 0,
            sent: 0,
            gaps: [0; BUCKETS],
            had: 0,
            past: Past::default(),
        }
    }

    /// The engine has sent so many tokens more.
    pub(crate) fn generated(&mut self, tokens: u32) {
        if tokens > 0 && self.first.is_none() {
            self.first = Some(Instant::now());
        }
        self.generated += u64::from(tokens);
    }

    /// So many were handed on.
    pub(crate) fn sent(&mut self, tokens: u32) {
        if tokens == 0 {
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last {
            let gap = now.duration_since(last).as_secs_f64();
            self.gaps[bucket(gap)] += 1;
            // Those that go together come together.
            self.gaps[0] += tokens - 1;
        }
        self.last = Some(now);
        self.sent += u64::from(tokens);
    }

    pub(crate) fn tokens(&self) -> (u64, u64) {
        (self.generated, self.sent)
    }

    pub(crate) fn ttft(&self) -> Option<Duration> {
        Some(self.first?.duration_since(self.asked))
    }

    pub(crate) fn tpot(&self) -> Option<Duration> {
        let between = u32::try_from(self.sent.checked_sub(1)?).ok().filter(|&n| n > 0)?;
        Some(self.last?.duration_since(self.first?) / between)
    }

    /// The connection is over, and this is the last that was seen of it.
    pub(crate) fn detach(&mut self, sight: Option<&Sight>) {
        self.past = self.with(sight);
    }

    /// A client takes the stream on another connection, and has so many tokens. The others are handed on again.
    pub(crate) fn go_back(&mut self, had: u64) {
        self.had = had;
        self.sent = had;
        self.past.acked = Some(had);
    }

    /// All of it, with what is seen of the present connection. What is not acknowledged is wasted if the client is `gone`, and under
    /// way otherwise.
    pub(crate) fn summary(&self, sight: Option<&Sight>, gone: bool) -> Summary {
        let Past { acked, path } = self.with(sight);
        let delivered = match (gone, acked) {
            (true, Some(acked)) => acked,
            _ => self.sent,
        };
        Summary {
            ttft_seconds: self.ttft().map(|ttft| ttft.as_secs_f64()),
            tpot_seconds: self.tpot().map(|tpot| tpot.as_secs_f64()),
            gap_p50_seconds: self.quantile(0.5),
            gap_p95_seconds: self.quantile(0.95),
            gap_p99_seconds: self.quantile(0.99),
            tokens: Tokens {
                generated: self.generated,
                sent: self.sent,
                acked,
                wasted: self.generated.saturating_sub(delivered),
            },
            path,
        }
    }

    /// What is known of all connections, the present one included.
    fn with(&self, sight: Option<&Sight>) -> Past {
        let Some(sight) = sight else { return self.past };
        let acked = (self.had + sight.acked.max(0.0) as u64).min(self.sent);
        let before = self.past.path.map_or_else(Causes::default, |path| path.cause_seconds);
        let causes = Causes {
            engine: before.engine + sight.causes.engine,
            path: before.path + sight.causes.path,
            reader: before.reader + sight.causes.reader,
            pacer: before.pacer + sight.causes.pacer,
        };
        let path = Path {
            cause: causes.dominant().map(|cause| cause.as_str()),
            cause_seconds: causes,
            srtt_seconds: sight.srtt_seconds,
        };
        Past { acked: Some(acked), path: Some(path) }
    }

    /// The gap that this share of gaps is not above.
    fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.gaps.iter().map(|&n| u64::from(n)).sum();
        let rank = (share * all as f64).ceil() as u64;
        let mut seen = 0;
        self.gaps.iter().enumerate().find_map(|(at, &n)| {
            seen += u64::from(n);
            // The middle of the bucket, by ratio.
            let middle = SHORTEST * 2f64.powf((at as f64 - 0.5) / PER_DOUBLING);
            (n > 0 && seen >= rank).then_some(middle)
        })
    }
}

/// Bucket 0 has what is shorter than can be told.
fn bucket(gap: f64) -> usize {
    let doublings = (gap / SHORTEST).log2();
    (doublings * PER_DOUBLING).ceil().clamp(0.0, (BUCKETS - 1) as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gaps_and_times_are_those_of_tokens() {
        let mut meter = Meter::new(Instant::now());
        tokio::time::advance(Duration::from_millis(300)).await;
        meter.generated(0);
        assert_eq!(meter.ttft(), None);
        meter.generated(101);
        for token in 0..101 {
            meter.sent(1);
            let gap = if token >= 95 { 200 } else { 20 };
            tokio::time::advance(Duration::from_millis(gap)).await;
        }
        let summary = meter.summary(None, true);
        assert_eq!(summary.ttft_seconds, Some(0.3));
        let near = |value: Option<f64>, expected: f64| {
            let value = value.expect("measured");
            assert!((value / expected - 1.0).abs() < 0.1, "{value} for {expected}");
        };
        near(summary.gap_p50_seconds, 0.020);
        near(summary.gap_p99_seconds, 0.200);
        near(summary.tpot_seconds, (95.0 * 0.02 + 5.0 * 0.2) / 100.0);
        assert_eq!((summary.tokens.generated, summary.tokens.wasted), (101, 0));
    }

    #[test]
    fn a_stream_without_tokens_has_no_times() {
        let summary = Meter::new(Instant::now()).summary(None, false);
        assert_eq!((summary.ttft_seconds, summary.tpot_seconds), (None, None));
        assert_eq!(summary.gap_p50_seconds, None);
    }

    #[test]
    fn over_several_connections_times_add_up_and_only_what_the_client_has_is_acked() {
        let mut meter = Meter::new(Instant::now());
        let sight = |acked: f64, path: u64| Sight {
            acked,
            causes: Causes { path: Duration::from_secs(path), ..Causes::default() },
            srtt_seconds: Some(0.05),
        };
        meter.generated(10);
        meter.sent(8);
        meter.detach(Some(&sight(6.0, 2)));
        let gone = meter.summary(None, true);
        assert_eq!((gone.tokens.acked, gone.tokens.wasted), (Some(6), 4));
        // The client's kernel had six, but its program has read five.
        meter.go_back(5);
        meter.sent(4);
        let summary = meter.summary(Some(&sight(3.0, 1)), true);
        let Tokens { generated, sent, acked, wasted } = summary.tokens;
        assert_eq!((generated, sent, acked, wasted), (10, 9, Some(8), 2));
        assert_eq!(summary.path.expect("seen").cause_seconds.path, Duration::from_secs(3));
    }

    #[test]
    fn what_comes_together_has_no_gap() {
        assert_eq!(bucket(0.0), 0);
        assert_eq!(bucket(1e9), BUCKETS - 1);
    }
}
