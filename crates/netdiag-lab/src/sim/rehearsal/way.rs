//! One direction of a link whose properties follow a schedule, in virtual time: when a packet arrives, if it does.
//!
//! It is [`crate::emulator`] without threads: queue, then rate or trace, jitter, delay, loss, each as the schedule has it when the packet
//! comes to it, and chance from the same seeds. So a loss that hits the n-th packet of a phase there hits it here.
//!
//! | the emulator | here | why |
//! | --- | --- | --- |
//! | drops from the tail, from the head, or as CoDel does | from the tail | token streams seldom fill a queue |
//! | some packets are overtaken where a link says so | none | no scenario can ask for it |
//!
//! Invariant: packets come in order of time, and arrive in the order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;

use super::super::Micros;
use crate::jitter;
use crate::loss::Losses;
use crate::spec::{Capacity, LinkSpec};
use crate::trace::{OPPORTUNITY, Trace};

/// A direction, and what is on it.
#[derive(Debug)]
pub(super) struct Way {
    steps: Vec<Step>,
    /// Of those that wait or are being sent, when they are out, and their bytes.
    waiting: VecDeque<(Micros, usize)>,
    waiting_bytes: usize,
    last_arrival: Micros,
}

/// What holds from a time on.
#[derive(Debug)]
struct Step {
    from: Micros,
    sender: Sender,
    most_packets: usize,
    most_bytes: usize,
    delay: Micros,
    jitter: (Duration, u64),
    losses: Losses,
}

#[derive(Debug)]
enum Sender {
    Unlimited,
    /// Microseconds a byte.
    Rate(f64),
    Trace {
        trace: Trace,
        /// The opportunity that is being used, and what is left of it.
        current: u64,
        left: u32,
    },
}

impl Way {
    /// As `specs` say, each from its time on, the first from the beginning. `seed` is the lab's for this direction.
    pub(super) fn new<'s>(
        specs: impl IntoIterator<Item = (Duration, &'s LinkSpec)>,
        seed: u64,
    ) -> Self {
        let mut seeds = SplitMix64::seed_from_u64(seed);
        // The lab sets up its links before their schedule begins, which is a change of its own.
        draw(&mut seeds);
        let step = |(from, spec): (Duration, &LinkSpec)| Step::new(from, spec, draw(&mut seeds));
        Self {
            steps: specs.into_iter().map(step).collect(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_arrival: 0,
        }
    }

    /// When a packet of `bytes` that comes at `now` arrives; `None`: never.
    pub(super) fn send(&mut self, now: Micros, bytes: usize) -> Option<Micros> {
        while let Some(&(_, bytes)) = self.waiting.front().filter(|(out, _)| *out <= now) {
            self.waiting.pop_front();
            self.waiting_bytes -= bytes;
        }
        let step = self.at(now)?;
        // The one that is being sent waits no more.
        let queued = self.waiting.len().saturating_sub(1);
        let queued_bytes = self.waiting_bytes - self.waiting.front().map_or(0, |(_, bytes)| *bytes);
        let Step { most_packets, most_bytes, .. } = &self.steps[step];
        let is_full = queued + 1 > *most_packets || queued_bytes + bytes > *most_bytes;
        if !self.waiting.is_empty() && is_full {
            return None;
        }
        let start = self.waiting.back().map_or(now, |(out, _)| (*out).max(now));
        let out = self.serve(start, bytes)?;
        self.waiting.push_back((out, bytes));
        self.waiting_bytes += bytes;
        let step = &self.steps[self.at(out)?];
        let (spread, seed) = step.jitter;
        let held = jitter::held(spread, seed, Duration::from_micros(out - step.from));
        let arrival = (out + held.as_micros() as Micros + step.delay).max(self.last_arrival);
        self.last_arrival = arrival;
        let step = self.at(arrival)?;
        (!self.steps[step].losses.takes_next()).then_some(arrival)
    }

    /// When a packet is out whose turn comes at `start`. If the link changes meanwhile, no later than it would have been.
    fn serve(&mut self, start: Micros, bytes: usize) -> Option<Micros> {
        let mut number = self.at(start)?;
        let mut out = self.steps[number].serve(start, bytes);
        while let Some(next) = self.steps.get_mut(number + 1).filter(|next| next.from < out) {
            out = out.min(next.serve(next.from, bytes));
            number += 1;
        }
        Some(out)
    }

    /// The step at `time`; `None` only of a way without any.
    fn at(&self, time: Micros) -> Option<usize> {
        self.steps.partition_point(|step| step.from <= time).checked_sub(1)
    }
}

/// The seeds of a change: for jitter, for who is late, and for losses.
fn draw(seeds: &mut SplitMix64) -> [u64; 3] {
    std::array::from_fn(|_| seeds.next_u64())
}

impl Step {
    fn new(from: Duration, spec: &LinkSpec, [jitter, _, losses]: [u64; 3]) -> Self {
        let sender = match spec.capacity() {
            Capacity::Unlimited => Sender::Unlimited,
            Capacity::Rate(rate) => Sender::Rate(8e6 / *rate as f64),
            Capacity::Trace(trace) => Sender::Trace {
                current: trace.first_from(trace.offset()),
                trace: trace.clone(),
                left: OPPORTUNITY,
            },
        };
        let (packets, bytes) = spec.queue().limits(spec.capacity().mean_rate());
        Self {
            from: from.as_micros() as Micros,
            sender,
            most_packets: packets.unwrap_or(usize::MAX),
            most_bytes: bytes.unwrap_or(usize::MAX),
            delay: spec.delay().saturating_sub(spec.jitter()).as_micros() as Micros,
            jitter: (2 * spec.jitter(), jitter),
            losses: match spec.is_blackout() {
                true => Losses::blackout(),
                false => Losses::new(spec.losses(), losses),
            },
        }
    }

    fn serve(&mut self, start: Micros, bytes: usize) -> Micros {
        match &mut self.sender {
            Sender::Unlimited => start,
            Sender::Rate(per_byte) => start + (bytes as f64 * *per_byte) as Micros,
            Sender::Trace { trace, current, left } => {
                let ms = trace.offset() + (start - self.from).div_ceil(1000);
                if trace.time_of(*current) < ms {
                    *current = trace.first_from_near(*current, ms);
                    *left = OPPORTUNITY;
                }
                let mut bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                while bytes > *left {
                    bytes -= *left;
                    *current += 1;
                    *left = OPPORTUNITY;
                }
                *left -= bytes;
                self.from + (trace.time_of(*current) - trace.offset()) * 1000
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn delayed(ms: u32) -> LinkSpec {
        LinkSpec::delayed(MS * ms).expect("possible")
    }

    #[test]
    fn packets_meet_the_link_as_it_is_when_they_come_to_it() {
        let (slow, dark) = (delayed(10).with_rate(8000).expect("possible"), delayed(10).blackout());
        let mut way =
            Way::new([(Duration::ZERO, &slow), (MS * 5000, &dark), (MS * 8000, &delayed(1))], 1);
        // A byte takes a millisecond.
        assert_eq!(way.send(0, 100), Some(110_000));
        assert_eq!(way.send(0, 100), Some(210_000));
        assert_eq!(way.send(4_950_000, 20), Some(4_980_000));
        assert_eq!(way.send(4_995_000, 0), None, "it would arrive in the dark");
        assert_eq!(way.send(5_100_000, 0), None);
        assert_eq!(way.send(8_100_000, 0), Some(8_101_000));
    }

    #[test]
    fn what_is_being_sent_when_the_link_gets_faster_is_out_sooner() {
        let (slow, fast) = (delayed(0).with_rate(8000), delayed(0).with_rate(8_000_000));
        let (slow, fast) = (slow.expect("possible"), fast.expect("possible"));
        let mut way = Way::new([(Duration::ZERO, &slow), (MS * 100, &fast)], 1);
        assert_eq!(way.send(0, 1000), Some(101_000));
        assert_eq!(way.send(0, 1000), Some(102_000));
    }

    #[test]
    fn a_full_queue_drops_what_comes() {
        use crate::queue::{Discipline, Queue, QueueLength};
        let queue = Queue::try_new(Discipline::DropTail, QueueLength::Packets(2)).expect("valid");
        let slow = delayed(0).with_rate(8000).expect("possible").with_queue(queue);
        let mut way = Way::new([(Duration::ZERO, &slow)], 1);
        // One is sent and two wait.
        let arrivals = [(); 4].map(|()| way.send(0, 100));
        assert_eq!(arrivals, [Some(100_000), Some(200_000), Some(300_000), None]);
        assert_eq!(way.send(100_000, 100), Some(400_000));
    }
}
