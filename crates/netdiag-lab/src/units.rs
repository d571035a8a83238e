//! Figures with their units, as people write them in scenario files and behind flags: one grammar for both.
//!
//! The complaint names neither the key nor the value; whoever shows it knows both, and the place besides.

use std::time::Duration;

/// What a text should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct Wanted(pub(crate) &'static str);

/// A time: `800us`, `20ms`, `1.5s`, `2min` or `2m`, `1h`; in capitals as well.
pub fn duration(text: &str) -> Result<Duration, Wanted> {
    // Those that end like another come before it. There are two letters for micro.
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("\u{b5}s", 1e3),
        ("\u{3bc}s", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("min", 60e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    let nanos = scaled(&text.to_lowercase(), &units).map(f64::round);
    // The conversion would saturate.
    let nanos = nanos.filter(|nanos| *nanos < u64::MAX as f64);
    nanos
        .map(|nanos| Duration::from_nanos(nanos as u64))
        .ok_or(Wanted("a time with its unit (us, ms, s, min or m, or h), such as 20ms or 1.5s"))
}

/// A share: `5%` or `0.05`. From 0 to 1.
pub fn share(text: &str) -> Result<f64, Wanted> {
    let share = scaled(text, &[("%", 0.01), ("", 1.0)]);
    let wanted = Wanted("a share from 0 to 1 or in percent, such as 5%");
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or(wanted)
}

/// Bits per second: `500kbit`, `10mbit`, `1gbit`; in capitals as well.
pub fn bit_rate(text: &str) -> Result<u64, Wanted> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)];
    let rate = scaled(&text.to_lowercase(), &units).map(|rate| rate.round() as u64);
    rate.ok_or(Wanted("a rate with its unit (bit, kbit, mbit or gbit a second), such as 10mbit"))
}

/// Bytes: `1500B`, `64kB`, `1MB`.
pub fn bytes(text: &str) -> Result<usize, Wanted> {
    let units = [("kB", 1e3), ("MB", 1e6), ("B", 1.0)];
    let bytes = scaled(text, &units).map(|bytes| bytes.round() as usize);
    bytes.ok_or(Wanted("a size with its unit (B, kB or MB), such as 64kB"))
}

/// A number that is not negative with one of the units, which are tried in this order.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let (number, scale) =
        units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let number: f64 = number.trim().parse().ok()?;
    Some(number * scale).filter(|value| value.is_finite() && *value >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_with_their_units() {
        let check = |text, micros| assert_eq!(duration(text), Ok(Duration::from_micros(micros)));
        check("800us", 800);
        check("20ms", 20_000);
        check("1.5 s", 1_500_000);
        check("2min", 120_000_000);
        check("2m", 120_000_000);
        check("2.5 min", 150_000_000);
        check("1h", 3_600_000_000);
        check(" 250\u{b5}s", 250);
        check("250 \u{3bc}s ", 250);
        check("2000ns", 2);
        check("30S", 30_000_000);
        check("0s", 0);
        assert_eq!((share("5%"), share("0.05"), share("100%")), (Ok(0.05), Ok(0.05), Ok(1.0)));
        assert_eq!((bit_rate("500kbit"), bit_rate("1.2mbit")), (Ok(500_000), Ok(1_200_000)));
        assert_eq!((bytes("1500B"), bytes("64kB")), (Ok(1500), Ok(64_000)));
    }

    #[test]
    fn others_are_refused_with_what_is_wanted() {
        for text in ["", "20", "ms", "-1ms", "1e400s", "nan s", "1h30m", "20 ms x", "6000000h"] {
            assert!(duration(text).expect_err(text).to_string().starts_with("must be a time"));
        }
        for text in ["", "101%", "-1%", "1.01", "nan", "x"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["", "10", "10mbps", "-1bit", "inf bit"] {
            assert!(bit_rate(text).is_err(), "{text}");
        }
        for text in ["", "10", "10kb"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
