//! A client's link in virtual time: when a packet that is sent now arrives, if it does.
//!
//! Each client has its link to itself, and packets keep their order. So what becomes of a packet is known when it is sent, and a
//! packet costs one event, its ACK. Traces are played as [`crate::bottleneck`] plays them: packets share opportunities, and what
//! no packet takes is lost.
//!
//! | a real link | here | why |
//! | --- | --- | --- |
//! | ACKs queue and are lost | they wait for the trace's next opportunity and are never lost | they are few and small, and cumulative; but where the radio is silent it is so both ways |
//! | what is sent while it is out is lost or held | an outage loses it, a silence of the trace holds it | both are seen in recordings: handovers lose, radio schedulers hold |
//!
//! Invariant: arrivals are in the order in which packets are sent; the link's future is asked for by nobody but the oracle.

use std::collections::VecDeque;

use super::Micros;
use crate::loss::Losses;
use crate::trace::{OPPORTUNITY, Trace};

/// Packets that wait before one more is dropped. Cellular base stations hold seconds of traffic (Jiang et al., "Tackling
/// Bufferbloat in 3G/4G Networks", IMC 2012); a token stream seldom comes near.
const QUEUE: usize = 1000;

/// How packets get out.
#[derive(Clone, Debug)]
pub(super) enum Capacity {
    /// Microseconds a byte.
    Rate(f64),
    Trace(Trace),
}

/// What every packet needs first: a [`Stream`](super::stream::Stream) is laid out in cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Link {
    capacity: Capacity,
    /// The opportunity that is being used, and what is left of it.
    current: u64,
    left: u32,
    /// When the last packet is out.
    free: Micros,
    /// From when on the client is not there any more.
    gone: Micros,
    down: Micros,
    up: Micros,
    /// When those before the last one are out that are not yet.
    waiting: VecDeque<Micros>,
    /// When it loses everything, in order.
    outages: Vec<(Micros, Micros)>,
    losses: Option<Losses>,
}

impl Link {
    pub(super) fn new(capacity: Capacity, [down, up]: [Micros; 2], losses: Option<Losses>) -> Self {
        let current = match &capacity {
            Capacity::Rate(_) => 0,
            Capacity::Trace(trace) => trace.first_from(trace.offset()),
        };
        Self {
            capacity,
            current,
            left: OPPORTUNITY,
            down,
            up,
            losses,
            outages: Vec::new(),
            free: 0,
            waiting: VecDeque::new(),
            gone: Micros::MAX,
        }
    }

    /// The same, losing everything in these spans, which are in order.
    pub(super) fn with_outages(self, outages: Vec<(Micros, Micros)>) -> Self {
        Self { outages, ..self }
    }

    /// The client vanishes: nothing reaches it or comes from it any more.
    pub(super) fn cut_at(&mut self, gone: Micros) {
        self.gone = gone;
    }

    /// When a packet of `bytes` reaches the client; `None`: never.
    pub(super) fn send(&mut self, now: Micros, bytes: u32) -> Option<Micros> {
        let is_free = self.free <= now;
        if is_free {
            // All of them are out, and there is no need to look.
            self.waiting.clear();
        } else {
            while self.waiting.front().is_some_and(|out| *out <= now) {
                self.waiting.pop_front();
            }
        }
        if self.waiting.len() + usize::from(!is_free) >= QUEUE || self.is_out(now) {
            return None;
        }
        if !is_free {
            self.waiting.push_back(self.free);
        }
        let start = now.max(self.free);
        self.free = match &self.capacity {
            Capacity::Rate(per_byte) => start + (f64::from(bytes) * per_byte) as Micros,
            Capacity::Trace(_) => self.play(start, bytes),
        };
        let arrival = self.free.saturating_add(self.down);
        let lost = self.losses.as_mut().is_some_and(Losses::takes_next);
        (!lost && arrival < self.gone && !self.is_out(arrival)).then_some(arrival)
    }

    /// When the ACK of what arrived at `arrival` is back.
    pub(super) fn answer(&self, arrival: Micros) -> Micros {
        self.opportunity(arrival).saturating_add(self.up)
    }

    /// When a packet that were sent now would arrive: the future, for the oracle's eyes only. `Micros::MAX`: never.
    pub(super) fn foresee(&self, now: Micros) -> Micros {
        let start = now.max(self.free);
        let out = self.outages.iter().find(|(from, to)| (*from..*to).contains(&start));
        let start = out.map_or(start, |(_, to)| *to);
        let arrival = self.opportunity(start).saturating_add(self.down);
        if arrival < self.gone { arrival } else { Micros::MAX }
    }

    /// The longest silence that begins within `window` from now: the future, too.
    pub(super) fn foresee_silence(&self, now: Micros, window: Micros) -> Micros {
        let span = now..now.saturating_add(window);
        let outages = self.outages.iter().filter(|(from, _)| span.contains(from));
        let outage = outages.map(|(from, to)| to - from).max().unwrap_or(0);
        let Capacity::Trace(trace) = &self.capacity else { return outage };
        let (mut number, end) =
            (trace.first_from_near(self.current, trace.offset() + now / 1000), window / 1000);
        let (mut longest, from) = (0, trace.offset() + now / 1000);
        let mut at = trace.time_of(number);
        while at < from + end {
            number += 1;
            let next = trace.time_of(number);
            longest = longest.max(next - at);
            at = next;
        }
        outage.max(longest * 1000)
    }

    /// Something of each cache line that a packet touches.
    pub(super) fn touch(&self) -> u64 {
        self.current ^ self.outages.len() as u64 ^ self.losses.as_ref().map_or(0, Losses::touch)
    }

    /// And of what these point to.
    pub(super) fn touch_trace(&self) -> u64 {
        let Capacity::Trace(trace) = &self.capacity else { return 0 };
        trace.time_of(self.current)
    }

    /// How long a packet takes there and back where nothing is in its way.
    pub(super) fn round_trip(&self) -> Micros {
        self.down + self.up
    }

    fn is_out(&self, at: Micros) -> bool {
        self.outages.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    fn opportunity(&self, from: Micros) -> Micros {
        let Capacity::Trace(trace) = &self.capacity else { return from };
        let ms = trace.offset() + from.div_ceil(1000);
        let at = trace.time_of(trace.first_from_near(self.current, ms));
        (at - trace.offset()) * 1000
    }

    fn play(&mut self, start: Micros, bytes: u32) -> Micros {
        let Capacity::Trace(trace) = &self.capacity else { return start };
        let ms = trace.offset() + start.div_ceil(1000);
        let next = trace.first_from_near(self.current, ms);
        if next != self.current {
            (self.current, self.left) = (next, OPPORTUNITY);
        }
        let mut bytes = bytes;
        while bytes > self.left {
            bytes -= self.left;
            self.current += 1;
            self.left = OPPORTUNITY;
        }
        self.left -= bytes;
        (trace.time_of(self.current) - trace.offset()) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(capacity: Capacity) -> Link {
        Link::new(capacity, [10_000, 20_000], None)
    }

    #[test]
    fn a_rate_sends_one_packet_after_the_other() {
        // 1 byte a microsecond.
        let mut link = link(Capacity::Rate(1.0));
        assert_eq!(link.send(0, 1000), Some(11_000));
        assert_eq!(link.send(0, 500), Some(11_500));
        assert_eq!(link.send(5_000, 500), Some(15_500));
        assert_eq!(link.answer(11_000), 31_000);
        for _ in 0..QUEUE {
            link.send(6_000, 1000);
        }
        assert_eq!(link.send(6_000, 1000), None);
    }

    #[test]
    fn a_trace_holds_what_it_cannot_send_and_answers_wait_for_it_too() {
        let trace = Trace::parse(b"1\n1\n500\n502\n").expect("a trace");
        let mut link = link(Capacity::Trace(trace));
        assert_eq!(link.send(0, 1000), Some(11_000));
        // Half an opportunity is left, and the next is used for the rest.
        assert_eq!(link.send(0, 1000), Some(11_000));
        assert_eq!(link.send(0, 1500), Some(510_000));
        assert_eq!(link.foresee(501_000), 512_000);
        assert_eq!(link.answer(11_000), 520_000);
    }

    #[test]
    fn outages_lose_and_a_vanished_client_gets_nothing() {
        let mut link = link(Capacity::Rate(1.0)).with_outages(vec![(50_000, 90_000)]);
        assert_eq!(link.send(0, 100), Some(10_100));
        assert_eq!(link.send(45_000, 100), None, "it would arrive in the outage");
        assert_eq!(link.send(60_000, 100), None);
        assert_eq!(link.foresee(60_000), 100_000);
        link.cut_at(200_000);
        assert_eq!(link.send(100_000, 100), Some(110_100));
        assert_eq!(link.send(195_000, 100), None);
        assert_eq!(link.foresee(195_000), Micros::MAX);
    }
}
