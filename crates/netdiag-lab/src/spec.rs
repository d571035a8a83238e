//! What a link does to the packets of one direction.

use std::time::Duration;

/// Longest delay: a packet that is a minute late is a lost one, and the emulator keeps them all in memory.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Slowest rate, bits/s: one full packet in twelve seconds. Below it TCP gives up before the link shows anything.
const SLOWEST_RATE: u64 = 1000;

/// One direction of a link. The default does nothing to the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkSpec {
    delay: Duration,
    jitter: Duration,
    loss: f64,
    rate: Option<u64>,
    blackout: bool,
}

/// A link that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSpec {
    /// Longer than can be emulated.
    #[error("delay {0:?} is above {LONGEST_DELAY:?}")]
    Delay(Duration),
    /// More than the delay it varies.
    #[error("jitter {jitter:?} is above the delay {delay:?} it varies")]
    Jitter {
        /// The jitter, as given.
        jitter: Duration,
        /// The delay, as given.
        delay: Duration,
    },
    /// Not a probability.
    #[error("loss {0} is not between 0 and 1")]
    Loss(f64),
    /// Slower than can be emulated.
    #[error(
        "rate {0} bit/s is below {SLOWEST_RATE} bit/s (for a link that carries nothing, use a blackout)"
    )]
    Rate(u64),
}

impl LinkSpec {
    /// A link that delays every packet by `delay`.
    pub fn delayed(delay: Duration) -> Result<Self, InvalidSpec> {
        if delay > LONGEST_DELAY {
            return Err(InvalidSpec::Delay(delay));
        }
        Ok(Self { delay, ..Self::default() })
    }

    /// The same with the delay varying evenly by up to `jitter` to either side. Order is kept.
    pub fn with_jitter(self, jitter: Duration) -> Result<Self, InvalidSpec> {
        if jitter > self.delay {
            return Err(InvalidSpec::Jitter { jitter, delay: self.delay });
        }
        Ok(Self { jitter, ..self })
    }

    /// The same with each packet lost with probability `loss`, independently.
    pub fn with_loss(self, loss: f64) -> Result<Self, InvalidSpec> {
        if !(0.0..=1.0).contains(&loss) {
            return Err(InvalidSpec::Loss(loss));
        }
        Ok(Self { loss, ..self })
    }

    /// The same at no more than `rate` bits per second of IP packets, with a queue of 1000 packets before it.
    pub fn with_rate(self, rate: u64) -> Result<Self, InvalidSpec> {
        if rate < SLOWEST_RATE {
            return Err(InvalidSpec::Rate(rate));
        }
        Ok(Self { rate: Some(rate), ..self })
    }

    /// The same, carrying nothing.
    pub fn blackout(self) -> Self {
        Self { blackout: true, ..self }
    }

    /// How long a packet is under way.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// How far the delay varies to either side.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// The probability that a packet is lost.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// Bits per second, if they are limited.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether nothing is carried at all.
    pub fn is_blackout(&self) -> bool {
        self.blackout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_links_are_named() {
        let ms = Duration::from_millis;
        let link = LinkSpec::delayed(ms(10)).expect("possible");
        let text =
            |result: Result<LinkSpec, InvalidSpec>| result.expect_err("impossible").to_string();
        assert_eq!(text(LinkSpec::delayed(ms(60_001))), "delay 60.001s is above 60s");
        assert_eq!(text(link.with_jitter(ms(11))), "jitter 11ms is above the delay 10ms it varies");
        assert_eq!(text(link.with_loss(1.01)), "loss 1.01 is not between 0 and 1");
        assert_eq!(text(link.with_loss(f64::NAN)), "loss NaN is not between 0 and 1");
        assert!(text(link.with_rate(0)).starts_with("rate 0 bit/s is below"));
        assert!(link.blackout().is_blackout());
    }
}
