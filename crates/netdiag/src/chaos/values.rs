//! The values of faults: from an argument's text to a valid value, or to a reason that says what would be valid.
//!
//! Times, shares and rates carry their units, as people write them and as `tc` does; times and rates as in the lab's scenarios,
//! by the same parser.

use std::fmt;
use std::time::Duration;

use netdiag_lab::units;

/// The longest delay. Beyond a minute TCP itself has given up waiting.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The shortest run: below this, starting `tc` takes longer than the fault.
const SHORTEST_RUN: Duration = Duration::from_millis(10);

/// The longest run: what is to stay longer than a day is no fault but a setting.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 60 * 60);

/// What netem counts delays in.
const FINEST: Duration = Duration::from_micros(1);

/// What netem counts losses in: they are 32 bits wide.
const FINEST_LOSS: f64 = 100.0 / 4_294_967_296.0;

/// `--for`: with a unit or in seconds, as other commands have it.
pub(crate) fn run_time(text: &str) -> Result<Duration, String> {
    let seconds = || {
        let seconds = text.trim().parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    units::duration(text)
        .ok()
        .or_else(seconds)
        .filter(|time| (SHORTEST_RUN..=LONGEST_RUN).contains(time))
        .ok_or_else(|| {
            "must be a time from 10ms to 24h, such as 30s or 2m, or a number of seconds".to_owned()
        })
}

/// `--delay` and `--jitter`. A number alone could be meant in seconds, as here, in milliseconds, as delays are, or in
/// microseconds, as by `tc`.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    let delay = units::duration(text).ok().filter(|delay| *delay <= LONGEST_DELAY);
    match delay {
        Some(delay) if !delay.is_zero() && delay < FINEST => Err(
            "is less than the kernel's microsecond, so nothing would be delayed; give 1us or more"
                .to_owned(),
        ),
        Some(delay) => Ok(delay),
        None => Err("must be a time with its unit from 0ms to 60s, such as 100ms".to_owned()),
    }
}

/// A time as one would say it: `100 ms`, `1.5 s`, `2 min`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        _ if seconds >= 120.0 => (seconds / 60.0, "min"),
        _ if seconds >= 1.0 => (seconds, "s"),
        _ if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    format!("{} {unit}", short(value))
}

/// A number with at most two decimals, and none that say nothing.
fn short(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A share of packets, 0..=100 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(crate) struct Percent(f64);

impl Percent {
    /// No packet.
    pub(crate) const NONE: Self = Self(0.0);

    /// A share in percent, if it is one.
    pub(crate) fn try_new(percent: f64) -> Option<Self> {
        // What is added makes a negative zero a plain one.
        (0.0..=100.0).contains(&percent).then_some(Self(percent + 0.0))
    }

    /// In percent.
    pub(crate) fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// `--loss`.
pub(crate) fn percent(text: &str) -> Result<Percent, String> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse().ok();
    match number.and_then(Percent::try_new) {
        Some(loss) if loss != Percent::NONE && loss.get() < FINEST_LOSS => Err(
            "is less than the kernel can count, so nothing would be lost; give 0.0000001% or more"
                .to_owned(),
        ),
        Some(loss) => Ok(loss),
        None => Err("must be a percentage from 0 to 100, such as 5%".to_owned()),
    }
}

/// A rate in whole bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BitRate(u64);

impl BitRate {
    /// At this rate a full packet takes twelve seconds; below it nothing arrives before TCP gives up.
    pub(crate) const LOWEST: Self = Self::kbit(1);
    /// See `UNLIMITED` in `fault.rs`.
    pub(crate) const HIGHEST: Self = Self::gbit(32);

    pub(crate) const fn kbit(kbit: u64) -> Self {
        Self(kbit * 1_000)
    }

    pub(crate) const fn gbit(gbit: u64) -> Self {
        Self(gbit * 1_000_000_000)
    }

    /// In bit/s.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// As one would write it behind `--rate`: in the largest unit that needs no more than two decimals.
    pub(crate) fn as_flag(self) -> String {
        let units = [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1000, "kbit")];
        let fitting =
            units.iter().find(|(bits, _)| self.0 >= *bits && (self.0 * 100).is_multiple_of(*bits));
        match fitting {
            Some((bits, unit)) => format!("{}{unit}", self.0 as f64 / *bits as f64),
            None => format!("{}bit", self.0),
        }
    }

    /// How many bytes it carries in `time`.
    pub(crate) fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0) * time.as_nanos() / 8_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.0 {
            1_000_000_000.. => (1e9, "Gbit/s"),
            1_000_000.. => (1e6, "Mbit/s"),
            _ => (1e3, "kbit/s"),
        };
        write!(f, "{} {unit}", short(self.0 as f64 / divisor))
    }
}

/// `--rate`. In bits, because `tc` means bytes where it says `bps`.
pub(crate) fn rate(text: &str) -> Result<BitRate, String> {
    let rate = units::bit_rate(text).ok().map(BitRate);
    rate.filter(|rate| (BitRate::LOWEST..=BitRate::HIGHEST).contains(rate)).ok_or_else(|| {
        "must be a rate with its unit (bit, kbit, mbit, gbit) from 1kbit to 32gbit, such as 1mbit"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_times_have_units_or_are_seconds() {
        let check = |text: &str, expected: Option<u64>| {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(run_time(text).ok(), expected, "{text}");
        };
        check("30s", Some(30_000));
        check("2m", Some(120_000));
        check("500ms", Some(500));
        check("1.5 s", Some(1500));
        check("24h", Some(86_400_000));
        check("30", Some(30_000));
        check("0.01", Some(10));
        check("10000us", Some(10));
        // As scenarios have it, and as it is told.
        check("2min", Some(120_000));
        check("2.5 min", Some(150_000));
        for bad in ["", "0", "-1", "-5s", "9ms", "25h", "nan", "inf", "nans", "1e300s", "1m30s"] {
            check(bad, None);
        }
        for bad in ["s", "ms", "30x", "30 seconds", "٣s", "0x10s", "1,5s"] {
            check(bad, None);
        }
    }

    #[test]
    fn delays_need_their_unit() {
        assert_eq!(delay("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(delay("250µs"), Ok(Duration::from_micros(250)));
        assert_eq!(delay("0ms"), Ok(Duration::ZERO));
        assert_eq!(delay("1m"), Ok(LONGEST_DELAY));
        for bad in ["100", "0", "61s", "-1ms", "", "ms", "NaNms", "infs", "1e400ms"] {
            assert!(delay(bad).is_err_and(|reason| reason.contains("100ms")), "{bad}");
        }
    }

    #[test]
    fn what_the_kernel_would_round_to_nothing_is_no_fault() {
        for bad in ["100ns", "0.9us", "0.0001ms"] {
            assert!(delay(bad).is_err_and(|reason| reason.contains("give 1us or more")), "{bad}");
        }
        assert_eq!(delay("1us"), Ok(FINEST));
        assert!(percent("0.00000001").is_err_and(|reason| reason.contains("0.0000001% or more")));
        assert!(percent("0.0000001").is_ok_and(|loss| loss != Percent::NONE));
    }

    #[test]
    fn losses_are_percentages() {
        assert_eq!(percent("5%"), percent("5"));
        assert_eq!(percent(" 0.1 % ").map(Percent::get), Ok(0.1));
        assert_eq!(percent("100").map(Percent::get), Ok(100.0));
        // `tc` shall not see a sign.
        assert_eq!(percent("-0").map(|loss| loss.get().to_string()), Ok("0".to_owned()));
        for bad in ["", "%", "101", "100.1%", "-1", "nan", "inf", "5%%", "five"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_in_bits() {
        let check = |text: &str, bits: u64| assert_eq!(rate(text), Ok(BitRate(bits)), "{text}");
        check("1mbit", 1_000_000);
        check("1.5Mbit", 1_500_000);
        check("56kbit", 56_000);
        check("2000bit", 2000);
        check("32gbit", 32_000_000_000);
        for bad in ["", "1", "1mbps", "1m", "999bit", "33gbit", "-1mbit", "nanmbit", "infbit"] {
            assert!(rate(bad).is_err_and(|reason| reason.contains("1mbit")), "{bad}");
        }
    }

    #[test]
    fn values_are_told_with_their_units() {
        let times = [(100, "100 ms"), (1500, "1.5 s"), (119_000, "119 s"), (150_000, "2.5 min")];
        for (ms, told) in times {
            assert_eq!(time(Duration::from_millis(ms)), told);
        }
        assert_eq!(time(Duration::from_micros(250)), "250 µs");
        assert_eq!(BitRate::kbit(128).to_string(), "128 kbit/s");
        assert_eq!(BitRate::gbit(1).to_string(), "1 Gbit/s");
        for written in ["1mbit", "1.5mbit", "64kbit", "1.25gbit", "1234567bit", "1234.57kbit"] {
            assert_eq!(rate(written).map(BitRate::as_flag).as_deref(), Ok(written));
        }
    }
}
