//! When events may be handed on to the client: at the pace of its path, and not at all while that takes nothing.
//!
//! Invariant: a group that is let through has been admitted by the pacer; without tokens an event needs no admission.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use netdiag_embed::{Admission, Report, StreamPacer};
use netdiag_pacer::State;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::socket::Client;
use crate::sse::{Kind, Piece, Role, merge};

/// How soon a held stream is looked at again: at first, and at most. The kernel tells nobody of an ACK, so one must look; what
/// comes back is noticed within a fraction of what a reader notices.
const LOOK: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// From how long on it is a hold that others are told of. A stream is to be held within a second of its client's silence.
const MOMENT: Duration = Duration::from_millis(100);

/// Tokens in one event where the path is the bottleneck, at most: half a second of fast reading.
const GROUP: usize = 8;

/// How long a path that has held a stream is taken for narrow: some round trips through full queues.
const NARROW: Duration = Duration::from_secs(5);

/// How long a token waits for others to go with, there. No longer than the pauses that readers do not notice.
const GATHER: Duration = Duration::from_millis(250);

/// An event that waits to be handed on.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) piece: Piece,
    pub(crate) tokens: u32,
    pub(crate) role: Role,
    pub(crate) since: Instant,
}

/// What was let through.
#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) bytes: Bytes,
    pub(crate) tokens: u32,
}

/// One stream's pace.
pub(crate) struct Valve {
    /// `None`: as fast as it comes.
    pacer: Option<StreamPacer>,
    client: Arc<Client>,
    dialect: Dialect,
    hold_max: Duration,
    held_since: Option<Instant>,
    /// When a hold was last longer than a moment.
    held_last: Option<Instant>,
    look: Duration,
    alarm: Alarm,
}

impl Valve {
    pub(crate) fn new(
        pacer: Option<StreamPacer>,
        client: Arc<Client>,
        dialect: Dialect,
        hold_max: Duration,
    ) -> Self {
        let alarm = Alarm::default();
        Self {
            pacer,
            client,
            dialect,
            hold_max,
            held_since: None,
            held_last: None,
            look: LOOK[0],
            alarm,
        }
    }

    /// Whether nothing goes through because the client takes nothing. A moment of that is no hold: every path has some.
    pub(crate) fn is_held(&self) -> bool {
        self.held_since.is_some_and(|since| since.elapsed() >= MOMENT)
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&mut self) {
        self.pacer = None;
        self.flows();
    }

    pub(crate) fn report(&self) -> Option<Report> {
        self.pacer.as_ref().map(StreamPacer::report)
    }

    /// The next event or group, when it may go. `more` may come soon. An error ends the stream: the client is gone.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        queue: &mut VecDeque<Waiting>,
        more: bool,
    ) -> Poll<Result<Through, Failure>> {
        let Some(first) = queue.front() else { return Poll::Pending };
        if self.pacer.is_some() && !self.client.has_one_stream() {
            // The kernel cannot tell the bytes of streams apart that share a connection.
            self.open();
        }
        if self.client.is_clogged() {
            // More would lie in the HTTP library's buffer, and nobody would ask us any more.
            return self.hold(context);
        }
        let Some(pacer) = &self.pacer else {
            self.flows();
            return Poll::Ready(Ok(self.take(queue, 1)));
        };
        if first.tokens == 0 {
            return Poll::Ready(Ok(self.take(queue, 1)));
        }
        let is_narrow = self.is_narrow_still() || pacer.state() == State::Constrained;
        let group = if is_narrow { texts(queue) } else { 1 };
        let tokens = queue.iter().take(group).map(|waiting| waiting.tokens).sum();
        if is_narrow && more && group < GROUP && group == queue.len() {
            let due = first.since + GATHER;
            if !self.alarm.is_due(context, due) {
                return Poll::Pending;
            }
        }
        match pacer.admit(tokens) {
            Admission::Now => {
                self.flows();
                Poll::Ready(Ok(self.take(queue, group)))
            }
            _ if pacer.gone().is_some() => Poll::Ready(Err(Failure::ClientSilent)),
            Admission::Wait(wait) => {
                self.flows();
                self.wait(context, wait)
            }
            Admission::Hold => self.hold(context),
        }
    }

    /// Whether the path has held the stream of late. Where a network's own queue takes what the path does not carry, the kernel sees
    /// nothing wait, and this is all that shows it.
    fn is_narrow_still(&self) -> bool {
        self.held_last.is_some_and(|held| held.elapsed() < NARROW)
    }

    /// Something goes through, or could.
    fn flows(&mut self) {
        self.held_since = None;
        self.look = LOOK[0];
    }

    /// Nothing goes through, for now.
    fn hold<T>(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        let now = Instant::now();
        let since = *self.held_since.get_or_insert(now);
        let held = now.duration_since(since);
        if held >= self.hold_max {
            return Poll::Ready(Err(Failure::ClientSilent));
        }
        if held >= MOMENT {
            self.held_last = Some(now);
        }
        let wait = self.look;
        self.look = (wait * 2).min(LOOK[1]);
        self.wait(context, wait)
    }

    fn wait<T>(&mut self, context: &mut Context<'_>, wait: Duration) -> Poll<T> {
        if self.alarm.is_due(context, Instant::now() + wait) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Takes the first `count` out, as one event if there are several.
    fn take(&self, queue: &mut VecDeque<Waiting>, count: usize) -> Through {
        let mut through = Through { bytes: Bytes::new(), tokens: 0 };
        let mut whole: Option<Piece> = None;
        for waiting in queue.drain(..count.min(queue.len())) {
            through.tokens += waiting.tokens;
            whole = Some(match whole {
                None => waiting.piece,
                Some(whole) => merge(self.dialect, &whole, &waiting.piece).unwrap_or_else(|| {
                    // Alike or not, they are two events in one write.
                    let bytes = [&whole.bytes[..], &waiting.piece.bytes].concat().into();
                    Piece { bytes, kind: Kind::Event }
                }),
            });
        }
        through.bytes = whole.map(|piece| piece.bytes).unwrap_or_default();
        if let Some(pacer) = &self.pacer {
            pacer.on_sent(through.tokens, through.bytes.len() as u64);
        }
        through
    }
}

/// How many of the first events are parts of a text, which may go together.
fn texts(queue: &VecDeque<Waiting>) -> usize {
    let texts = queue.iter().take(GROUP).take_while(|waiting| waiting.role == Role::Text).count();
    texts.max(1)
}

/// A timer that is moved only when it has to be.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `due` has come. Otherwise whoever polls is woken by then, or sooner.
    pub(crate) fn is_due(&mut self, context: &mut Context<'_>, due: Instant) -> bool {
        if due <= Instant::now() {
            return true;
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }
}
