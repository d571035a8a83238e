//! A fault, and how `tc` is told of it.
//!
//! Pure: a test here reads the very words that a kernel elsewhere is given. Invariant: every word states the whole fault,
//! because `tc qdisc change` leaves in force what it is not told (netem keeps its rate).

use std::fmt;
use std::time::Duration;

use super::values::{BitRate, Percent, time};

/// The rate that stands for none: faster than any link to come, and the largest whole number of gigabits whose bytes fit
/// the 32 bits that `tc` and the kernel have for it without an extension.
///
/// netem is always given a rate. Without one it sorts packets by the time at which they are due, so jitter would reorder
/// them, which is another fault and one that TCP takes for loss; with one, a packet never leaves before the one ahead of it
/// (`netem_enqueue`, `net/sched/sch_netem.c`).
const UNLIMITED: BitRate = BitRate::HIGHEST;

/// How long a queue in front of a limited rate may get: bufferbloat that a person notices and TCP survives.
const QUEUE: Duration = Duration::from_millis(400);

/// The shortest queue, packets: TCP's initial window, which slow rates would otherwise always cut.
const SHORTEST_QUEUE: u64 = 10;

/// The longest queue, packets: the kernel's own default, of netem as of an Ethernet interface.
const LONGEST_QUEUE: u64 = 1000;

/// What a delay is given room for where no rate is asked for: packets that are under way at this rate. More are lost.
const DELAYED_RATE: BitRate = BitRate::gbit(1);

/// The most packets that may be under way. They wait in kernel memory, some two kilobytes each.
const MOST_UNDER_WAY: u64 = 1_000_000;

/// What a token bucket may send at once: this long at its rate, which a timer that comes late cannot use up.
const BURST: Duration = Duration::from_millis(4);

/// The header of a frame, which an interface's MTU leaves out, with a VLAN tag.
const FRAME_HEADER: u64 = 18;

/// What is done to the packets that leave an interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    delay: Duration,
    /// At most `delay`.
    jitter: Duration,
    loss: Percent,
    rate: Option<BitRate>,
}

impl Fault {
    /// Packets are delivered as if nobody meddled.
    pub(crate) const CALM: Self =
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: Percent::NONE, rate: None };

    /// Also delays every packet by `delay`, give or take up to `jitter`; `None` if that could be less than nothing.
    pub(crate) fn delayed(self, delay: Duration, jitter: Duration) -> Option<Self> {
        (jitter <= delay).then_some(Self { delay, jitter, ..self })
    }

    /// Also loses this share of packets.
    pub(crate) fn losing(self, loss: Percent) -> Self {
        Self { loss, ..self }
    }

    /// Also sends no faster than this.
    pub(crate) fn limited(self, rate: BitRate) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Whether a token bucket is not enough for it.
    pub(crate) fn needs_netem(&self) -> bool {
        !self.delay.is_zero() || self.loss != Percent::NONE
    }
}

/// What is done, by the names of the flags that ask for it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.delay.is_zero() {
            parts.push(format!("delay {}", time(self.delay)));
        }
        if !self.jitter.is_zero() {
            parts.push(format!("jitter {}", time(self.jitter)));
        }
        if self.loss != Percent::NONE {
            parts.push(format!("loss {}", self.loss));
        }
        parts.extend(self.rate.map(|rate| format!("rate {rate}")));
        if parts.is_empty() { f.write_str("calm") } else { f.write_str(&parts.join(", ")) }
    }
}

/// The kernel's queueing disciplines that do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discipline {
    /// Every fault.
    Netem,
    /// Rates only.
    Tbf,
}

impl Discipline {
    /// As `tc` and the kernel's modules (`sch_netem`) name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Netem => "netem",
            Self::Tbf => "tbf",
        }
    }

    /// The words that tell `tc qdisc add` and `change` of `fault`, on an interface that takes packets of up to `mtu` bytes.
    pub(crate) fn words(self, fault: &Fault, mtu: u32) -> String {
        let packet = u64::from(mtu) + FRAME_HEADER;
        let rate = fault.rate.unwrap_or(UNLIMITED);
        let queue = rate.bytes_in(QUEUE) / packet;
        let queue = queue.clamp(SHORTEST_QUEUE, LONGEST_QUEUE);
        match self {
            Self::Netem => {
                let Fault { delay, jitter, loss, .. } = fault;
                let under_way = fault.rate.unwrap_or(DELAYED_RATE).bytes_in(*delay + *jitter);
                let limit = queue + (under_way / packet).min(MOST_UNDER_WAY);
                format!(
                    "netem limit {limit} delay {}us {}us loss {}% rate {}bit",
                    delay.as_micros(),
                    jitter.as_micros(),
                    loss.get(),
                    rate.get(),
                )
            }
            // A packet larger than the bucket would be lost, and one as large as it wait for a timer each time.
            Self::Tbf => {
                let burst = rate.bytes_in(BURST).max(2 * packet);
                format!("tbf rate {}bit burst {burst} limit {}", rate.get(), burst + queue * packet)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn delayed(delay: u64, jitter: u64) -> Fault {
        Fault::CALM.delayed(MS(delay), MS(jitter)).expect("a possible delay")
    }

    fn percent(percent: f64) -> Percent {
        Percent::try_new(percent).expect("a percentage")
    }

    #[test]
    fn netem_is_told_everything() {
        let check = |fault: Fault, mtu: u32, expected: &str| {
            assert_eq!(Discipline::Netem.words(&fault, mtu), expected);
        };
        let calm = "netem limit 1000 delay 0us 0us loss 0% rate 32000000000bit";
        check(Fault::CALM, 1500, calm);
        // 1 Gbit/s for 100 ms are 8234 packets of 1518 bytes.
        let delay = "netem limit 9234 delay 100000us 0us loss 0% rate 32000000000bit";
        check(delayed(100, 0), 1500, delay);
        let jitter = "netem limit 9234 delay 80000us 20000us loss 0% rate 32000000000bit";
        check(delayed(80, 20), 1500, jitter);
        let loss = "netem limit 1000 delay 0us 0us loss 2.5% rate 32000000000bit";
        check(Fault::CALM.losing(percent(2.5)), 1500, loss);
        // 400 ms at 1 Mbit/s are 32 packets; delay and jitter have 9 more under way.
        let all = "netem limit 41 delay 100000us 20000us loss 5% rate 1000000bit";
        check(delayed(100, 20).losing(percent(5.0)).limited(BitRate::kbit(1000)), 1500, all);
        let slow = "netem limit 10 delay 0us 0us loss 0% rate 64000bit";
        check(Fault::CALM.limited(BitRate::kbit(64)), 1500, slow);
        // A minute under way is more than there should be room for.
        let long = "netem limit 1001000 delay 60000000us 0us loss 0% rate 32000000000bit";
        check(delayed(60_000, 0), 1500, long);
    }

    #[test]
    fn a_token_bucket_takes_the_largest_packet() {
        let check = |rate: Option<BitRate>, mtu: u32, expected: &str| {
            let fault = Fault { rate, ..Fault::CALM };
            assert_eq!(Discipline::Tbf.words(&fault, mtu), expected);
        };
        let slow = "tbf rate 1000000bit burst 3036 limit 51612";
        check(Some(BitRate::kbit(1000)), 1500, slow);
        let jumbo = "tbf rate 1000000bit burst 18036 limit 108216";
        check(Some(BitRate::kbit(1000)), 9000, jumbo);
        let fast = "tbf rate 1000000000bit burst 500000 limit 2018000";
        check(Some(BitRate::gbit(1)), 1500, fast);
        check(None, 1500, "tbf rate 32000000000bit burst 16000000 limit 17518000");
    }

    #[test]
    fn faults_are_named_with_their_units() {
        let check = |fault: Fault, expected: &str, netem: bool| {
            assert_eq!((fault.to_string().as_str(), fault.needs_netem()), (expected, netem));
        };
        check(Fault::CALM, "calm", false);
        check(delayed(100, 0), "delay 100 ms", true);
        check(delayed(100, 20).losing(percent(5.0)), "delay 100 ms, jitter 20 ms, loss 5 %", true);
        check(Fault::CALM.limited(BitRate::kbit(1500)), "rate 1.5 Mbit/s", false);
    }

    #[test]
    fn no_packet_leaves_before_it_came() {
        assert_eq!(Fault::CALM.delayed(MS(10), MS(11)), None);
        assert!(Fault::CALM.delayed(MS(10), MS(10)).is_some());
    }
}
