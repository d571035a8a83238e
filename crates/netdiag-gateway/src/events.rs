//! An event stream on its way to a client, event by event.
//!
//! Only whole events are handed on, so that whatever happens to the engine the stream can end with one of ours. A few are read
//! ahead, which evens out an engine's bursts; while the client takes no more, the engine is not read.
//!
//! Invariants: a stream goes out on one connection at a time, and only whoever has it touches it. When this body is dropped the
//! stream is over for everybody, or waits for its client to come back.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Instant;

use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::flow::Flow;
use crate::live::{Hand, Live, Slot, Wish};
use crate::socket::Client;
use crate::valve::{Alarm, Valve};
use crate::{Phase, Shared};

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
    /// By which the stream is ours.
    hand: Hand,
    side: Side,
    is_over: bool,
}

/// The client's side.
struct Side {
    manner: Manner,
    valve: Valve,
    quiet: Alarm,
    handed_on: Instant,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Failure>>>;

impl Events {
    pub(crate) fn new(
        gateway: Arc<Shared>,
        (live, hand): (Arc<Live>, Hand),
        manner: Manner,
        valve: Valve,
    ) -> Self {
        let (quiet, handed_on) = (Alarm::default(), Instant::now());
        let side = Side { manner, valve, quiet, handed_on };
        if *gateway.phase.borrow() >= Phase::Ending {
            // Too late to be told with all others.
            live.wish(Wish::Drain);
        }
        Self { gateway, live, hand, side, is_over: false }
    }

    /// What goes to the client next.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut slot = self.live.slot();
        let Slot { hand, flow, handed, lost, .. } = &mut *slot;
        if *hand != self.hand {
            self.is_over = true;
            // It may be long until this is dropped, and nobody is to wait behind it.
            self.side.valve.open();
            return Poll::Ready(Some(match lost {
                // It is not told as a broken connection, after which clients would come back and take it back.
                Failure::TakenOver => Ok(Frame::data(lost.event(self.live.about.dialect).into())),
                lost => Err(lost.clone()),
            }));
        }
        let Some(flow) = flow else {
            self.is_over = true;
            return Poll::Ready(Some(Err(lost.clone())));
        };
        *handed = None;
        if !flow.has_ended()
            && let Some(failure) = self.live.poll_wish(context)
        {
            flow.break_off(failure);
            // Nobody waits for a pace at the end.
            self.side.valve.open();
        }
        let polled = self.side.poll(context, &self.live, flow);
        match &polled {
            Poll::Ready(Some(Ok(_))) => *handed = Some(Instant::now()),
            Poll::Ready(Some(Err(_))) => {
                drop(slot);
                // The engine is to stop in this moment, and not when the connection is done.
                self.leave();
            }
            _ => {}
        }
        polled
    }

    fn leave(&mut self) {
        self.is_over = true;
        let sight = self.side.valve.sight();
        self.gateway.live.leave(&self.gateway, &self.live, self.hand, sight.as_ref());
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Side {
    fn poll(&mut self, context: &mut Context<'_>, live: &Live, flow: &mut Flow) -> Polled {
        loop {
            if flow.queue.is_empty() && !flow.has_source() {
                let last = self.report(flow).or_else(|| flow.take_trailers());
                return Poll::Ready(last.map(Ok));
            }
            if let Poll::Ready(through) = self.hand_on(context, live, flow) {
                return Poll::Ready(Some(through.map(Frame::data)));
            }
            if flow.queue.len() >= AHEAD || !self.read(context, flow) {
                return self.keep_alive(context, flow);
            }
        }
    }

    /// The next event, if it may go.
    fn hand_on(
        &mut self,
        context: &mut Context<'_>,
        live: &Live,
        flow: &mut Flow,
    ) -> Poll<Result<Bytes, Failure>> {
        let more = flow.has_source();
        let through = self.valve.poll(context, &mut flow.queue, more);
        if flow.hold(self.valve.is_held()) {
            live.set_held(self.valve.is_held());
        }
        through.map(|through| match through {
            Ok(through) => {
                let tokens = through.tokens();
                let bytes = flow.hand_on(through);
                self.valve.sent(tokens, bytes.len());
                if self.manner.keep_alive.is_some() {
                    self.handed_on = Instant::now();
                }
                live.update(flow.meter());
                Ok(bytes)
            }
            Err(failure) => {
                if !flow.can_be_resumed() {
                    flow.give_up(failure.clone());
                }
                Err(failure)
            }
        })
    }

    fn read(&mut self, context: &mut Context<'_>, flow: &mut Flow) -> bool {
        let has_come = flow.read(context);
        if flow.has_failed() {
            self.valve.open();
        }
        has_come
    }

    /// The comment that tells the client how its stream went, if it wants to know.
    fn report(&self, flow: &mut Flow) -> Option<Frame<Bytes>> {
        let summary = flow.take_report(self.valve.sight().as_ref()).filter(|_| self.manner.report);
        let summary = serde_json::to_string(&summary?).ok()?;
        Some(Frame::data(format!(": netdiag {summary}\n\n").into()))
    }

    /// A comment, if there has been nothing for long and the client takes something.
    fn keep_alive(&mut self, context: &mut Context<'_>, flow: &Flow) -> Polled {
        let Some(every) = self.manner.keep_alive.filter(|_| !self.valve.is_held()) else {
            return Poll::Pending;
        };
        if flow.is_opaque() || !self.quiet.is_due(context, self.handed_on + every) {
            return Poll::Pending;
        }
        self.handed_on = Instant::now();
        // To be woken for the next one.
        let _ = self.quiet.is_due(context, self.handed_on + every);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE)))))
    }
}

/// The client's side of a stream: what paces it, if it can be paced.
pub(crate) fn valve(gateway: &Shared, client: &Arc<Client>, dialect: Dialect) -> Valve {
    let lane = gateway.lanes.as_ref().and_then(|lanes| lanes.join(client));
    client.keep_little_unsent();
    if gateway.settings.resume_window.is_some() {
        client.keep_little_unacked();
    }
    Valve::new(lane, Arc::clone(client), dialect, gateway.hold_max())
}
