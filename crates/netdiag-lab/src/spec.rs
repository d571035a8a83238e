//! What a link does to the packets of one direction, or of both.
//!
//! Invariant: a value here can be emulated; whatever cannot is refused where it is asked for.

use std::time::Duration;

use crate::loss::Loss;
use crate::queue::{Queue, QueueLength};
use crate::trace::Trace;

/// Longest delay: a packet that is a minute late is a lost one, and the emulator keeps them all in memory.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Slowest rate, bits/s: one full packet in twelve seconds. Below it TCP gives up before the link shows anything.
pub(crate) const SLOWEST_RATE: u64 = 1000;

/// One direction of a link. The default does nothing to the packets.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    delay: Duration,
    jitter: Duration,
    reordering: Reordering,
    loss: Loss,
    capacity: Capacity,
    queue: Queue,
    blackout: bool,
}

/// Packets that others overtake.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reordering {
    /// How many of all.
    pub(crate) share: f64,
    pub(crate) late_by: Duration,
}

/// Both directions of a link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplex {
    /// From the client to the server.
    pub up: LinkSpec,
    /// From the server to the client.
    pub down: LinkSpec,
}

/// What a link carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Capacity {
    #[default]
    Unlimited,
    /// Bits per second.
    Rate(u64),
    Trace(Trace),
}

/// A link that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// Longer than can be emulated.
    #[error(
        "delay {0:?} is above {LONGEST_DELAY:?}: for a link that carries nothing use a blackout"
    )]
    Delay(Duration),
    /// More than the delay it varies.
    #[error("jitter {jitter:?} is above the delay {delay:?} it varies: lower it, or delay more")]
    Jitter {
        /// The jitter, as given.
        jitter: Duration,
        /// The delay, as given.
        delay: Duration,
    },
    /// Not a probability.
    #[error("{name} {value} is not between 0 and 1")]
    Probability {
        /// Which one: `loss`, or a parameter of the Gilbert–Elliott model.
        name: &'static str,
        /// As given.
        value: f64,
    },
    /// Bursts that cannot make up the loss.
    #[error(
        "burst of {burst} packets at loss {share}: bursts have 1 packet or more on average, and lose at most burst / (1 + burst) \
         of all"
    )]
    Burst {
        /// Mean length, as given.
        burst: f64,
        /// Mean loss, as given.
        share: f64,
    },
    /// A Gilbert–Elliott model whose long run depends on where it begins.
    #[error("p and r are both 0: a link that stays good or bad for ever has independent losses")]
    Frozen,
    /// Slower than can be emulated.
    #[error(
        "rate {0} bit/s is below {SLOWEST_RATE} bit/s: for a link that carries nothing use a blackout"
    )]
    Rate(u64),
    /// A cellular link that the model has none for.
    #[error("mean {mean} bit/s of a cellular link: give {lowest} to {highest} bit/s")]
    CellularRate {
        /// As given.
        mean: u64,
        /// The least.
        lowest: u64,
        /// The most.
        highest: u64,
    },
    /// A queue without room for a packet, or with more than memory has.
    #[error(
        "queue of {0}: give 1 to 100000 packets, 1500 to 150000000 bytes, or up to 60 s of the link's rate"
    )]
    Queue(QueueLength),
}

impl LinkSpec {
    /// A link that delays every packet by `delay`.
    pub fn delayed(delay: Duration) -> Result<Self, InvalidSpec> {
        Self::default().with_delay(delay)
    }

    /// The same with every packet delayed by `delay`, which must not be below the jitter.
    pub fn with_delay(self, delay: Duration) -> Result<Self, InvalidSpec> {
        if delay > LONGEST_DELAY {
            return Err(InvalidSpec::Delay(delay));
        }
        let jitter = self.jitter;
        Self { delay, ..self }.with_jitter(jitter)
    }

    /// The same with the delay varying evenly by up to `jitter` to either side, anew every 20 ms. Order is kept: a packet that
    /// would overtake waits for the one before it, so that dense traffic is held longer on average than sparse one.
    pub fn with_jitter(self, jitter: Duration) -> Result<Self, InvalidSpec> {
        if jitter > self.delay {
            return Err(InvalidSpec::Jitter { jitter, delay: self.delay });
        }
        Ok(Self { jitter, ..self })
    }

    /// The same with each packet late by another `late_by` with probability `share`, so that those behind it overtake. Among
    /// themselves late packets keep their order.
    pub fn with_reordering(self, share: f64, late_by: Duration) -> Result<Self, InvalidSpec> {
        if !(0.0..=1.0).contains(&share) {
            return Err(InvalidSpec::Probability { name: "reordering", value: share });
        }
        if late_by > LONGEST_DELAY {
            return Err(InvalidSpec::Delay(late_by));
        }
        Ok(Self { reordering: Reordering { share, late_by }, ..self })
    }

    /// The same with each packet lost with probability `loss`, independently.
    pub fn with_loss(self, loss: f64) -> Result<Self, InvalidSpec> {
        Ok(Self { loss: Loss::independent(loss)?, ..self })
    }

    /// The same with the share `loss` of packets lost in bursts of `burst` packets on average: Gilbert's model (1960) with
    /// h = 0, r = 1/burst and p = r·loss/(1 − loss). The burst is at least one packet long, and the loss at most
    /// burst/(1 + burst), because there is a packet between two bursts.
    pub fn with_burst_loss(self, loss: f64, burst: f64) -> Result<Self, InvalidSpec> {
        Ok(Self { loss: Loss::bursts(loss, burst)?, ..self })
    }

    /// The same with losses by the model of Gilbert and Elliott (1963), per packet: `p` is the probability to go from the
    /// good to the bad state, `r` that to go back, `k` that a packet comes through in the good state, `h` in the bad one.
    pub fn with_gilbert_elliott(self, p: f64, r: f64, k: f64, h: f64) -> Result<Self, InvalidSpec> {
        Ok(Self { loss: Loss::gilbert_elliott(p, r, k, h)?, ..self })
    }

    /// The same at no more than `rate` bits per second of IP packets.
    pub fn with_rate(self, rate: u64) -> Result<Self, InvalidSpec> {
        if rate < SLOWEST_RATE {
            return Err(InvalidSpec::Rate(rate));
        }
        Ok(Self { capacity: Capacity::Rate(rate), ..self })
    }

    /// The same carrying what a recorded link did, over and over, from when the link becomes so.
    pub fn with_trace(self, trace: Trace) -> Self {
        Self { capacity: Capacity::Trace(trace), ..self }
    }

    /// The same with this queue before it. It is of use on a link of limited rate only.
    pub fn with_queue(self, queue: Queue) -> Self {
        Self { queue, ..self }
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

    /// The share of packets that is lost in the long run.
    pub fn loss(&self) -> f64 {
        self.loss.mean()
    }

    /// How many packets are lost in a row on average; 1 where none is.
    pub fn mean_burst(&self) -> f64 {
        self.loss.mean_burst()
    }

    /// Bits per second, on average where they change; `None` where they are not limited.
    pub fn rate(&self) -> Option<f64> {
        match self.capacity {
            Capacity::Unlimited => None,
            Capacity::Rate(_) | Capacity::Trace(_) => Some(self.capacity.mean_rate()),
        }
    }

    /// What waits before it where the rate is limited.
    pub fn queue(&self) -> Queue {
        self.queue
    }

    /// Whether nothing is carried at all.
    pub fn is_blackout(&self) -> bool {
        self.blackout
    }

    /// The same with its trace, if it has one, as if that had been playing for `time`.
    pub(crate) fn playing_from(self, time: Duration) -> Self {
        match self.capacity {
            Capacity::Trace(trace) => {
                Self { capacity: Capacity::Trace(trace.starting_at(time)), ..self }
            }
            _ => self,
        }
    }

    pub(crate) fn reordering(&self) -> Reordering {
        self.reordering
    }

    pub(crate) fn losses(&self) -> Loss {
        self.loss
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.capacity
    }
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reordering: Reordering::default(),
            loss: Loss::NONE,
            capacity: Capacity::Unlimited,
            queue: Queue::default(),
            blackout: false,
        }
    }
}

impl Duplex {
    /// Both directions as [`LinkSpec::playing_from`].
    pub(crate) fn playing_from(self, time: Duration) -> Self {
        Self { up: self.up.playing_from(time), down: self.down.playing_from(time) }
    }
}

impl From<&LinkSpec> for LinkSpec {
    fn from(spec: &LinkSpec) -> Self {
        spec.clone()
    }
}

impl From<LinkSpec> for Duplex {
    fn from(spec: LinkSpec) -> Self {
        Self { up: spec.clone(), down: spec }
    }
}

impl From<&LinkSpec> for Duplex {
    fn from(spec: &LinkSpec) -> Self {
        spec.clone().into()
    }
}

impl From<&Duplex> for Duplex {
    fn from(spec: &Duplex) -> Self {
        spec.clone()
    }
}

impl Capacity {
    /// Bits per second; infinite where they are not limited.
    pub(crate) fn mean_rate(&self) -> f64 {
        match self {
            Self::Unlimited => f64::INFINITY,
            Self::Rate(rate) => *rate as f64,
            Self::Trace(trace) => trace.mean_rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Discipline;

    #[test]
    fn impossible_links_are_named() {
        let ms = Duration::from_millis;
        let link = || LinkSpec::delayed(ms(10)).expect("possible");
        let text =
            |result: Result<LinkSpec, InvalidSpec>| result.expect_err("impossible").to_string();
        let check = |result, expected: &str| {
            let text = text(result);
            assert!(text.starts_with(expected), "{text}");
        };
        check(LinkSpec::delayed(ms(60_001)), "delay 60.001s is above 60s: for");
        check(link().with_jitter(ms(11)), "jitter 11ms is above the delay 10ms it varies: lower");
        let jittery = link().with_jitter(ms(10)).expect("possible");
        check(jittery.with_delay(ms(9)), "jitter 10ms is above the delay 9ms it varies: lower");
        check(link().with_loss(1.01), "loss 1.01 is not between 0 and 1");
        check(link().with_loss(f64::NAN), "loss NaN is not between 0 and 1");
        check(link().with_reordering(-0.1, ms(1)), "reordering -0.1 is not between 0 and 1");
        check(link().with_reordering(0.1, ms(60_001)), "delay 60.001s is above 60s: for");
        check(link().with_burst_loss(0.9, 2.0), "burst of 2 packets at loss 0.9: bursts");
        check(link().with_rate(0), "rate 0 bit/s is below 1000 bit/s: for");
        assert!(link().blackout().is_blackout());
    }

    #[test]
    fn queues_have_room_for_a_packet_and_for_no_more_than_memory() {
        let check = |length, expected: &str| {
            let error = Queue::try_new(Discipline::CoDel, length).expect_err("impossible");
            assert!(error.to_string().starts_with(expected), "{error}");
        };
        check(QueueLength::Packets(0), "queue of 0 packets: give 1 to 100000 packets");
        check(QueueLength::Packets(100_001), "queue of 100001 packets: ");
        check(QueueLength::Bytes(1499), "queue of 1499 bytes: ");
        check(QueueLength::Time(Duration::ZERO), "queue of 0ns: ");
        check(QueueLength::Time(Duration::from_secs(61)), "queue of 61s: ");
    }
}
