//! Recorded links, in the format of Mahimahi (Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC
//! 2015): each line is a millisecond at which 1500 bytes may leave, and several lines may name the same one. The last line is
//! also the length of the trace, which then begins anew.
//!
//! Invariant: a trace carries something, never goes back in time, and is short enough for its times to fit 32 bits.

use std::sync::Arc;
use std::time::Duration;

use crate::spec::SLOWEST_RATE;

/// What may leave at one line, bytes of IP packets.
pub(crate) const OPPORTUNITY: u32 = 1500;

/// The longest trace: a day, in milliseconds. Longer ones are cut before they are of use in a lab.
const LONGEST: u32 = 24 * 60 * 60 * 1000;

/// The most lines: a day at 2 Mbit/s or an hour at 50, which takes 60 MiB.
const MOST: usize = 1 << 24;

/// When a link may send, over and over. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace {
    /// Milliseconds from the start, none before the one in front of it; the last is the period.
    opportunities: Arc<[u32]>,
    /// Where it begins to be played, milliseconds, less than the period.
    offset: u32,
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidTrace {
    /// No number, or one that is too large.
    #[error("line {line}: `{text}` is no time: write whole milliseconds from 0 to {LONGEST}")]
    Time {
        /// Where, counted from 1.
        line: usize,
        /// The line, cut where it is long.
        text: String,
    },
    /// Time goes back.
    #[error("line {line}: {time} ms comes after {before} ms: sort the lines by time")]
    Order {
        /// Where, counted from 1.
        line: usize,
        /// This line's.
        time: u32,
        /// That of the line before.
        before: u32,
    },
    /// No lines.
    #[error("the trace is empty: write a line for each millisecond at which 1500 bytes may leave")]
    Empty,
    /// No time passes.
    #[error("the trace ends at 0 ms: its last line must be its length, above 0")]
    NoLength,
    /// More than can be held.
    #[error("the trace has more than {MOST} lines: cut it")]
    TooLong,
    /// Slower than can be emulated.
    #[error(
        "the trace carries {0:.0} bit/s on average, below {SLOWEST_RATE}: for a link that carries nothing use a blackout"
    )]
    Slow(f64),
}

impl Trace {
    /// Reads a trace from the text of its file.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidTrace> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let mut opportunities = Vec::new();
        if text.is_empty() {
            return Err(InvalidTrace::Empty);
        }
        for (index, bytes) in text.split(|&byte| byte == b'\n').enumerate() {
            let time = std::str::from_utf8(bytes).ok().and_then(|line| line.trim().parse().ok());
            let line = index + 1;
            let Some(time) = time.filter(|time| *time <= LONGEST) else {
                let shown = &bytes[..bytes.len().min(40)];
                let text = String::from_utf8_lossy(shown).trim().to_owned();
                return Err(InvalidTrace::Time { line, text });
            };
            match opportunities.last() {
                Some(&before) if time < before => {
                    return Err(InvalidTrace::Order { line, time, before });
                }
                _ if index >= MOST => return Err(InvalidTrace::TooLong),
                _ => opportunities.push(time),
            }
        }
        Self::from_opportunities(opportunities)
    }

    /// A trace of these milliseconds, which are in order.
    pub(crate) fn from_opportunities(opportunities: Vec<u32>) -> Result<Self, InvalidTrace> {
        debug_assert!(opportunities.is_sorted());
        match opportunities.last() {
            None => return Err(InvalidTrace::Empty),
            Some(0) => return Err(InvalidTrace::NoLength),
            Some(_) => {}
        }
        let trace = Self { opportunities: opportunities.into(), offset: 0 };
        let rate = trace.mean_rate();
        if rate < SLOWEST_RATE as f64 { Err(InvalidTrace::Slow(rate)) } else { Ok(trace) }
    }

    /// The same, played from `offset` on instead of from its beginning.
    pub fn starting_at(self, offset: Duration) -> Self {
        let offset = offset.as_millis() % u128::from(self.period_ms());
        Self { offset: offset as u32, ..self }
    }

    /// How long it takes until it begins anew.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms())
    }

    /// What it carries on average, bits of IP packets per second.
    pub fn mean_rate(&self) -> f64 {
        let bits = self.opportunities.len() as f64 * f64::from(OPPORTUNITY) * 8.0;
        bits / self.period().as_secs_f64()
    }

    /// The longest time in which nothing may leave, also from the end over to the beginning.
    pub fn longest_silence(&self) -> Duration {
        let gaps = self.opportunities.windows(2).map(|pair| pair[1] - pair[0]);
        let around = self.opportunities.first().copied().unwrap_or(0);
        Duration::from_millis(gaps.chain([around]).max().unwrap_or(0).into())
    }

    /// Where it begins to be played, milliseconds.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.into()
    }

    /// When opportunity `number` comes, milliseconds from the beginning; it goes on counting from one round to the next.
    pub(crate) fn time_of(&self, number: u64) -> u64 {
        let count = self.opportunities.len() as u64;
        let (round, index) = (number / count, (number % count) as usize);
        round * self.period_ms() + u64::from(self.opportunities[index])
    }

    /// The first opportunity at `ms` from the beginning or later.
    pub(crate) fn first_from(&self, ms: u64) -> u64 {
        let period = self.period_ms();
        // What comes at the very end of a round comes before what is at the start of the next.
        let round = ms.saturating_sub(1) / period;
        let within = ms - round * period;
        let index = self.opportunities.partition_point(|&time| u64::from(time) < within);
        round * self.opportunities.len() as u64 + index as u64
    }

    /// The same, looked for from opportunity `near` on, at or before which it must not be: who plays a trace seldom jumps far, and
    /// a search of the whole would miss the caches.
    pub(crate) fn first_from_near(&self, near: u64, ms: u64) -> u64 {
        let count = self.opportunities.len() as u64;
        let (round, index) = (near / count, (near % count) as usize);
        let within = ms.saturating_sub(round * self.period_ms());
        if within > self.period_ms() {
            return self.first_from(ms);
        }
        // A round ends with its period, so the one looked for is in it, and at `high` at the latest.
        let rest = &self.opportunities[index..];
        let is_before = |time: &u32| u64::from(*time) < within;
        let (mut low, mut high) = (0, 1);
        while rest.get(high).is_some_and(is_before) {
            (low, high) = (high, 2 * high);
        }
        let among = &rest[low..rest.len().min(high + 1)];
        near + (low + among.partition_point(is_before)) as u64
    }

    fn period_ms(&self) -> u64 {
        self.opportunities.last().copied().unwrap_or(1).into()
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("period", &self.period())
            .field("mean_rate", &self.mean_rate())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trace_tells_its_length_its_rate_and_its_silences() {
        let trace = Trace::parse(b"1\n1\n4\n10\n").expect("a trace");
        assert_eq!(trace.period(), Duration::from_millis(10));
        // Four times 1500 bytes in ten milliseconds.
        assert_eq!(trace.mean_rate(), 4_800_000.0);
        assert_eq!(trace.longest_silence(), Duration::from_millis(6));
        assert_eq!(Trace::parse(b"7\r\n10").expect("a trace").longest_silence().as_millis(), 7);
        assert_eq!(trace.starting_at(Duration::from_millis(23)).offset(), 3);
    }

    #[test]
    fn opportunities_are_counted_over_the_rounds() {
        let trace = Trace::parse(b"0\n1\n1\n4\n10\n").expect("a trace");
        let times: Vec<u64> = (0..11).map(|number| trace.time_of(number)).collect();
        assert_eq!(times, [0, 1, 1, 4, 10, 10, 11, 11, 14, 20, 20]);
        let first: Vec<u64> = (0..=15).map(|ms| trace.first_from(ms)).collect();
        assert_eq!(first, [0, 1, 3, 3, 3, 4, 4, 4, 4, 4, 4, 6, 8, 8, 8, 9]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |text: &[u8], expected: &str| {
            let error = Trace::parse(text).expect_err("no trace").to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(b"", "the trace is empty");
        check(b"\n", "the trace is empty");
        check(b"\n1\n", "line 1: `` is no time");
        check(b"1\n\n2\n", "line 2: `` is no time");
        check(b"1\n2 3\n", "line 2: `2 3` is no time");
        check(b"1\n-2\n", "line 2: `-2` is no time: write whole milliseconds from 0 to 86400000");
        check(b"1\n\xff\n", "line 2: `\u{fffd}` is no time");
        check(b"86400001\n", "line 1: `86400001` is no time");
        check(b"1\n5\n4\n", "line 3: 4 ms comes after 5 ms: sort the lines by time");
        check(b"0\n0\n", "the trace ends at 0 ms");
        check(b"100000\n", "the trace carries 120 bit/s on average, below 1000");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_trace_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Trace::parse(&bytes);
        }

        #[test]
        fn the_first_from_a_time_is_not_before_it(
            mut times in proptest::collection::vec(0u32..1000, 1..50),
            ms in 0u64..5000,
        ) {
            times.sort_unstable();
            times.push(1000);
            let trace = Trace::from_opportunities(times).expect("a trace");
            let first = trace.first_from(ms);
            for near in [0, first / 2, first.saturating_sub(1), first] {
                prop_assert_eq!(trace.first_from_near(near, ms), first);
            }
            prop_assert!(trace.time_of(first) >= ms);
            prop_assert!(first == 0 || trace.time_of(first - 1) < ms);
        }
    }
}
