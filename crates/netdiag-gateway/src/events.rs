//! An event stream on its way from an engine to a client, event by event.
//!
//! Only whole events are handed on, so that whatever happens to the engine the stream can end with one of ours. A few are read
//! ahead, which evens out an engine's bursts; while the client takes no more, the engine is not read.
//!
//! Invariants: the bytes are the engine's, but where the path is so narrow that texts are put together, and for comments. What is
//! generated is counted once; when this body is dropped the stream is over for everybody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Instant;

use crate::Shared;
use crate::failure::Failure;
use crate::live::Live;
use crate::meter::{End, Meter};
use crate::socket::Client;
use crate::source::Source;
use crate::sse::{Kind, LONGEST_EVENT, Piece, Role, Splitter, TokenReader};
use crate::valve::{Alarm, Valve, Waiting};

/// Events that are read ahead of what may be handed on. A burst of an engine that batches its steps is a handful.
const AHEAD: usize = 16;

/// What keeps a connection alive between two events.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// How a stream is to be passed on.
pub(crate) struct Manner {
    /// Time without an event after which a comment is sent; `None`: never.
    pub(crate) keep_alive: Option<Duration>,
    /// Whether the client wants to be told at the end how it went.
    pub(crate) report: bool,
}

/// The body of a streamed answer.
pub(crate) struct Events {
    gateway: Arc<Shared>,
    live: Arc<Live>,
    manner: Manner,
    /// `None` once it has ended, or nobody wants more of it.
    source: Option<Box<dyn Source>>,
    splitter: Splitter,
    /// What comes is no event stream after all, and is passed as bytes.
    is_opaque: bool,
    reader: TokenReader,
    queue: VecDeque<Waiting>,
    trailers: Option<Frame<Bytes>>,
    valve: Valve,
    was_held: bool,
    meter: Meter,
    quiet: Alarm,
    handed_on: Instant,
    end: Option<End>,
    failure: Option<Failure>,
}

impl Events {
    pub(crate) fn new(
        gateway: Arc<Shared>,
        live: Arc<Live>,
        manner: Manner,
        source: Box<dyn Source>,
        valve: Valve,
    ) -> Self {
        let reader = TokenReader::new(live.about.dialect);
        let meter = Meter::new(live.about.asked);
        Self {
            gateway,
            live,
            manner,
            source: Some(source),
            splitter: Splitter::new(LONGEST_EVENT),
            is_opaque: false,
            reader,
            queue: VecDeque::new(),
            trailers: None,
            valve,
            was_held: false,
            meter,
            quiet: Alarm::default(),
            handed_on: Instant::now(),
            end: None,
            failure: None,
        }
    }

    /// What goes to the client next.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.end.is_none()
            && let Some(failure) = self.live.poll_wish(context)
        {
            self.break_off(failure);
        }
        loop {
            if self.queue.is_empty() && self.source.is_none() {
                return Poll::Ready(self.trailers.take().map(Ok));
            }
            if let Poll::Ready(through) = self.hand_on(context) {
                return Poll::Ready(Some(through.map(Frame::data)));
            }
            if self.queue.len() >= AHEAD || !self.read(context) {
                return self.keep_alive(context);
            }
        }
    }

    /// The next event, if it may go.
    fn hand_on(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Failure>> {
        let through = self.valve.poll(context, &mut self.queue, self.source.is_some());
        self.tell_of_holds();
        through.map(|through| match through {
            Ok(through) => {
                self.meter.sent(through.tokens);
                if self.manner.keep_alive.is_some() {
                    self.handed_on = Instant::now();
                }
                let (generated, sent) = self.meter.tokens();
                self.live.update(generated, sent, self.meter.ttft());
                Ok(through.bytes)
            }
            Err(failure) => {
                // The engine is to stop in this moment, and not when the connection is done.
                self.source = None;
                self.end = Some(End::ClientGone);
                self.failure = Some(failure.clone());
                Err(failure)
            }
        })
    }

    /// Reads from the engine. Whether there was something.
    fn read(&mut self, context: &mut Context<'_>) -> bool {
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
            return self.opaque(data);
        }
        let (queue, reader, meter) = (&mut self.queue, &mut self.reader, &mut self.meter);
        let since = Instant::now();
        let split = self.splitter.push(data, |piece| {
            let reading = reader.read(&piece);
            meter.generated(reading.tokens);
            queue.push_back(Waiting { piece, tokens: reading.tokens, role: reading.role, since });
        });
        if split.is_err() {
            self.is_opaque = true;
            let rest = self.splitter.take_rest();
            self.opaque(rest);
        }
    }

    fn opaque(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let piece = Piece { bytes, kind: Kind::Filler };
            let since = Instant::now();
            self.queue.push_back(Waiting { piece, tokens: 0, role: Role::Other, since });
        }
    }

    /// The engine has sent all that it had.
    fn complete(&mut self) {
        // Some leave out the last empty line, and clients that read line by line do not miss it.
        let rest = self.splitter.take_rest();
        let is_whole = rest.is_empty() && !self.is_opaque;
        self.opaque(rest);
        if self.manner.report && is_whole {
            self.report();
        }
        self.source = None;
        self.end = Some(End::Complete);
    }

    /// Ends the stream with an event that says why. What has come of an event that is not whole is left out.
    fn break_off(&mut self, failure: Failure) {
        self.source = None;
        let begun = self.splitter.take_rest();
        // Nobody waits for a pace at the end.
        let report = self.manner.report;
        if report {
            self.report();
        }
        drop(begun);
        self.valve.open();
        let event = failure.event(self.live.about.dialect);
        // Bytes that are no events have no end to put one behind.
        if !self.is_opaque {
            let piece = Piece { bytes: event.into(), kind: Kind::Event };
            let since = Instant::now();
            self.queue.push_back(Waiting { piece, tokens: 0, role: Role::Error, since });
        }
        self.end = Some(End::Failed);
        self.failure = Some(failure);
    }

    fn report(&mut self) {
        let summary = self.meter.summary(self.valve.report().as_ref(), false);
        let Ok(summary) = serde_json::to_string(&summary) else { return };
        let bytes = format!(": netdiag {summary}\n\n").into();
        let piece = Piece { bytes, kind: Kind::Filler };
        let since = Instant::now();
        self.queue.push_back(Waiting { piece, tokens: 0, role: Role::Other, since });
    }

    /// A comment, if there has been nothing for long and the client takes something.
    fn keep_alive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(every) = self.manner.keep_alive.filter(|_| !self.valve.is_held()) else {
            return Poll::Pending;
        };
        if self.is_opaque || !self.quiet.is_due(context, self.handed_on + every) {
            return Poll::Pending;
        }
        self.handed_on = Instant::now();
        // To be woken for the next one.
        let _ = self.quiet.is_due(context, self.handed_on + every);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE)))))
    }

    fn tell_of_holds(&mut self) {
        let held = self.valve.is_held();
        if held != self.was_held {
            self.was_held = held;
            self.live.set_held(held);
            if let Some(source) = &mut self.source {
                source.hold(held);
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.source = None;
        let end = match self.end {
            // What waits here was not handed on.
            Some(End::Complete) if !self.queue.is_empty() => End::ClientGone,
            Some(end) => end,
            None => End::ClientGone,
        };
        let about = &self.live.about;
        self.gateway.live.remove(&about.id);
        let summary = self.meter.summary(self.valve.report().as_ref(), end == End::ClientGone);
        self.gateway.metrics.stream_ended(about, end, self.failure.as_ref(), &self.meter, &summary);
        tracing::info!(
            id = about.id, peer = %about.peer, engine = about.engine,
            model = about.model.as_deref().unwrap_or_default(), ?end,
            failure = self.failure.as_ref().map(Failure::code),
            told = self.reader.tokens(),
            summary = serde_json::to_string(&summary).unwrap_or_default(),
            "stream ended",
        );
    }
}

/// The client's side of a stream: what paces it, if it can be paced.
pub(crate) fn valve(gateway: &Shared, client: &Arc<Client>, live: &Live) -> Valve {
    let pacer = gateway.pacing.as_ref().filter(|_| client.has_one_stream()).and_then(|pacing| {
        pacing
            .stream(&**client)
            // The client is gone, or descriptors have run out: the one will show, the other must not end the stream.
            .inspect_err(|error| tracing::debug!(%error, "a stream is not paced"))
            .ok()
    });
    client.keep_little_unsent();
    let hold_max = gateway.settings.pace.map_or(Duration::MAX, |pace| pace.hold_max);
    Valve::new(pacer, Arc::clone(client), live.about.dialect, hold_max)
}
