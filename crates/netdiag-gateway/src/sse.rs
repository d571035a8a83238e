//! Event streams (WHATWG HTML §9.2), in whatever pieces they come: cut into events, without changing a byte.
//!
//! [`Splitter`] finds the ends of events and nothing else; what is in one is read by [`fields`] and by [`TokenReader`]. So passing
//! a stream on costs one look at each byte, and most events are slices of what came.
//!
//! Invariants: the pieces put together are what came, byte for byte. Which events there are, and what is in them, does not depend
//! on where the stream was cut on its way. What is kept of an unfinished event is bounded.

mod fields;
mod merge;
mod tokens;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

pub use fields::{Event, fields};
pub use merge::merge;
pub use tokens::{Reading, Role, TokenReader};

/// Longest event, bytes. Deltas have hundreds; the last event of the Responses API repeats the whole answer, with pictures.
pub const LONGEST_EVENT: usize = 16 << 20;

/// A part of a stream that is passed on as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// As it came.
    pub bytes: Bytes,
    /// What a client makes of it.
    pub kind: Kind,
}

/// What a client makes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines of fields with the empty line that ends them. There may be no data in it; then it is no event to a client.
    Event,
    /// Nothing: a comment between two events, which is how servers keep a connection alive, or the rest of a line's end.
    Filler,
}

/// An event longer than the limit: most likely no event stream at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than the limit")]
pub struct EventTooLong;

/// Cuts a stream into pieces.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// Of the piece that is not finished.
    rest: BytesMut,
    /// The line that is being read has a byte already.
    in_line: bool,
    /// That line begins with a colon.
    in_comment: bool,
    /// The piece has a line that is no comment.
    has_field: bool,
    /// The byte before was a carriage return: a line feed belongs to it.
    after_return: bool,
}

impl Splitter {
    /// A splitter at the start of a stream whose events have so many bytes at most.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            rest: BytesMut::new(),
            in_line: false,
            in_comment: false,
            has_field: false,
            after_return: false,
        }
    }

    /// Takes what comes next and gives the pieces that it completes to `on_piece`.
    ///
    /// # Errors
    ///
    /// What is unfinished is longer than the limit. It is kept, for [`Splitter::take_rest`].
    pub fn push(
        &mut self,
        chunk: Bytes,
        mut on_piece: impl FnMut(Piece),
    ) -> Result<(), EventTooLong> {
        let (mut start, mut at) = (0, 0);
        if self.after_return && !chunk.is_empty() {
            self.after_return = false;
            if chunk[0] == b'\n' {
                at = 1;
                if self.rest.is_empty() {
                    // What it belongs to is on its way. Clients that wait for it must not wait for the next event.
                    on_piece(Piece { bytes: chunk.slice(..1), kind: Kind::Filler });
                    start = 1;
                }
            }
        }
        while at < chunk.len() {
            if !self.in_line {
                self.in_comment = chunk[at] == b':';
            }
            let Some(length) = memchr2(b'\r', b'\n', &chunk[at..]) else {
                self.in_line = true;
                break;
            };
            let is_empty = !self.in_line && length == 0;
            self.in_line = false;
            let is_return = chunk[at + length] == b'\r';
            at += length + 1;
            if is_return {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            let kind = if is_empty {
                Kind::Event
            } else if self.in_comment && !self.has_field {
                Kind::Filler
            } else {
                self.has_field = true;
                continue;
            };
            self.has_field = false;
            on_piece(Piece { bytes: self.finish(chunk.slice(start..at)), kind });
            start = at;
        }
        self.rest.extend_from_slice(&chunk[start..]);
        if self.rest.len() > self.limit { Err(EventTooLong) } else { Ok(()) }
    }

    /// What has come of a piece that is not finished. The splitter is at the start of a stream again.
    pub fn take_rest(&mut self) -> Bytes {
        let rest = self.rest.split().freeze();
        *self = Self::new(self.limit);
        rest
    }

    fn finish(&mut self, end: Bytes) -> Bytes {
        if self.rest.is_empty() {
            return end;
        }
        self.rest.extend_from_slice(&end);
        self.rest.split().freeze()
    }
}

#[cfg(test)]
mod tests;
