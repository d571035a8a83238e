//! What is done to streams, and whose fault it is.
//!
//! Invariant: the list is the same in every run, in an order in which neighbours have nothing in common.

use std::time::Duration;

/// For whom a stream then waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Engine,
    Path,
    Reader,
}

impl Who {
    pub(super) const ALL: [Self; 3] = [Self::Engine, Self::Path, Self::Reader];

    /// As `/v1/streams` has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Path => "path",
            Self::Reader => "reader",
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The engine generates nothing for this request.
    Pause,
    /// The link carries nothing.
    Blackout,
    /// The link carries so many percent of what the engine generates.
    Narrow(u32),
    /// The link loses so many percent of the packets, eight in a row on average.
    Bursts(u32),
    /// The program stops reading, with a receive buffer of so many bytes.
    Stop(usize),
    /// The program reads so many percent of what the engine generates, with such a buffer.
    Slow(u32, usize),
}

impl Fault {
    pub(super) fn who(self) -> Who {
        match self {
            Self::Pause => Who::Engine,
            Self::Blackout | Self::Narrow(_) | Self::Bursts(_) => Who::Path,
            Self::Stop(_) | Self::Slow(..) => Who::Reader,
        }
    }

    pub(super) fn describe(self) -> String {
        match self {
            Self::Pause => "the engine pauses".to_owned(),
            Self::Blackout => "the link is silent".to_owned(),
            Self::Narrow(percent) => format!("the link carries {percent} % of it"),
            Self::Bursts(percent) => format!("the link loses {percent} % in bursts"),
            Self::Stop(buffer) => format!("the reader stops, {} KiB", buffer >> 10),
            Self::Slow(percent, buffer) => {
                format!("the reader takes {percent} % of it, {} KiB", buffer >> 10)
            }
        }
    }
}

/// One thing that is done to one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
    pub(super) number: usize,
}

const KIB: usize = 1 << 10;

const ENGINE: [Fault; 1] = [Fault::Pause];
const PATH: [Fault; 6] = [
    Fault::Blackout,
    Fault::Narrow(25),
    Fault::Bursts(70),
    Fault::Blackout,
    Fault::Narrow(50),
    Fault::Bursts(60),
];
const READER: [Fault; 4] = [
    Fault::Stop(4 * KIB),
    Fault::Slow(25, 4 * KIB),
    Fault::Stop(8 * KIB),
    Fault::Slow(10, 8 * KIB),
];

/// How long it is done; a window for `up` is not better for being long.
const LASTS: [u64; 5] = [1000, 1500, 2000, 2500, 3000];

/// So many of each kind.
pub(super) fn events(each: usize) -> Vec<Event> {
    let all: Vec<Event> = [&ENGINE[..], &PATH[..], &READER[..]]
        .iter()
        .flat_map(|faults| (0..each).map(|n| (faults[n % faults.len()], n)))
        .map(|(fault, n)| {
            let lasts = Duration::from_millis(LASTS[(n / PATH.len()) % LASTS.len()]);
            Event { fault, lasts, number: n }
        })
        .collect();
    // A prime that divides no count of events that is asked for.
    const STRIDE: usize = 131;
    (0..all.len()).map(|n| all[n * STRIDE % all.len()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_share_and_every_event_comes_once() {
        let all = events(100);
        for who in Who::ALL {
            assert_eq!(all.iter().filter(|event| event.fault.who() == who).count(), 100);
        }
        let mut numbers: Vec<_> = all.iter().map(|event| (event.number, event.fault)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 300);
        assert_eq!(all, events(100));
    }
}
