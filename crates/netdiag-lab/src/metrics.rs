//! What a reader got out of a stream, and what the engine put in for nothing.
//!
//! The metrics of the literature, each with its source, computed from times alone. Pure: times are since any common moment, real or
//! virtual, so an experiment on real sockets and a simulation are judged by the same lines.
//!
//! All of them rest on the same reader, who reads at `r` tokens/s and cannot read what has not come. He has read token `i` at
//!
//! ```text
//! t₀ = d₀        tᵢ = max(dᵢ, tᵢ₋₁ + 1/r)        dᵢ: when token i was delivered
//! ```
//!
//! except in QoE, where he does not begin before he would with an ideal server.
//!
//! Invariant: every figure is finite and within its stated range, whatever the times.

use std::time::Duration;

/// A gap longer than this is a stall (Eloquent, SIGCOMM 2024, section 5.1): shorter ones are read as one goes.
const STALL: f64 = 0.2;

/// Shares of the output's length between which an unread token's worth falls from one to zero (TokenFlow, section 7.1.3).
const UNREAD_WORTH: [f64; 2] = [0.1, 0.2];

/// One answer, as its reader saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivered {
    /// When it was asked for.
    pub asked: Duration,
    /// When each token came, in the order of coming.
    pub tokens: Vec<Duration>,
}

/// What a reader expects, and how fast he reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reader {
    /// Time to the first token that he takes for immediate.
    ttft: Duration,
    tokens_per_second: f64,
}

/// A reading rate that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a reader of {0} tokens/s: give a number above 0, at most 1000")]
pub struct InvalidReader(f64);

impl Reader {
    /// A reader who expects the first token after `ttft` and reads `tokens_per_second`, above 0 and at most 1000.
    pub fn try_new(ttft: Duration, tokens_per_second: f64) -> Result<Self, InvalidReader> {
        let possible = tokens_per_second > 0.0 && tokens_per_second <= 1000.0;
        if possible {
            Ok(Self { ttft, tokens_per_second })
        } else {
            Err(InvalidReader(tokens_per_second))
        }
    }

    /// Seconds that he reads a token for.
    fn pace(self) -> f64 {
        1.0 / self.tokens_per_second
    }
}

impl Delivered {
    /// Time to the first token; `None` if none came.
    pub fn ttft(&self) -> Option<Duration> {
        self.tokens.first().map(|first| first.saturating_sub(self.asked))
    }

    /// Mean time per token after the first; `None` with fewer than two.
    pub fn tpot(&self) -> Option<Duration> {
        let (first, last) = self.tokens.first().zip(self.tokens.last())?;
        let gaps = u32::try_from(self.tokens.len() - 1).ok().filter(|&gaps| gaps > 0)?;
        Some(last.saturating_sub(*first) / gaps)
    }

    /// The gaps between tokens, in seconds.
    pub fn gaps(&self) -> impl Iterator<Item = f64> {
        self.tokens.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64())
    }

    /// Quality of experience, 0..=1 (Andes, section 3): the share of the time to each token that an ideal server needs as well,
    ///
    /// ```text
    /// idealᵢ = ttft + i/r        t₀ = max(d₀, ideal₀)        tᵢ = max(dᵢ, tᵢ₋₁ + 1/r)
    /// QoE = 1 − Σ (tᵢ − idealᵢ) / Σ tᵢ
    /// ```
    ///
    /// with times since the request. 0 if nothing came. What was asked for and never came does not count: say apart how many
    /// answers were cut short.
    pub fn qoe(&self, reader: Reader) -> f64 {
        let (mut late, mut all) = (0.0, 0.0);
        let mut read = reader.ttft.as_secs_f64() - reader.pace();
        for (index, token) in self.tokens.iter().enumerate() {
            let delivered = token.saturating_sub(self.asked).as_secs_f64();
            let ideal = reader.ttft.as_secs_f64() + index as f64 * reader.pace();
            read = delivered.max(read + reader.pace());
            late += (read - ideal).max(0.0);
            all += read;
        }
        if all > 0.0 {
            (1.0 - late / all).clamp(0.0, 1.0)
        } else {
            f64::from(u8::from(!self.tokens.is_empty()))
        }
    }

    /// Share of the reading time spent waiting in gaps of more than 200 ms, 0..=1 (Eloquent's stall ratio). Reading begins with the
    /// first token; how long that took is TTFT. 0 if nothing came.
    pub fn stall_ratio(&self, reader: Reader) -> f64 {
        let (mut stalled, mut read, mut start) = (0.0, f64::NEG_INFINITY, 0.0);
        for (index, token) in self.tokens.iter().enumerate() {
            let delivered = token.as_secs_f64();
            let ready = read + reader.pace();
            read = delivered.max(ready);
            if index == 0 {
                start = read;
            } else if read - ready > STALL {
                stalled += read - ready;
            }
        }
        let reading = read + reader.pace() - start;
        if reading > 0.0 && reading.is_finite() { (stalled / reading).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Tokens that were worth delivering when they were (TokenFlow's effective throughput, before dividing by time): each counts 1
    /// while less than 10 % of the output lies unread before its reader, 0 from 20 % on, and in between proportionally.
    /// `output` is the length of the whole answer in tokens.
    pub fn effective_tokens(&self, reader: Reader, output: usize) -> f64 {
        let mut read_at: Vec<f64> = Vec::with_capacity(self.tokens.len());
        let mut read = 0;
        let mut worth = 0.0;
        for (index, token) in self.tokens.iter().enumerate() {
            let now = token.as_secs_f64();
            while read < index && read_at[read] + reader.pace() <= now {
                read += 1;
            }
            let unread = (index - read) as f64 / output.max(1) as f64;
            let [full, none] = UNREAD_WORTH;
            worth += ((none - unread) / (none - full)).clamp(0.0, 1.0);
            let before = read_at.last().copied().unwrap_or(f64::NEG_INFINITY);
            read_at.push(now.max(before + reader.pace()));
        }
        worth
    }

    /// Tokens that had come when the reader left, and that he had not read by then.
    pub fn unread(&self, reader: Reader, left: Duration) -> usize {
        let mut read = f64::NEG_INFINITY;
        let come = self.tokens.iter().filter(|token| **token <= left);
        let unread = come.filter(|token| {
            read = token.as_secs_f64().max(read + reader.pace());
            read + reader.pace() > left.as_secs_f64()
        });
        unread.count()
    }
}

/// Time from `event` to the first of `times` that is not before it: how long a reaction took. `None` if there was none.
pub fn reaction(event: Duration, times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    times.into_iter().filter_map(|time| time.checked_sub(event)).min()
}

/// The `q`-quantile (0..=1) of any values, interpolated linearly; `None` without finite ones.
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    netdiag_health::quantile_of_sorted(&values, q)
}

/// The mean; `None` without values.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (count, sum) =
        values.into_iter().fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests;
