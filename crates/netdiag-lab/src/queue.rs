//! What waits before a slow link, and what is dropped when too much does. The disciplines are rattan-core's.
//!
//! Invariant: a queue has room for one full packet, so that no link is dead by its queue, and for no more than memory has.

use std::time::Duration;

use rattan_core::cells::StdPacket;
use rattan_core::cells::bandwidth::BwType;
use rattan_core::cells::bandwidth::queue::{
    CoDelQueue, CoDelQueueConfig, DropHeadQueue, DropHeadQueueConfig, DropTailQueue,
    DropTailQueueConfig, PacketQueue,
};

use crate::device::MTU;
use crate::spec::InvalidSpec;

/// As much as in netem.
const PACKETS: usize = 1000;

/// The most that may wait: 150 MB in full packets, which a burst of an unlimited link can bring to each direction.
const MOST_PACKETS: usize = 100_000;
const MOST_BYTES: usize = MOST_PACKETS * MTU;

/// The longest queue, longer than any TCP waits for an answer.
const LONGEST: Duration = Duration::from_secs(60);

/// RFC 8289, section 4.3 and 4.4: the standing delay that is fine, and how long it must be exceeded.
const CODEL_TARGET: Duration = Duration::from_millis(5);
const CODEL_INTERVAL: Duration = Duration::from_millis(100);

/// Which packet is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discipline {
    /// The one that finds the queue full.
    #[default]
    DropTail,
    /// The one that has waited longest when another finds the queue full.
    DropHead,
    /// CoDel (RFC 8289): besides, one after the other while all wait for longer than 5 ms.
    CoDel,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLength {
    /// So many packets of any size.
    Packets(usize),
    /// So many bytes of IP packets.
    Bytes(usize),
    /// What the link's rate, for a trace the mean one, carries in this time.
    Time(Duration),
}

/// The queue before a link of limited rate. By default it drops from the tail, at 1000 packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    discipline: Discipline,
    length: QueueLength,
}

impl Queue {
    /// A queue that can be.
    pub fn try_new(discipline: Discipline, length: QueueLength) -> Result<Self, InvalidSpec> {
        let fits = match length {
            QueueLength::Packets(packets) => (1..=MOST_PACKETS).contains(&packets),
            QueueLength::Bytes(bytes) => (MTU..=MOST_BYTES).contains(&bytes),
            QueueLength::Time(time) => !time.is_zero() && time <= LONGEST,
        };
        if fits { Ok(Self { discipline, length }) } else { Err(InvalidSpec::Queue(length)) }
    }

    /// Which packet is dropped.
    pub fn discipline(&self) -> Discipline {
        self.discipline
    }

    /// How much may wait.
    pub fn length(&self) -> QueueLength {
        self.length
    }

    /// Limits in packets and in bytes before a link that carries `rate` bits per second.
    pub(crate) fn limits(&self, rate: f64) -> (Option<usize>, Option<usize>) {
        match self.length {
            QueueLength::Packets(packets) => (Some(packets), None),
            QueueLength::Bytes(bytes) => (None, Some(bytes)),
            QueueLength::Time(time) => {
                let bytes = time.as_secs_f64() * rate / 8.0;
                (None, Some((bytes as usize).clamp(MTU, MOST_BYTES)))
            }
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { discipline: Discipline::DropTail, length: QueueLength::Packets(PACKETS) }
    }
}

impl std::fmt::Display for QueueLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packets(packets) => write!(f, "{packets} packets"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Time(time) => write!(f, "{time:?}"),
        }
    }
}

/// The packets that wait.
#[derive(Debug)]
pub(crate) enum Waiting {
    DropTail(DropTailQueue<StdPacket>),
    DropHead(DropHeadQueue<StdPacket>),
    CoDel(CoDelQueue<StdPacket>),
}

impl Waiting {
    /// An empty queue before a link that carries `rate` bits per second.
    pub(crate) fn new(queue: Queue, rate: f64) -> Self {
        let (packets, bytes) = queue.limits(rate);
        let size = BwType::NetworkLayer;
        match queue.discipline {
            Discipline::DropTail => {
                Self::DropTail(DropTailQueue::new(DropTailQueueConfig::new(packets, bytes, size)))
            }
            Discipline::DropHead => {
                Self::DropHead(DropHeadQueue::new(DropHeadQueueConfig::new(packets, bytes, size)))
            }
            Discipline::CoDel => Self::CoDel(CoDelQueue::new(CoDelQueueConfig::new(
                packets,
                bytes,
                CODEL_INTERVAL,
                CODEL_TARGET,
                MTU as u32,
                size,
            ))),
        }
    }

    /// Takes over what waits in another queue, as far as there is room.
    pub(crate) fn take_over(&mut self, other: &mut Self) {
        while let Some(packet) = other.drain() {
            self.enqueue(packet);
        }
    }

    pub(crate) fn enqueue(&mut self, packet: StdPacket) {
        match self {
            Self::DropTail(queue) => queue.enqueue(packet),
            Self::DropHead(queue) => queue.enqueue(packet),
            Self::CoDel(queue) => queue.enqueue(packet),
        }
    }

    /// The next packet to go; CoDel may drop some before it.
    pub(crate) fn dequeue(&mut self) -> Option<StdPacket> {
        match self {
            Self::DropTail(queue) => queue.dequeue(),
            Self::DropHead(queue) => queue.dequeue(),
            Self::CoDel(queue) => queue.dequeue(),
        }
    }

    /// The next packet as it is: nothing is judged that only moves.
    fn drain(&mut self) -> Option<StdPacket> {
        if let Self::CoDel(queue) = self {
            let patient = CoDelQueueConfig { target: LONGEST * 2, ..CoDelQueueConfig::default() };
            queue.configure(patient);
        }
        self.dequeue()
    }
}
