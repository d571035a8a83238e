//! Units that are easy to mix up, as types. Bare numbers appear only at the edges (BPF maps, CSV, JSON),
//! where the unit stands in the name.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Tokens per second. Always finite and above zero, so that its reciprocal is a valid sleep.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Tps(f64);

/// A token rate that is not a finite number above zero, or too small for its interval to be a duration.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("token rate {0} is not between {min} and {max} tokens/s", min = Tps::LOWEST, max = Tps::HIGHEST)]
pub struct InvalidTps(pub f64);

impl Tps {
    /// The lowest rate that can be expressed: one token in about eleven days. Below it the interval between
    /// two tokens stops being a useful [`Duration`].
    pub const LOWEST: f64 = 1e-6;
    /// The highest rate that can be expressed: one token per microsecond, the resolution of our clocks.
    pub const HIGHEST: f64 = 1e6;

    /// A rate in tokens per second.
    pub fn try_new(tokens_per_second: f64) -> Result<Self, InvalidTps> {
        if (Self::LOWEST..=Self::HIGHEST).contains(&tokens_per_second) {
            Ok(Self(tokens_per_second))
        } else {
            Err(InvalidTps(tokens_per_second))
        }
    }

    /// The rate as a number, tokens per second.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The time between two tokens at this rate.
    pub fn interval(self) -> Duration {
        Duration::from_secs_f64(self.seconds_per_token())
    }

    /// The same in seconds, exactly 1 / rate.
    pub fn seconds_per_token(self) -> f64 {
        1.0 / self.0
    }
}

impl TryFrom<f64> for Tps {
    type Error = InvalidTps;
    fn try_from(value: f64) -> Result<Self, InvalidTps> {
        Self::try_new(value)
    }
}

impl From<Tps> for f64 {
    fn from(value: Tps) -> f64 {
        value.0
    }
}

impl fmt::Display for Tps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Tps {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let value: f64 =
            text.parse().map_err(|_| format!("`{text}` is not a number of tokens per second"))?;
        Self::try_new(value).map_err(|error| error.to_string())
    }
}

/// A count of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_outside_the_range_do_not_exist() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-9, 1e9] {
            assert!(Tps::try_new(bad).is_err(), "{bad} was accepted");
        }
        assert!("fast".parse::<Tps>().is_err());
        assert_eq!("40".parse::<Tps>().map(Tps::get), Ok(40.0));
    }

    #[test]
    fn interval_is_the_reciprocal() {
        let rate = Tps::try_new(40.0).expect("valid");
        assert_eq!(rate.interval(), Duration::from_millis(25));
    }
}
