//! Streams that outlive their client's connection: the numbers of their events, and what is kept of them.
//!
//! With a resume window every event has an `id:` line that names stream and event, `st_….17`, so that a client of the browser's kind
//! (WHATWG HTML §9.2) goes on by itself: it sends the last one that it has seen as `Last-Event-ID`. What an event of the engine's has
//! as an id of its own is overruled, since the last such line counts.
//!
//! What is kept are the last events that were handed on, [`TAIL`] bytes and one event at least, whether they were acknowledged
//! or not: a device that changes its network throws away what its kernel has acknowledged and nobody has read.
//! What was handed on and is still unacknowledged is less, because kernel and HTTP library are given less room than that (see
//! [`crate::socket::Client::keep_little_unacked`]).
//!
//! Invariant: the events from any number on that is kept are the bytes that were handed on under these numbers.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::sse::{Kind, Piece, Role};
use crate::trace;
use crate::valve::Waiting;

/// The last event that a client has seen (WHATWG HTML §9.2.4).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Bytes of events that are kept in front of the last one: some 800 deltas, and more than kernel (96 KiB), TLS and HTTP library (64 KiB
/// each) may hold.
pub(crate) const TAIL: usize = 256 * 1024;

/// What a client says where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The stream, if it is named.
    pub(crate) stream: Option<String>,
    /// The last event that it has; 0 for none.
    pub(crate) event: u64,
}

impl Position {
    /// `STREAM.N` or `N`. Nothing for what is not of this form, and so is no id of ours.
    pub(crate) fn parse(id: &[u8]) -> Option<Self> {
        let id = std::str::from_utf8(id).ok()?;
        let (stream, event) = match id.rsplit_once('.') {
            Some((stream, event)) => (Some(stream), event),
            None => (None, id),
        };
        if stream.is_some_and(|stream| !trace::is_stream_id(stream)) {
            return None;
        }
        // No sign and no zeros in front: there is one way to write a number.
        let digits = !event.is_empty() && event.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (event == "0" || !event.starts_with('0'));
        let event = event.parse().ok().filter(|_| plain)?;
        Some(Self { stream: stream.map(str::to_owned), event })
    }

    /// Where a client wants to go on in a stream that its request's path names: from the start if it does not say.
    pub(crate) fn in_stream(headers: &HeaderMap, stream: &str) -> Result<u64, Failure> {
        let mut given = headers.get_all(&LAST_EVENT_ID).iter();
        let (first, another) = (given.next(), given.next());
        let Some(first) = first else { return Ok(0) };
        Self::parse(first.as_bytes())
            .filter(|position| position.stream.as_deref().is_none_or(|named| named == stream))
            .filter(|_| another.is_none())
            .map(|position| position.event)
            .ok_or(Failure::Malformed("the Last-Event-ID is none of this stream's"))
    }

    /// The stream that a request goes on with, if it does: its only `Last-Event-ID` names one of ours.
    pub(crate) fn of_request(headers: &HeaderMap) -> Option<(String, u64)> {
        let mut given = headers.get_all(&LAST_EVENT_ID).iter();
        let first = given.next().filter(|_| given.next().is_none())?;
        let Position { stream, event } = Self::parse(first.as_bytes())?;
        Some((stream?, event))
    }
}

/// The last events of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    stream: String,
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The number of the last event that was handed on.
    last: u64,
    /// Tokens of the events that are not kept any more.
    before: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    tokens: u32,
}

impl Tail {
    /// Of a stream that begins.
    pub(crate) fn new(stream: String) -> Self {
        Self { stream, kept: VecDeque::new(), bytes: 0, last: 0, before: 0 }
    }

    /// An event as it is to be handed on. One that is handed on for the first time gets its number, and is kept.
    pub(crate) fn hand_on(&mut self, event: &Waiting) -> Bytes {
        if event.again || event.piece.kind != Kind::Event || is_blank(&event.piece.bytes) {
            return event.piece.bytes.clone();
        }
        self.last += 1;
        let bytes = numbered(&event.piece.bytes, &self.stream, self.last);
        self.bytes += bytes.len();
        self.kept.push_back(Kept { bytes: bytes.clone(), tokens: event.tokens });
        while let [Some(first), Some(last)] = [self.kept.front(), self.kept.back()]
            && self.kept.len() > 1
            && self.bytes - first.bytes.len() - last.bytes.len() >= TAIL
        {
            self.bytes -= first.bytes.len();
            self.before += u64::from(first.tokens);
            self.kept.pop_front();
        }
        bytes
    }

    /// What is to be handed on again to a client that has all events up to `after`, and the tokens that it has.
    pub(crate) fn behind(&self, after: u64) -> Result<(Vec<Waiting>, u64), Failure> {
        if after > self.last {
            return Err(Failure::Malformed(
                "the Last-Event-ID is of an event that is still to come",
            ));
        }
        let again = usize::try_from(self.last - after).unwrap_or(usize::MAX);
        let known = self.kept.len().checked_sub(again).ok_or(Failure::TooFarBack)?;
        let had: u64 = self.kept.iter().take(known).map(|kept| u64::from(kept.tokens)).sum();
        let since = Instant::now();
        let events = self.kept.iter().skip(known).map(|kept| Waiting {
            piece: Piece { bytes: kept.bytes.clone(), kind: Kind::Event },
            tokens: kept.tokens,
            // As they are: nothing is put together with them.
            role: Role::Other,
            since,
            again: true,
        });
        Ok((events.collect(), self.before + had))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether there is nothing but an empty line, which is nothing to a client.
fn is_blank(event: &[u8]) -> bool {
    event.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// The event with its number as the last of its lines. Without one of their own, events have the number of the one before.
fn numbered(event: &[u8], stream: &str, number: u64) -> Bytes {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    let end = &event[body.len()..];
    let id = format!("id: {stream}.{number}\n");
    [body, id.as_bytes(), end].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::{LONGEST_EVENT, Splitter, fields};

    const STREAM: &str = "st_0123456789abcdef0123456789abcdef";

    fn waiting(event: &str, tokens: u32) -> Waiting {
        let piece = Piece { bytes: Bytes::copy_from_slice(event.as_bytes()), kind: Kind::Event };
        Waiting { piece, tokens, role: Role::Text, since: Instant::now(), again: false }
    }

    #[test]
    fn positions_are_written_in_one_way() {
        let check = |id: &str, expected: Option<(Option<&str>, u64)>| {
            let expected = expected
                .map(|(stream, event)| Position { stream: stream.map(str::to_owned), event });
            assert_eq!(Position::parse(id.as_bytes()), expected, "{id:?}");
        };
        check("17", Some((None, 17)));
        check("0", Some((None, 0)));
        check(&format!("{STREAM}.3"), Some((Some(STREAM), 3)));
        for wrong in
            ["", "-1", "+1", "01", "1.5", ".5", "x.5", "st_0.5", "18446744073709551616", "1 ", "é"]
        {
            check(wrong, None);
        }
        check(&format!("{}.3", STREAM.to_uppercase()), None);
        check(STREAM, None);
    }

    #[test]
    fn a_number_is_the_last_line_of_an_event_whatever_ends_its_lines() {
        let check = |event: &str| {
            let bytes = numbered(event.as_bytes(), STREAM, 7);
            let mut pieces = Vec::new();
            let mut splitter = Splitter::new(LONGEST_EVENT);
            splitter.push(bytes, |piece| pieces.push(piece)).expect("short");
            assert!(splitter.take_rest().is_empty() && pieces.len() == 1, "{event:?}: {pieces:?}");
            let (read, plain) = (fields(&pieces[0].bytes), fields(event.as_bytes()));
            let (read, plain) = (read.expect("data"), plain.expect("data"));
            assert_eq!(read.id, Some(format!("{STREAM}.7").as_bytes()), "{event:?}");
            assert_eq!((read.name, read.data), (plain.name, plain.data), "{event:?}");
        };
        for end in ["\n", "\r\n", "\r"] {
            check(&format!("data: x{end}{end}"));
            check(&format!("id: theirs{end}event: e{end}data: x{end}data: y{end}{end}"));
        }
        check("data: x\n\r\n");
        check("data: x\r\n\r");
        check("data: x\r\n\n");
    }

    proptest! {
        /// Whatever was handed on, a client that goes on behind any event that is kept has all of them, each once.
        #[test]
        fn nothing_is_lost_or_doubled(
            lengths in prop::collection::vec(1usize..40_000, 1..60),
            back in 0u64..80,
        ) {
            let mut tail = Tail::new(STREAM.to_owned());
            let handed_on: Vec<Bytes> = lengths
                .iter()
                .map(|&length| tail.hand_on(&waiting(&format!("data: {}\n\n", "x".repeat(length)), 2)))
                .collect();
            let last = handed_on.len() as u64;
            let after = last.saturating_sub(back);
            match tail.behind(after) {
                Ok((again, had)) => {
                    prop_assert_eq!(had, after * 2);
                    let again: Vec<Bytes> = again.iter().map(|event| tail.hand_on(event)).collect();
                    prop_assert_eq!(&again[..], &handed_on[after as usize..]);
                    prop_assert_eq!(tail.last, last, "what is handed on again has its number");
                }
                Err(failure) => {
                    prop_assert_eq!(failure, Failure::TooFarBack);
                    let behind: usize = handed_on[after as usize..].iter().map(Bytes::len).sum();
                    prop_assert!(behind >= TAIL, "{} bytes are not too far back", behind);
                }
            }
            prop_assert!(tail.bytes() <= TAIL + 2 * 41_000);
            prop_assert!(tail.behind(last + 1).is_err());
        }
    }
}
