//! The event streams that are being passed on: each with its name, what is known of it, and a way to end it.
//!
//! Invariant: a stream is listed exactly as long as its body is there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use serde::Serialize;
use tokio::time::Instant;

use crate::dialect::Dialect;
use crate::failure::Failure;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<String, Arc<Live>>>);

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

/// A stream that is being passed on.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) about: About,
    generated: AtomicU64,
    sent: AtomicU64,
    /// Until the first token, nanoseconds; 0: none has come.
    ttft: AtomicU64,
    held: AtomicBool,
    /// A [`Wish`].
    wish: AtomicU8,
    waker: AtomicWaker,
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
    /// Its name, which its client was told in `x-netdiag-stream-id`.
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
    /// What it has waited for most so far (`engine`, `path`, `reader` or `pacer`), if it is paced and has waited.
    pub cause: Option<&'static str>,
}

impl Registry {
    /// Lists a stream; taken out with [`Registry::remove`].
    pub(crate) fn add(&self, about: About) -> Arc<Live> {
        let live = Arc::new(Live {
            about,
            generated: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            ttft: AtomicU64::new(0),
            held: AtomicBool::new(false),
            wish: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        });
        self.lock().insert(live.about.id.clone(), Arc::clone(&live));
        live
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Ends a stream. Whether there is one of this name.
    pub(crate) fn stop(&self, id: &str) -> bool {
        let found = self.lock().get(id).cloned();
        if let Some(live) = &found {
            live.wish(Wish::Stop);
        }
        found.is_some()
    }

    /// Ends all of them.
    pub(crate) fn drain(&self) {
        // Waking is not for under the lock: whoever is woken may want it.
        let all: Vec<_> = self.lock().values().cloned().collect();
        all.iter().for_each(|live| live.wish(Wish::Drain));
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// All of them, the oldest first.
    pub(crate) fn views(&self) -> Vec<StreamView> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|live| live.about.asked);
        all.iter().map(|live| live.view()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn update(&self, generated: u64, sent: u64, ttft: Option<Duration>) {
        self.generated.store(generated, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
        if let Some(ttft) = ttft {
            let nanos = u64::try_from(ttft.as_nanos()).unwrap_or(u64::MAX).max(1);
            self.ttft.store(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    fn wish(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::Release);
        self.waker.wake();
    }

    fn view(&self) -> StreamView {
        let ttft = self.ttft.load(Ordering::Relaxed);
        StreamView {
            id: self.about.id.clone(),
            peer: self.about.peer,
            model: self.about.model.clone(),
            engine: self.about.engine.clone(),
            age_seconds: self.about.asked.elapsed().as_secs_f64(),
            ttft_seconds: (ttft > 0).then(|| Duration::from_nanos(ttft).as_secs_f64()),
            generated: self.generated.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            cause: None,
        }
    }
}
