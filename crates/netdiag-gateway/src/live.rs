//! The event streams that are being passed on, or wait for a client to come back: each with its name, what is known of it, and ways
//! to end it and to take it over ([`parking`]).
//!
//! Invariant: a stream is here exactly as long as a client could have more of it.

mod parking;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use serde::Serialize;
use tokio::time::Instant;

use crate::Shared;
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::flow::Flow;
use crate::meter::Meter;
use crate::socket::Asking;
use crate::trace::label;
use parking::Finished;

/// All of them.
#[derive(Default)]
pub(crate) struct Registry {
    all: Mutex<HashMap<String, Arc<Live>>>,
    finished: Mutex<Finished>,
}

/// What is fixed about a stream.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) id: String,
    pub(crate) peer: SocketAddr,
    pub(crate) dialect: Dialect,
    /// As the client asked for it.
    pub(crate) model: Option<String>,
    /// The engine's address, for those who run the gateway.
    pub(crate) engine: String,
    /// When the request came.
    pub(crate) asked: Instant,
}

/// A stream.
pub(crate) struct Live {
    pub(crate) about: About,
    slot: Mutex<Slot>,
    generated: AtomicU64,
    sent: AtomicU64,
    /// Until the first token, nanoseconds; 0: none has come.
    ttft: AtomicU64,
    held: AtomicBool,
    /// A [`Wish`].
    wish: AtomicU8,
    waker: AtomicWaker,
}

/// A connection's hold on a stream. Who takes a stream gets a new one, and all others are none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hand(u64);

/// The stream itself, and whose it is.
pub(crate) struct Slot {
    /// Whose it is, or was last.
    pub(crate) hand: Hand,
    /// `None` once it is over.
    pub(crate) flow: Option<Box<Flow>>,
    /// When its connection was given something, and has not asked for more since.
    pub(crate) handed: Option<Instant>,
    /// Why it is nobody else's.
    pub(crate) lost: Failure,
    /// Counts as a request of its connection's.
    asking: Option<Asking>,
    peer: SocketAddr,
    rest: Rest,
}

/// Whether a client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// One has.
    Taken,
    /// None has since then, and the engine is held.
    Parked(Instant),
    /// All of it was handed on by then, which is not to say that it has arrived.
    Finished(Instant),
}

/// How many streams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that a client has.
    pub(crate) taken: usize,
    /// Those that wait for one.
    pub(crate) parked: usize,
}

/// Why a stream is to end. The number is its place in an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wish {
    /// The gateway ends.
    Drain = 1,
    /// Somebody asked for it.
    Stop = 2,
}

/// A stream as others see it.
#[derive(Clone, Debug, Serialize)]
pub struct StreamView {
    /// The beginning of its name, which its client was told in `x-netdiag-stream-id`: who knows all of it may take the stream.
    pub id: String,
    /// The client's address.
    pub peer: SocketAddr,
    /// The model that was asked for, if the request could be read.
    pub model: Option<String>,
    /// The engine that answers.
    pub engine: String,
    /// Time since the request came.
    pub age_seconds: f64,
    /// Time until the first token, once it has come.
    pub ttft_seconds: Option<f64>,
    /// Tokens that the engine has sent.
    pub generated: u64,
    /// Tokens that were handed on.
    pub sent: u64,
    /// Nothing is handed on now, because the client's path takes nothing.
    pub held: bool,
    /// The client's connection is gone, and the stream waits for it to come back.
    pub parked: bool,
    /// For whom it waits now (`engine`, `path`, `reader` or `pacer`), if it is paced.
    pub cause: Option<&'static str>,
}

impl Registry {
    /// Lists a stream, which is the caller's.
    pub(crate) fn add(&self, about: About, flow: Flow, asking: Asking) -> (Arc<Live>, Hand) {
        let hand = Hand(0);
        let slot = Slot {
            hand,
            flow: Some(Box::new(flow)),
            handed: None,
            lost: Failure::TakenOver,
            asking: Some(asking),
            peer: about.peer,
            rest: Rest::Taken,
        };
        let live = Arc::new(Live {
            about,
            slot: Mutex::new(slot),
            generated: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            ttft: AtomicU64::new(0),
            held: AtomicBool::new(false),
            wish: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        });
        self.lock().insert(live.about.id.clone(), Arc::clone(&live));
        (live, hand)
    }

    /// Ends a stream: its client gets a last event if there is one. Whether there is a stream of this name.
    pub(crate) fn stop(&self, gateway: &Shared, id: &str) -> bool {
        let Some(live) = self.get(id) else { return false };
        if !self.end_at_rest_for(gateway, &live, &Failure::Stopped) {
            live.wish(Wish::Stop);
        }
        true
    }

    /// The same for those who run the gateway, who see the beginnings of names.
    pub(crate) fn stop_by_label(&self, gateway: &Shared, shown: &str) -> bool {
        let found = self.lock().keys().find(|id| label(id) == shown).cloned();
        self.stop(gateway, found.as_deref().unwrap_or(shown))
    }

    /// Ends all of them.
    pub(crate) fn drain(&self) {
        // Waking is not for under the lock: whoever is woken may want it.
        self.list().iter().for_each(|live| live.wish(Wish::Drain));
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for live in self.list() {
            match live.slot().rest {
                Rest::Taken => counts.taken += 1,
                Rest::Parked(_) => counts.parked += 1,
                Rest::Finished(_) => {}
            }
        }
        counts
    }

    /// All that are not finished, the oldest first.
    pub(crate) fn views(&self) -> Vec<StreamView> {
        let mut all = self.list();
        all.sort_by_key(|live| live.about.asked);
        all.iter().filter_map(|live| live.view()).collect()
    }

    fn get(&self, id: &str) -> Option<Arc<Live>> {
        self.lock().get(id).cloned()
    }

    fn list(&self) -> Vec<Arc<Live>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Why the stream is to end, if it is. Otherwise whoever polls is woken when it should.
    pub(crate) fn poll_wish(&self, context: &mut Context<'_>) -> Option<Failure> {
        self.waker.register(context.waker());
        match self.wish.load(Ordering::Acquire) {
            0 => None,
            wish if wish == Wish::Stop as u8 => Some(Failure::Stopped),
            _ => Some(Failure::Draining),
        }
    }

    /// Who holds it must not want any other lock of these, nor the registry's.
    pub(crate) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, meter: &Meter) {
        let (generated, sent) = meter.tokens();
        self.generated.store(generated, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
        if let Some(ttft) = meter.ttft() {
            let nanos = u64::try_from(ttft.as_nanos()).unwrap_or(u64::MAX).max(1);
            self.ttft.store(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(crate) fn wish(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Nothing of one that is finished.
    fn view(&self) -> Option<StreamView> {
        let (rest, peer) = {
            let slot = self.slot();
            (slot.rest, slot.peer)
        };
        let ttft = self.ttft.load(Ordering::Relaxed);
        let view = StreamView {
            id: label(&self.about.id).to_owned(),
            peer,
            model: self.about.model.clone(),
            engine: self.about.engine.clone(),
            age_seconds: self.about.asked.elapsed().as_secs_f64(),
            ttft_seconds: (ttft > 0).then(|| Duration::from_nanos(ttft).as_secs_f64()),
            generated: self.generated.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            parked: matches!(rest, Rest::Parked(_)),
            cause: None,
        };
        (!matches!(rest, Rest::Finished(_))).then_some(view)
    }
}
