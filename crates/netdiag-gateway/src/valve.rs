//! When events may be handed on to the client: at the pace of its path, and not at all while that takes nothing.
//!
//! Invariant: a group that is let through has been admitted by the pacer; without tokens an event needs no admission.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use netdiag_embed::Admission;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::lane::Ticket;
use crate::meter::Sight;
use crate::socket::Client;
use crate::sse::{Piece, Role, merge};

/// How soon a held stream is looked at again: at first, and at most. The kernel tells nobody of an ACK, so one must look; what
/// comes back is noticed within a fraction of what a reader notices.
const LOOK: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// From how long on it is a hold that others are told of. A stream is to be held within a second of its client's silence.
const MOMENT: Duration = Duration::from_millis(100);

/// Tokens in one event where the path is the bottleneck, at most: half a second of fast reading.
const GROUP: usize = 8;

/// How long a token waits for others to go with, there. No longer than the pauses that readers do not notice.
const GATHER: Duration = Duration::from_millis(250);

/// An event that waits to be handed on.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) piece: Piece,
    pub(crate) tokens: u32,
    pub(crate) role: Role,
    pub(crate) since: Instant,
    /// It was handed on before, to a client that has come back.
    pub(crate) again: bool,
}

/// What was let through: an event, mostly.
#[derive(Debug)]
pub(crate) struct Through {
    first: Waiting,
    /// Those that could not be put together with it.
    more: Vec<Waiting>,
}

impl Through {
    pub(crate) fn tokens(&self) -> u32 {
        self.first.tokens + self.more.iter().map(|waiting| waiting.tokens).sum::<u32>()
    }

    /// All of it in one, each as `write` has it.
    pub(crate) fn into_bytes(self, mut write: impl FnMut(Waiting) -> Bytes) -> Bytes {
        let first = write(self.first);
        if self.more.is_empty() {
            return first;
        }
        let rest = self.more.into_iter().map(write);
        std::iter::once(first).chain(rest).flatten().collect::<Vec<u8>>().into()
    }
}

/// One stream's pace.
pub(crate) struct Valve {
    /// `None`: as fast as it comes.
    lane: Option<Ticket>,
    /// It is paced no more.
    is_open: bool,
    client: Arc<Client>,
    dialect: Dialect,
    hold_max: Duration,
    held_since: Option<Instant>,
    look: Duration,
    alarm: Alarm,
}

impl Valve {
    pub(crate) fn new(
        lane: Option<Ticket>,
        client: Arc<Client>,
        dialect: Dialect,
        hold_max: Duration,
    ) -> Self {
        let alarm = Alarm::default();
        let (is_open, held_since, look) = (false, None, LOOK[0]);
        Self { lane, is_open, client, dialect, hold_max, held_since, look, alarm }
    }

    /// Whether nothing goes through because the client takes nothing. A moment of that is no hold: every path has some.
    pub(crate) fn is_held(&self) -> bool {
        self.held_since.is_some_and(|since| since.elapsed() >= MOMENT)
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&mut self) {
        self.is_open = true;
        self.step_aside();
        self.flows();
    }

    fn step_aside(&self) {
        if let Some(lane) = &self.lane {
            lane.step_aside();
        }
    }

    /// What is seen of the client's connection, if anybody looks.
    pub(crate) fn sight(&self) -> Option<Sight> {
        self.lane.as_ref().map(Ticket::sight)
    }

    /// So much was handed on.
    pub(crate) fn sent(&mut self, tokens: u32, bytes: usize) {
        if let Some(lane) = &mut self.lane {
            lane.sent(tokens, bytes as u64);
        }
    }

    /// The next event or group, when it may go. `more` may come soon. An error ends the stream: the client is gone.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        queue: &mut VecDeque<Waiting>,
        more: bool,
    ) -> Poll<Result<Through, Failure>> {
        let Some(first) = queue.front() else { return Poll::Pending };
        if self.client.is_clogged() {
            // More would lie in the HTTP library's buffer, and nobody would ask us any more.
            return self.hold(context);
        }
        // The kernel cannot tell text from other bytes on its connection.
        let is_paced = !self.is_open && !self.client.has_strangers();
        let Some(lane) = self.lane.as_mut().filter(|_| is_paced) else {
            self.step_aside();
            self.flows();
            return self.give(queue, 1);
        };
        if first.tokens == 0 {
            return self.give(queue, 1);
        }
        let is_narrow = lane.is_narrow();
        let group = if is_narrow { texts(queue) } else { 1 };
        let tokens = queue.iter().take(group).map(|waiting| waiting.tokens).sum();
        if is_narrow && more && group < GROUP && group == queue.len() {
            let due = first.since + GATHER;
            if !self.alarm.is_due(context, due) {
                lane.step_aside();
                return Poll::Pending;
            }
        }
        match lane.admit(tokens) {
            Admission::Now => {
                self.flows();
                self.give(queue, group)
            }
            _ if lane.gone().is_some() => Poll::Ready(Err(Failure::ClientSilent)),
            Admission::Wait(wait) => {
                self.flows();
                self.wait(context, wait)
            }
            Admission::Hold => self.hold(context),
        }
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
        if held >= MOMENT
            && let Some(lane) = &self.lane
        {
            lane.was_held(now);
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

    fn give(&self, queue: &mut VecDeque<Waiting>, count: usize) -> Poll<Result<Through, Failure>> {
        self.take(queue, count).map_or(Poll::Pending, |through| Poll::Ready(Ok(through)))
    }

    /// Takes a group of `count` out, as one event as far as they are alike.
    fn take(&self, queue: &mut VecDeque<Waiting>, count: usize) -> Option<Through> {
        let mut through = Through { first: queue.pop_front()?, more: Vec::new() };
        for waiting in queue.drain(..(count - 1).min(queue.len())) {
            let last = through.more.last_mut().unwrap_or(&mut through.first);
            match merge(self.dialect, &last.piece, &waiting.piece) {
                Some(piece) => {
                    last.piece = piece;
                    last.tokens += waiting.tokens;
                }
                None => through.more.push(waiting),
            }
        }
        Some(through)
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
