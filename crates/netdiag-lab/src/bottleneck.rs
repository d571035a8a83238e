//! The slowest hop of a direction: a queue, and a link that sends one packet after the other.
//!
//! The queues are rattan-core's, the link is ours:
//!
//! | rattan-core's `BwCell`, `BwReplayCell`       | here                              | why                                     |
//! | -------------------------------------------- | --------------------------------- | --------------------------------------- |
//! | a trace is a rate that changes               | a trace is opportunities to send  | it carried 7 to 44 % more than it should |
//! | panics where a trace falls silent on a packet | a packet waits for the next one   | recorded links are silent for seconds   |
//! | wakes up at each change of a trace           | sleeps while nothing waits        | a trace changes 500 times a second      |
//!
//! Invariant: reads no clock; packets say when they came, and leave with the time at which they should. By any time no more has
//! left than the capacity allows.

use std::time::Duration;

use rattan_core::cells::{Packet, StdPacket};
use tokio::time::Instant;

use crate::queue::Waiting;
use crate::spec::{Capacity, LinkSpec};
use crate::trace::{OPPORTUNITY, Trace};

/// The link and what waits for it.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    sender: Sender,
    waiting: Waiting,
    /// The packet that is being sent, and when it is out.
    sending: Option<(StdPacket, Instant)>,
    /// When the packet before it was.
    free: Instant,
}

impl Bottleneck {
    /// As `spec` says, empty.
    pub(crate) fn new(spec: &LinkSpec, now: Instant) -> Self {
        Self {
            sender: Sender::new(spec.capacity(), now),
            waiting: Waiting::new(spec.queue(), spec.capacity().mean_rate()),
            sending: None,
            free: now,
        }
    }

    /// Becomes as `spec` says; a trace begins anew. What waits goes on waiting as far as there is room, and the packet that is
    /// being sent is out no later than it would have been.
    pub(crate) fn set(&mut self, spec: &LinkSpec, now: Instant) {
        let mut before = std::mem::replace(self, Self::new(spec, now));
        self.waiting.take_over(&mut before.waiting);
        self.sending = before.sending.map(|(packet, out)| {
            let again = self.sender.send(now, packet.l3_length());
            (packet, out.min(again))
        });
    }

    /// A packet comes.
    pub(crate) fn arrive(&mut self, packet: StdPacket) {
        match self.sending {
            None => self.send(packet),
            Some(_) => self.waiting.enqueue(packet),
        }
    }

    /// When the next packet is out.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.sending.as_ref().map(|(_, out)| *out)
    }

    /// The next packet that is out by `now`, with the time at which it was.
    pub(crate) fn depart(&mut self, now: Instant) -> Option<StdPacket> {
        let (mut packet, out) = self.sending.take_if(|(_, out)| *out <= now)?;
        packet.delay_until(out);
        self.free = out;
        if let Some(next) = self.waiting.dequeue() {
            self.send(next);
        }
        Some(packet)
    }

    fn send(&mut self, packet: StdPacket) {
        let start = self.free.max(packet.get_timestamp());
        let out = self.sender.send(start, packet.l3_length());
        self.sending = Some((packet, out));
    }
}

/// How packets get out one after the other.
#[derive(Debug)]
enum Sender {
    Unlimited,
    /// Bits per second.
    Rate(u64),
    Trace(Playing),
}

impl Sender {
    fn new(capacity: &Capacity, now: Instant) -> Self {
        match capacity {
            Capacity::Unlimited => Self::Unlimited,
            Capacity::Rate(rate) => Self::Rate(*rate),
            Capacity::Trace(trace) => Self::Trace(Playing {
                trace: trace.clone(),
                since: now,
                current: trace.first_from(trace.offset()),
                left: OPPORTUNITY,
            }),
        }
    }

    /// When a packet of `bytes` is out whose turn comes at `start`.
    fn send(&mut self, start: Instant, bytes: usize) -> Instant {
        match self {
            Self::Unlimited => start,
            Self::Rate(rate) => start + Duration::from_secs_f64(bytes as f64 * 8.0 / *rate as f64),
            Self::Trace(playing) => playing.send(start, bytes),
        }
    }
}

/// A trace being played. As in Mahimahi, packets share an opportunity or take several, and what no packet takes is lost.
#[derive(Debug)]
struct Playing {
    trace: Trace,
    since: Instant,
    /// The opportunity that is being used.
    current: u64,
    /// Bytes of it that are not used yet.
    left: u32,
}

impl Playing {
    fn send(&mut self, start: Instant, bytes: usize) -> Instant {
        let start = start.duration_since(self.since);
        // An opportunity lasts for an instant: the first that is not over.
        let start = self.trace.offset() + start.as_nanos().div_ceil(1_000_000) as u64;
        if self.trace.time_of(self.current) < start {
            self.current = self.trace.first_from(start);
            self.left = OPPORTUNITY;
        }
        let mut bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        while bytes > self.left {
            bytes -= self.left;
            self.current += 1;
            self.left = OPPORTUNITY;
        }
        self.left -= bytes;
        let since = self.trace.time_of(self.current) - self.trace.offset();
        self.since + Duration::from_millis(since)
    }
}

#[cfg(test)]
mod tests;
