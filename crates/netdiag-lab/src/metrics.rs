//! What a stream was worth to its reader, and what it cost the engine.
//!
//! Every formula works on times that somebody else took: the stream client on a real link, the simulator in virtual
//! time. So nothing here reads a clock or does I/O, and both are judged by the very same code.
//!
//! Readers are modelled by two numbers ([`Reader`]): the time they expect to wait for the first token, and the rate at
//! which they read. Tokens count from 0; `s` is the submission, `r` the reading rate, `dᵢ` the delivery of token i.
//!
//! Invariant: ratios are in 0..=1, and `None` where there is nothing to judge, never a flattering 1 or 0.

mod reaction;
mod summary;

use std::time::Duration;

use netdiag_telemetry::Tps;
use serde::Serialize;

pub use reaction::reaction_times;
pub use summary::{Distribution, Summary};

/// From this gap on a reader notices that nothing comes (Eloquent, arXiv 2401.12961: 200 ms).
pub const STALL_GAP: Duration = Duration::from_millis(200);

/// Shares of the output length between which a token ahead of the reader loses its worth (TokenFlow, arXiv 2510.02758,
/// §7.1.3).
const FULL_WORTH: f64 = 0.1;
const NO_WORTH: f64 = 0.2;

/// Who reads a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reader {
    /// Reading rate.
    pub rate: Tps,
    /// Time to the first token that is still felt as immediate (TTFT*).
    pub expected_ttft: Duration,
}

/// How a stream ended, seen from its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer arrived.
    Complete,
    /// The client went away at this time, be it that it gave up or that it vanished.
    Left(Duration),
    /// The measurement ended at this time with the stream still open.
    Cut(Duration),
    /// The server refused the request or broke the stream off.
    Failed,
}

/// Where a number of generated tokens went, counted where they were generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Generated at all: the sum of the three others ([`TokenCounts::balances`]).
    pub generated: u64,
    /// Acknowledged to the last byte by the client's kernel.
    pub acked: u64,
    /// Neither: waiting in the engine, in the kernel or on the way, on a connection that may still deliver them.
    pub in_flight: u64,
    /// Generated for nobody: the connection was gone before the client's kernel acknowledged them.
    pub wasted: u64,
}

impl TokenCounts {
    /// Whether every token generated is in exactly one place.
    pub fn balances(&self) -> bool {
        self.generated == self.acked + self.in_flight + self.wasted
    }

    /// Share of the tokens generated that were wasted (waste); `None` when none was generated.
    pub fn waste_ratio(&self) -> Option<f64> {
        ratio(self.wasted as f64, self.generated as f64)
    }

    /// Adds another stream's.
    pub fn add(&mut self, other: Self) {
        self.generated += other.generated;
        self.acked += other.acked;
        self.in_flight += other.in_flight;
        self.wasted += other.wasted;
    }
}

/// One stream. All times have the same origin, the start of the run for example.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRecord {
    /// When the client asked.
    pub submitted: Duration,
    /// When each token reached the client's application, in order. A step back in time counts as no time at all.
    pub deliveries: Vec<Duration>,
    /// How it ended.
    pub ending: Ending,
    /// Length of the whole answer, tokens, delivered or not.
    pub output_tokens: u64,
    /// Who read it.
    pub reader: Reader,
    /// Where the tokens went.
    pub counts: TokenCounts,
}

/// How long a stream was read, and how much of it nothing came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// From the first token to the end of the stream.
    pub reading: Duration,
    /// Part of it spent in gaps longer than [`STALL_GAP`].
    pub waiting: Duration,
}

impl Stalls {
    /// Share of the reading time spent waiting (stall ratio); `None` when there was no reading time.
    pub fn ratio(&self) -> Option<f64> {
        ratio(self.waiting.as_secs_f64(), self.reading.as_secs_f64())
    }
}

impl StreamRecord {
    /// Quality of experience, 1 = every token was there when the reader came to it.
    ///
    /// Andes (arXiv 2404.16283) in its discrete form: idealᵢ = s + TTFT* + i/r; t₀ = max(d₀, ideal₀);
    /// tᵢ = max(dᵢ, tᵢ₋₁ + 1/r); QoE = 1 − Σ max(0, tᵢ − idealᵢ) / Σ (tᵢ − s).
    ///
    /// | Andes                   | here                                              | why                              |
    /// | ----------------------- | ------------------------------------------------- | -------------------------------- |
    /// | answers are complete    | of one that is not, the next token is taken as delivered when it ended, if it was due by then | else a stall at which the client gives up costs nothing, and one that was cut before anything was due would be perfect |
    /// | requests are served     | one that failed has 0                             | it is what the formula tends to as the wait grows |
    ///
    /// `None` when no token was ever due.
    pub fn qoe(&self) -> Option<f64> {
        if self.ending == Ending::Failed {
            return Some(0.0);
        }
        let per_token = self.reader.rate.seconds_per_token();
        let expected = self.reader.expected_ttft.as_secs_f64();
        let (mut late, mut whole) = (0.0, 0.0);
        let mut read = None;
        for (i, delivered) in self.awaited().enumerate() {
            let delivered = delivered.saturating_sub(self.submitted).as_secs_f64();
            let ideal = expected + i as f64 * per_token;
            if i >= self.deliveries.len() && delivered < ideal {
                break;
            }
            let reading = delivered.max(read.map_or(ideal, |before: f64| before + per_token));
            late += (reading - ideal).max(0.0);
            whole += reading;
            read = Some(reading);
        }
        read?;
        // Everything at once, and expected so, is no delay of nothing.
        Some(1.0 - ratio(late, whole).unwrap_or(0.0))
    }

    /// What the delivered tokens were worth, tokens: one that arrives while what is unread is below 10 % of the output
    /// counts 1, falling linearly to 0 at 20 % (TokenFlow, arXiv 2510.02758, §7.1.3). Divided by the time of a run this
    /// is its effective throughput.
    pub fn effective_tokens(&self) -> f64 {
        let output = self.output_tokens.max(self.deliveries.len() as u64) as f64;
        let reads = self.reads();
        let mut read = 0;
        let worth = self.deliveries.iter().enumerate().map(|(i, delivered)| {
            let now = delivered.as_secs_f64();
            while read < i && reads[read] <= now {
                read += 1;
            }
            let unread = (i - read) as f64 / output;
            ((NO_WORTH - unread) / (NO_WORTH - FULL_WORTH)).clamp(0.0, 1.0)
        });
        worth.sum()
    }

    /// Time without tokens: gaps between two deliveries, or between the last one and the end of a stream that was not
    /// complete, that are longer than [`STALL_GAP`] (Eloquent, arXiv 2401.12961). Tokens are taken as shown when they
    /// arrive, so a stream paced below five tokens a second is all stall, however slow its reader.
    pub fn stalls(&self) -> Stalls {
        let awaited: Vec<_> = self.awaited().collect();
        if self.deliveries.is_empty() {
            return Stalls::default();
        }
        let gaps = awaited.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        gaps.fold(Stalls::default(), |sum, gap| Stalls {
            reading: sum.reading + gap,
            waiting: sum.waiting + if gap > STALL_GAP { gap } else { Duration::ZERO },
        })
    }

    /// Tokens that the client's kernel acknowledged and its reader had not come to when the client left.
    pub fn unread_tokens(&self) -> u64 {
        let Ending::Left(left) = self.ending else { return 0 };
        let left = left.as_secs_f64();
        let read = self.reads().iter().take_while(|&&at| at <= left).count() as u64;
        self.counts.acked.saturating_sub(read)
    }

    /// Time to the first token; `None` without one.
    pub fn ttft(&self) -> Option<Duration> {
        Some(self.deliveries.first()?.saturating_sub(self.submitted))
    }

    /// Mean time per output token after the first; `None` below two.
    pub fn tpot(&self) -> Option<Duration> {
        let (first, last) = (self.deliveries.first()?, self.deliveries.last()?);
        let after = u32::try_from(self.deliveries.len()).ok()?.checked_sub(1).filter(|&n| n > 0)?;
        Some(last.saturating_sub(*first) / after)
    }

    /// The deliveries, and where more was to come the moment up to which the client surely waited for it.
    fn awaited(&self) -> impl Iterator<Item = Duration> {
        let open = match self.ending {
            Ending::Left(at) | Ending::Cut(at)
                if (self.deliveries.len() as u64) < self.output_tokens =>
            {
                Some(at)
            }
            _ => None,
        };
        self.deliveries.iter().copied().chain(open)
    }

    /// When the reader comes to each token: at once if waiting for it, else one reading interval after the token before.
    /// Seconds.
    fn reads(&self) -> Vec<f64> {
        let per_token = self.reader.rate.seconds_per_token();
        let mut before = f64::NEG_INFINITY;
        let reads = self.deliveries.iter().map(|delivered| {
            before = delivered.as_secs_f64().max(before + per_token);
            before
        });
        reads.collect()
    }
}

/// `part` of `whole`; `None` of nothing.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
