//! Streams whose client is gone: kept for a while, given to whoever comes back with their name, and ended if nobody does.
//!
//! A stream's name is the proof that it is one's own. The newest connection has it: the one before is most likely a dead one, of which
//! nobody has told us yet.
//!
//! Streams of which everything was handed on are kept as well, because handed on is not arrived; they have no engine and no
//! place any more, so they are bounded by what they keep.
//!
//! Invariants: what is parked is nobody's, and its engine held; it ends within the window and a look, or when the gateway does.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Hand, Live, Registry, Rest, Slot};
use crate::Shared;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::meter::Sight;
use crate::socket::Asking;
use crate::trace::label;

/// How often all streams are looked at: a client that asks for nothing is to be noticed within a second.
const LOOK: Duration = Duration::from_millis(250);

/// Most bytes that are kept of streams that are finished, all together: some two hundred whole tails, or sixteen thousand short answers.
const FINISHED: usize = 64 << 20;

/// What each of them takes besides its events.
const EACH: usize = 4 << 10;

/// Streams that are finished, the oldest first. Those that were taken again are still in it, and passed over.
#[derive(Debug, Default)]
pub(super) struct Finished {
    row: VecDeque<(Instant, String, usize)>,
    bytes: usize,
}

impl Registry {
    /// A connection is over. Its stream waits for the client to come back, if there is a window for that, or is over as well.
    pub(crate) fn leave(
        &self,
        gateway: &Shared,
        live: &Arc<Live>,
        hand: Hand,
        sight: Option<&Sight>,
    ) {
        let now = Instant::now();
        let mut slot = live.slot();
        if slot.hand != hand || slot.rest != Rest::Taken {
            return;
        }
        let Some(flow) = slot.flow.as_mut() else { return };
        flow.detach(sight);
        let window = gateway.settings.resume_window.filter(|_| !gateway.is_draining());
        if window.is_none() || !flow.can_be_resumed() {
            drop(slot);
            self.end_if(gateway, live, None, |slot| slot.hand == hand);
            return;
        }
        let is_finished = !flow.has_source();
        let bytes = flow.bytes() + EACH;
        flow.hold(true);
        if is_finished && flow.queue.is_empty() {
            flow.count(gateway, &live.about);
        }
        slot.rest = if is_finished { Rest::Finished(now) } else { Rest::Parked(now) };
        slot.asking = None;
        slot.handed = None;
        drop(slot);
        if is_finished {
            self.keep_finished(gateway, live, now, bytes);
        } else {
            tracing::debug!(id = label(&live.about.id), "stream is parked");
        }
    }

    /// Gives a stream to a client that has the events up to `after`, on another connection. `dialect` is that of its request, if
    /// that is one of the stream's API.
    pub(crate) fn resume(
        &self,
        id: &str,
        dialect: Option<Dialect>,
        after: u64,
        asking: Asking,
    ) -> Result<(Arc<Live>, Hand), Failure> {
        let live = self.get(id).ok_or(Failure::NoSuchStream)?;
        if dialect.is_some_and(|dialect| dialect != live.about.dialect) {
            return Err(Failure::NoSuchStream);
        }
        let mut slot = live.slot();
        let flow = slot.flow.as_mut().ok_or(Failure::NoSuchStream)?;
        flow.go_back(after)?;
        flow.hold(false);
        slot.hand = Hand(slot.hand.0 + 1);
        slot.lost = Failure::TakenOver;
        slot.handed = None;
        slot.rest = Rest::Taken;
        slot.peer = asking.peer();
        slot.asking = Some(asking);
        let hand = slot.hand;
        live.set_held(false);
        drop(slot);
        // Whoever had it is to learn that it is theirs no more.
        live.waker.wake();
        Ok((live, hand))
    }

    /// Looks after all streams, for ever.
    pub(crate) async fn watch(&self, gateway: &Shared) {
        loop {
            sleep(LOOK).await;
            for live in self.list() {
                self.look(gateway, &live, Instant::now());
            }
            self.forget_finished(gateway, Instant::now());
        }
    }

    /// Ends all streams that nobody has.
    pub(crate) fn end_at_rest(&self, gateway: &Shared) {
        for live in self.list() {
            self.end_at_rest_for(gateway, &live, &Failure::Draining);
        }
    }

    /// Ends a stream for this reason if nobody has it. Whether nobody has.
    pub(super) fn end_at_rest_for(&self, gateway: &Shared, live: &Live, why: &Failure) -> bool {
        self.end_if(gateway, live, Some(why), |slot| slot.rest != Rest::Taken)
    }

    /// Ends a stream if it is as the caller has found it: a client may have taken it since.
    fn end_if(
        &self,
        gateway: &Shared,
        live: &Live,
        why: Option<&Failure>,
        is_so: impl FnOnce(&Slot) -> bool,
    ) -> bool {
        let (flow, asking) = {
            let mut slot = live.slot();
            if !is_so(&slot) {
                return false;
            }
            (slot.flow.take(), slot.asking.take())
        };
        // Nobody can take it any more, listed or not.
        self.lock().remove(&live.about.id);
        drop(asking);
        let Some(mut flow) = flow else { return true };
        if let Some(why) = why.filter(|_| !flow.has_ended()) {
            flow.give_up(why.clone());
        }
        // The engine first.
        flow.leave_engine();
        flow.count(gateway, &live.about);
        true
    }

    /// Sees whether one has waited for too long: for a client to come back, or for one to take what it was given.
    fn look(&self, gateway: &Shared, live: &Arc<Live>, now: Instant) {
        let mut slot = live.slot();
        match slot.rest {
            Rest::Finished(_) => {}
            Rest::Parked(since) => {
                let window = gateway.settings.resume_window.unwrap_or_default();
                if now.duration_since(since) >= window {
                    drop(slot);
                    if self.end_if(gateway, live, None, |slot| slot.rest == Rest::Parked(since)) {
                        gateway.metrics.expired();
                    }
                }
            }
            // Over HTTP/2 a body is not polled while the client's window is exhausted, so it cannot see that for itself.
            Rest::Taken => {
                let Some(since) = slot.handed else { return };
                if now.duration_since(since) >= gateway.hold_max() {
                    let hand = slot.hand;
                    drop(slot);
                    self.give_up(gateway, live, hand);
                } else if now.duration_since(since) >= LOOK
                    && slot.flow.as_mut().is_some_and(|flow| flow.hold(true))
                {
                    live.set_held(true);
                }
            }
        }
    }

    /// Takes a stream from a client that takes nothing.
    fn give_up(&self, gateway: &Shared, live: &Arc<Live>, hand: Hand) {
        {
            let mut slot = live.slot();
            if slot.hand != hand || slot.rest != Rest::Taken {
                return;
            }
            let Some(flow) = slot.flow.as_mut() else { return };
            if !flow.can_be_resumed() {
                flow.give_up(Failure::ClientSilent);
            }
            // Its connection may ask before all of this is done.
            slot.lost = Failure::ClientSilent;
        }
        self.leave(gateway, live, hand, None);
        let mut slot = live.slot();
        if slot.hand == hand {
            slot.hand = Hand(hand.0 + 1);
            drop(slot);
            live.waker.wake();
        }
    }

    fn keep_finished(&self, gateway: &Shared, live: &Live, since: Instant, bytes: usize) {
        {
            let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
            finished.row.push_back((since, live.about.id.clone(), bytes));
            finished.bytes += bytes;
        }
        self.forget_finished(gateway, since);
    }

    /// Forgets what has been kept for long enough, and the oldest if it is too much.
    fn forget_finished(&self, gateway: &Shared, now: Instant) {
        let window = gateway.settings.resume_window.unwrap_or_default();
        loop {
            let (since, id) = {
                let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
                let is_much = finished.bytes > FINISHED;
                let Some(&(since, _, bytes)) = finished.row.front() else { return };
                if !is_much && now.duration_since(since) < window {
                    return;
                }
                finished.bytes -= bytes;
                let Some((_, id, _)) = finished.row.pop_front() else { return };
                (since, id)
            };
            let Some(live) = self.get(&id) else { continue };
            self.end_if(gateway, &live, None, |slot| slot.rest == Rest::Finished(since));
        }
    }
}
