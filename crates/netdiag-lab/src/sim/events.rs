//! What is to happen when: a calendar of the near future.
//!
//! A wheel of slots of four milliseconds each (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987): nearly every
//! event is an ACK that comes within a round trip, and a heap would touch ten cache lines to find its place. What is farther
//! away than a turn of the wheel waits in a heap.
//!
//! Invariant: events come in order of time, and of two at the same time the one that was entered first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Micros;

/// Microseconds of a slot, as a power of two: with shorter ones the wheel itself would not stay in the caches, with longer ones
/// there would be more to sort.
const SLOT_BITS: u32 = 12;

/// Slots of the wheel: four seconds, longer than nearly every round trip and timer.
const SLOTS: u64 = 1024;

/// A byte of a stream, counted from its beginning: no answer has as many as that can count, and events are small with it.
pub(super) type Place = u32;

/// Something that happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) at: Micros,
    pub(super) stream: u32,
    pub(super) what: What,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// An ACK reaches the server.
    Ack {
        /// Everything before this byte has arrived.
        ack: Place,
        /// The first byte of the segment that it answers.
        start: Place,
    },
    /// The server's retransmission timer.
    Timer,
    /// The client goes away, in whichever way it is to.
    Leave,
    /// The client looks whether it has waited for too long.
    Patience,
    /// The end of the connection reaches the server.
    Fin,
}

/// The calendar.
#[derive(Debug)]
pub(super) struct Events {
    wheel: Vec<Vec<Event>>,
    /// The slot that is being worked off, latest first.
    current: Vec<Event>,
    /// Memory of slots that were worked off, the last one first: it is in the caches, and an empty slot has none of its own.
    spare: Vec<Vec<Event>>,
    slot: u64,
    far: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    entered: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            wheel: (0..SLOTS).map(|_| Vec::new()).collect(),
            current: Vec::new(),
            spare: Vec::new(),
            slot: 0,
            far: BinaryHeap::new(),
            entered: 0,
        }
    }

    /// Enters an event; one of the past happens next.
    pub(super) fn push(&mut self, event: Event) {
        let slot = event.at >> SLOT_BITS;
        if slot <= self.slot {
            let place = self.current.partition_point(|other| other.at > event.at);
            self.current.insert(place, event);
        } else if slot < self.slot + SLOTS {
            self.enter(slot, event);
        } else {
            self.entered += 1;
            self.far.push(Reverse((event.at, self.entered, event)));
        }
    }

    /// The next event at `until` or before.
    pub(super) fn pop(&mut self, until: Micros) -> Option<Event> {
        while self.current.is_empty() {
            if self.slot >= until >> SLOT_BITS {
                return None;
            }
            self.turn();
        }
        self.current.pop_if(|event| event.at <= until)
    }

    /// Whose event it probably is, so many after the next one.
    pub(super) fn ahead(&self, places: usize) -> Option<u32> {
        let place = self.current.len().checked_sub(1 + places)?;
        Some(self.current[place].stream)
    }

    /// Into a slot of the wheel.
    fn enter(&mut self, slot: u64, event: Event) {
        let events = &mut self.wheel[(slot % SLOTS) as usize];
        if events.is_empty()
            && let Some(spare) = self.spare.pop()
        {
            *events = spare;
        }
        events.push(event);
    }

    fn turn(&mut self) {
        self.slot += 1;
        // What comes near may share its slot with what was entered later, so it goes in front.
        while let Some(Reverse((at, _, event))) = self.far.peek().copied()
            && at >> SLOT_BITS < self.slot + SLOTS
        {
            self.far.pop();
            self.enter(at >> SLOT_BITS, event);
        }
        let next = std::mem::take(&mut self.wheel[(self.slot % SLOTS) as usize]);
        if next.is_empty() {
            return;
        }
        self.spare.push(std::mem::replace(&mut self.current, next));
        self.current.sort_by_key(|event| event.at);
        self.current.reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_come_in_order_of_time_and_entry(
            delays in prop::collection::vec(prop_oneof![0u64..3000, 0u64..20_000_000], 1..200),
            step in 1u64..3_000_000,
        ) {
            let mut events = Events::new();
            let (mut now, mut expected, mut seen) = (0, Vec::new(), Vec::new());
            for (entry, delay) in delays.iter().enumerate() {
                // Every few entries time passes.
                if entry % 3 == 2 {
                    now += step;
                    while let Some(event) = events.pop(now) {
                        prop_assert!(event.at <= now);
                        seen.push((event.at, event.stream));
                    }
                }
                events.push(Event { at: now + delay, stream: entry as u32, what: What::Timer });
                expected.push((now + delay, entry as u32));
            }
            while let Some(event) = events.pop(now + 20_000_000) {
                seen.push((event.at, event.stream));
            }
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}
