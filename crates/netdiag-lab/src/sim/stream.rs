//! One answer on its way: the client, its connection, and what has reached it.
//!
//! Invariant: what is written down as delivered was delivered before the client went away.

use std::time::Duration;

use super::Micros;
use super::deliveries::{Deliveries, Log};
use super::events::{Event, Events, Place, What};
use super::link::Link;
use super::receiver::Receiver;
use super::tcp::{HEADERS, Network, Tcp};
use super::workload::Gone;
use crate::metrics::{Ending, Reader, StreamRecord, TokenCounts};

/// Bytes of a token: an event in OpenAI's format, as the demo engine writes it, with its chunk header.
pub(super) const TOKEN_BYTES: u64 = 230;

/// Eight cache lines, of which an observation needs the first two, and a token and its ACK all but the last.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stream {
    pub(super) tcp: Tcp,
    pub(super) receiver: Receiver,
    /// When each token reached the client; those of the future will, unless it goes away.
    pub(super) deliveries: Deliveries,
    pub(super) link: Link,
    /// The server ended it.
    pub(super) is_ended: bool,
    /// Tokens of the whole answer.
    pub(super) output: u32,
    pub(super) submitted: Micros,
    pub(super) reader: Reader,
    pub(super) gone: Gone,
    /// When the client went away.
    pub(super) left: Option<Micros>,
}

const _: () = assert!(size_of::<Stream>() == 8 * 64);

impl Stream {
    /// Something of each cache line that a token or its ACK touches.
    pub(super) fn touch(&self) -> u64 {
        self.tcp.touch() ^ self.link.touch() ^ self.receiver.next()
    }

    /// All of its tokens were there by `now`.
    pub(super) fn is_complete(&self, now: Micros) -> bool {
        let done = self.deliveries.len() >= self.output;
        done && self.deliveries.last().is_none_or(|at| at <= now)
    }

    /// The client goes away; what would have come does not.
    pub(super) fn leave(&mut self, now: Micros, log: &mut Log) {
        self.left = Some(now);
        log.cut(&mut self.deliveries, now);
    }

    /// When its reader will have waited for as long as `patience`, with what has arrived by `now`.
    pub(super) fn patience_ends(&self, now: Micros, patience: Micros, log: &Log) -> Micros {
        let per_token = (self.reader.rate.seconds_per_token() * 1e6) as Micros;
        let arrived = log.all(&self.deliveries).into_iter().take_while(|&at| at <= now);
        arrived.fold(self.submitted, |read, at| at.max(read) + per_token) + patience
    }

    /// What became of it by the end of the run.
    pub(super) fn record(self, generated: u32, end: Micros, log: &Log) -> StreamRecord {
        let mut deliveries = log.all(&self.deliveries);
        deliveries.retain(|&at| at <= end);
        let complete = deliveries.len() >= self.output as usize;
        let generated = u64::from(generated);
        let acked = (self.tcp.acked() / TOKEN_BYTES).min(generated);
        let (ending, is_over) = match self.left {
            _ if complete => (Ending::Complete, false),
            Some(left) => (Ending::Left(Duration::from_micros(left)), true),
            None if self.is_ended => (Ending::Failed, true),
            None => (Ending::Cut(Duration::from_micros(end)), false),
        };
        let rest = generated - acked;
        let (in_flight, wasted) = if is_over { (0, rest) } else { (rest, 0) };
        StreamRecord {
            submitted: Duration::from_micros(self.submitted),
            deliveries: deliveries.into_iter().map(Duration::from_micros).collect(),
            ending,
            output_tokens: self.output.into(),
            reader: self.reader,
            counts: TokenCounts { generated, acked, in_flight, wasted },
        }
    }
}

/// A link to itself and what is at its end, as a sender sees it. What becomes of a segment is known at once; see [`Link`].
pub(super) struct Around<'a> {
    pub(super) stream: u32,
    pub(super) link: &'a mut Link,
    pub(super) events: &'a mut Events,
    pub(super) receiver: &'a mut Receiver,
    /// When each token reached the client.
    pub(super) deliveries: &'a mut Deliveries,
    pub(super) log: &'a mut Log,
    pub(super) token_bytes: u64,
}

impl Network for Around<'_> {
    fn send(&mut self, now: Micros, start: u64, end: u64) {
        let bytes = u32::try_from(end - start + HEADERS).unwrap_or(u32::MAX);
        let Some(arrival) = self.link.send(now, bytes) else { return };
        self.receiver.receive(start, end);
        let tokens = self.receiver.next() / self.token_bytes;
        while u64::from(self.deliveries.len()) < tokens {
            self.log.push(self.deliveries, arrival);
        }
        let what = What::Ack { ack: self.receiver.next() as Place, start: start as Place };
        let at = self.link.answer(arrival);
        self.events.push(Event { at, stream: self.stream, what });
    }

    fn wake(&mut self, at: Micros) {
        self.events.push(Event { at, stream: self.stream, what: What::Timer });
    }
}
