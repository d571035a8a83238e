//! An event stream on the engine's side: read, cut into events, counted, and remembered where it may be resumed.
//!
//! It is apart from the connection that it goes out on, because it can outlive that: a client may come back for it on another.
//! While nobody has it, nobody polls it, which is how the engine is held, and it is told so besides ([`crate::source`]).
//!
//! Invariants: the bytes are the engine's, but where the path is so narrow that texts are put together, for comments, and for
//! numbers. What is generated is counted once.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Instant;

use crate::Shared;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::live::About;
use crate::meter::{End, Meter, Sight, Summary};
use crate::resume::Tail;
use crate::source::Source;
use crate::sse::{Kind, LONGEST_EVENT, Piece, Reading, Role, Splitter, TokenReader};
use crate::trace::label;
use crate::valve::{Through, Waiting};

/// A stream, and what was taken from its engine and not handed on.
pub(crate) struct Flow {
    dialect: Dialect,
    /// `None` once it has ended, or nobody wants more of it.
    source: Option<Box<dyn Source>>,
    splitter: Splitter,
    /// What comes is no event stream after all, and is passed as bytes.
    is_opaque: bool,
    reader: TokenReader,
    pub(crate) queue: VecDeque<Waiting>,
    trailers: Option<Frame<Bytes>>,
    /// Where streams may be resumed.
    tail: Option<Tail>,
    held: bool,
    meter: Meter,
    end: Option<End>,
    failure: Option<Failure>,
    /// It has ended with a whole event, behind which there may be a comment.
    can_report: bool,
    is_counted: bool,
}

impl Flow {
    pub(crate) fn new(about: &About, source: Box<dyn Source>, tail: Option<Tail>) -> Self {
        Self {
            dialect: about.dialect,
            source: Some(source),
            splitter: Splitter::new(LONGEST_EVENT),
            is_opaque: false,
            reader: TokenReader::new(about.dialect),
            queue: VecDeque::new(),
            trailers: None,
            tail,
            held: false,
            meter: Meter::new(about.asked),
            end: None,
            failure: None,
            can_report: false,
            is_counted: false,
        }
    }

    /// Whether the engine may have more.
    pub(crate) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Whether it has ended, one way or another.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether what comes is bytes, which have no places to put anything in.
    pub(crate) fn is_opaque(&self) -> bool {
        self.is_opaque
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Bytes that are kept for a client that comes back.
    pub(crate) fn bytes(&self) -> usize {
        let waiting: usize = self.queue.iter().map(|waiting| waiting.piece.bytes.len()).sum();
        waiting + self.tail.as_ref().map_or(0, Tail::bytes)
    }

    /// How it went, seen from here, for a client that has all of it. Once.
    pub(crate) fn take_report(&mut self, sight: Option<&Sight>) -> Option<Summary> {
        std::mem::take(&mut self.can_report).then(|| self.meter.summary(sight, false))
    }

    pub(crate) fn take_trailers(&mut self) -> Option<Frame<Bytes>> {
        self.trailers.take()
    }

    /// What was let through, as it is to be sent.
    pub(crate) fn hand_on(&mut self, through: Through) -> Bytes {
        self.meter.sent(through.tokens());
        match &mut self.tail {
            None => through.into_bytes(|waiting| waiting.piece.bytes),
            Some(tail) => through.into_bytes(|waiting| tail.hand_on(&waiting)),
        }
    }

    /// Reads from the engine. Whether there was something.
    pub(crate) fn read(&mut self, context: &mut Context<'_>) -> bool {
        let Some(source) = &mut self.source else { return false };
        source.behind(!self.queue.is_empty());
        match source.poll_frame(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.take(data),
                Err(trailers) => self.trailers = Some(trailers),
            },
            Poll::Ready(Some(Err(failure))) => self.break_off(failure),
            Poll::Ready(None) => self.complete(),
        }
        true
    }

    /// Takes what has come, up to the end of the last whole event.
    fn take(&mut self, data: Bytes) {
        if self.is_opaque {
            return self.push(data, Kind::Filler, Role::Other);
        }
        let (queue, reader, meter) = (&mut self.queue, &mut self.reader, &mut self.meter);
        let since = Instant::now();
        let split = self.splitter.push(data, |piece| {
            let Reading { tokens, role } = reader.read(&piece);
            meter.generated(tokens);
            queue.push_back(Waiting { piece, tokens, role, since, again: false });
        });
        if split.is_err() {
            self.is_opaque = true;
            self.tail = None;
            let rest = self.splitter.take_rest();
            self.push(rest, Kind::Filler, Role::Other);
        }
    }

    /// Puts in bytes without tokens.
    fn push(&mut self, bytes: Bytes, kind: Kind, role: Role) {
        if !bytes.is_empty() {
            let piece = Piece { bytes, kind };
            let since = Instant::now();
            self.queue.push_back(Waiting { piece, tokens: 0, role, since, again: false });
        }
    }

    /// The engine has sent all that it had.
    fn complete(&mut self) {
        // Some leave out the last empty line, and clients that read line by line do not miss it.
        let rest = self.splitter.take_rest();
        let is_whole = rest.is_empty() && !self.is_opaque;
        match &self.tail {
            // What has a number can be had again, and only events have.
            Some(_) if !is_whole => {
                let end: &[u8] = if rest.ends_with(b"\n") { b"\n" } else { b"\n\n" };
                self.push([&rest, end].concat().into(), Kind::Event, Role::Other);
            }
            _ => self.push(rest, Kind::Filler, Role::Other),
        }
        self.can_report = is_whole;
        self.source = None;
        self.end = Some(End::Complete);
    }

    /// Ends the stream with an event that says why. What has come of an event that is not whole is left out.
    pub(crate) fn break_off(&mut self, failure: Failure) {
        self.source = None;
        drop(self.splitter.take_rest());
        // Bytes that are no events have no end to put one behind.
        if !self.is_opaque {
            self.can_report = true;
            self.push(failure.event(self.dialect).into(), Kind::Event, Role::Error);
        }
        self.end = Some(match failure {
            Failure::Stopped => End::Stopped,
            _ => End::Failed,
        });
        self.failure = Some(failure);
    }

    /// Ends the stream because its client is gone, for this reason.
    pub(crate) fn give_up(&mut self, failure: Failure) {
        self.source = None;
        self.end = Some(End::ClientGone);
        self.failure = Some(failure);
    }

    /// Tells the engine whether anybody takes what it generates. Whether that is news.
    pub(crate) fn hold(&mut self, held: bool) -> bool {
        let is_news = std::mem::replace(&mut self.held, held) != held;
        if is_news && let Some(source) = &mut self.source {
            source.hold(held);
        }
        is_news
    }

    /// Ends the engine's work.
    pub(crate) fn leave_engine(&mut self) {
        self.source = None;
    }

    /// A client's connection is over, about which this is the last that was known.
    pub(crate) fn detach(&mut self, sight: Option<&Sight>) {
        self.meter.detach(sight);
    }

    /// Whether a client could still come back for it: it was not ended for good.
    pub(crate) fn can_be_resumed(&self) -> bool {
        self.tail.is_some() && !matches!(self.failure, Some(Failure::Stopped | Failure::Draining))
    }

    /// Goes back to where a client is that has the events up to `after`.
    pub(crate) fn go_back(&mut self, after: u64) -> Result<(), Failure> {
        let tail = self.tail.as_ref().ok_or(Failure::NoSuchStream)?;
        let (again, had) = tail.behind(after)?;
        // What another client was to have again.
        self.queue.retain(|waiting| !waiting.again);
        for waiting in again.into_iter().rev() {
            self.queue.push_front(waiting);
        }
        self.meter.go_back(had);
        Ok(())
    }

    /// Says how it went, once: to the metrics and to the log.
    pub(crate) fn count(&mut self, gateway: &Shared, about: &About) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let end = match self.end {
            // What waits here was not handed on.
            Some(End::Complete) if !self.queue.is_empty() => End::ClientGone,
            Some(end) => end,
            None => End::ClientGone,
        };
        let summary = self.meter.summary(None, end == End::ClientGone);
        gateway.metrics.stream_ended(about, end, self.failure.as_ref(), &self.meter, &summary);
        tracing::info!(
            id = label(&about.id), peer = %about.peer, engine = about.engine,
            model = about.model.as_deref().unwrap_or_default(), ?end,
            failure = self.failure.as_ref().map(Failure::code),
            told = self.reader.tokens(),
            summary = serde_json::to_string(&summary).unwrap_or_default(),
            "stream ended",
        );
    }
}
