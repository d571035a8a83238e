//! The engines: which is asked next, who is taken for broken, and connections that wait to be used again.
//!
//! An engine is left out when it cannot be reached, or has broken off three requests running before their first byte,
//! and comes back when a health check finds it well (see [`health`]). If all are left out, they are tried all the same: a
//! wrong verdict must not cost more than the fault itself.
//!
//! Invariant: `outstanding` counts exactly the [`Seat`]s there are.

pub(crate) mod health;
pub(crate) mod link;
mod url;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_rustls::TlsConnector;

use link::Link;
pub use url::{InvalidUpstream, UpstreamUrl};

/// Connections that may wait for another request, for each engine. More come from bursts, and bursts pass.
const MOST_IDLE: usize = 64;

/// How long they may wait. Engines close idle connections after five seconds (uvicorn) to minutes.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// Requests in a row that an engine may break off before it is left out: the first may be the request's own fault.
const FAILURES: u32 = 3;

/// One engine.
pub(crate) struct Upstream {
    url: UpstreamUrl,
    tls: Option<TlsConnector>,
    outstanding: AtomicUsize,
    healthy: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    idle: Mutex<Vec<Link>>,
}

/// All of them.
pub(crate) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    /// Moves on with each choice, so that equals take turns.
    turn: AtomicUsize,
}

/// A request's place at an engine, while it lasts.
pub(crate) struct Seat(Arc<Upstream>);

impl Upstreams {
    pub(crate) fn new(urls: &[UpstreamUrl], tls: &TlsConnector) -> Self {
        let engine = |url: &UpstreamUrl| {
            Arc::new(Upstream {
                url: url.clone(),
                tls: url.is_tls().then(|| tls.clone()),
                outstanding: AtomicUsize::new(0),
                // Until shown otherwise, so that the first request need not wait for a check.
                healthy: AtomicBool::new(true),
                failures: AtomicU32::new(0),
                idle: Mutex::default(),
            })
        };
        Self { all: urls.iter().map(engine).collect(), turn: AtomicUsize::new(0) }
    }

    pub(crate) fn all(&self) -> &[Arc<Upstream>] {
        &self.all
    }

    /// A seat at the engine with the fewest requests, of those that are well and were not `tried` yet.
    pub(crate) fn choose(&self, tried: &[Seat]) -> Option<Seat> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        let (before, after) = self.all.split_at(turn.min(self.all.len()));
        let fresh =
            |engine: &&Arc<Upstream>| !tried.iter().any(|seat| Arc::ptr_eq(&seat.0, engine));
        let candidates = || after.iter().chain(before).filter(fresh);
        let least = |engine: &&Arc<Upstream>| engine.outstanding();
        let chosen = candidates()
            .filter(|engine| engine.is_healthy())
            .min_by_key(least)
            .or_else(|| candidates().min_by_key(least))?;
        chosen.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Seat(Arc::clone(chosen)))
    }
}

impl Upstream {
    pub(crate) fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    /// Requests that it has and has not finished.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Whether it is asked.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// It has answered.
    pub(crate) fn works(&self) {
        self.failures.store(0, Ordering::Relaxed);
        if !self.healthy.swap(true, Ordering::Relaxed) {
            tracing::info!(engine = %self.url, "engine is well again");
        }
    }

    /// It has broken off a request before the first byte of an answer.
    pub(crate) fn failed(&self, why: &dyn std::fmt::Display) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.is_down(why);
        }
    }

    /// It is not to be asked until a health check finds it well.
    pub(crate) fn is_down(&self, why: &dyn std::fmt::Display) {
        if self.healthy.swap(false, Ordering::Relaxed) {
            tracing::warn!(engine = %self.url, %why, "engine is left out until it is well again");
        }
    }

    /// A connection that waits to be used again, if one does and the engine still holds it.
    pub(crate) fn rested(&self) -> Option<Link> {
        loop {
            // The last one in is the least likely to be closed soon.
            let mut link = self.idle().pop()?;
            if link.idle() < LONGEST_IDLE && link.is_ready() {
                return Some(link);
            }
        }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> io::Result<Link> {
        Link::open(&self.url, self.tls.as_ref()).await
    }

    /// Keeps a connection for another request.
    pub(crate) fn rest(&self, link: Link) {
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(link);
        }
    }

    /// Closes what has waited for too long, and what the engine has closed.
    pub(crate) fn tidy(&self) {
        self.idle().retain_mut(|link| link.idle() < LONGEST_IDLE && link.is_ready());
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        // Each change is complete in itself.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(crate) fn engine(&self) -> &Upstream {
        &self.0
    }

    /// The engine, for longer than the request.
    pub(crate) fn shared(&self) -> Arc<Upstream> {
        Arc::clone(&self.0)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::connector;

    fn engines(count: usize) -> Upstreams {
        let urls: Vec<UpstreamUrl> = (0..count)
            .map(|n| format!("http://127.0.0.1:{}", 8000 + n).parse().expect("valid"))
            .collect();
        Upstreams::new(&urls, &connector(rustls::RootCertStore::empty()).expect("ring"))
    }

    fn port(seat: &Seat) -> u16 {
        seat.engine().url().address().1
    }

    #[test]
    fn the_engine_with_the_fewest_requests_is_next() {
        let engines = engines(3);
        let seats: Vec<Seat> = (0..6).filter_map(|_| engines.choose(&[])).collect();
        assert!(engines.all().iter().all(|engine| engine.outstanding() == 2));
        let busy: Vec<Seat> = seats.into_iter().filter(|seat| port(seat) != 8001).collect();
        assert_eq!(engines.choose(&[]).as_ref().map(port), Some(8001));
        drop(busy);
        assert!(engines.all().iter().all(|engine| engine.outstanding() == 0));
    }

    #[test]
    fn no_engine_is_tried_twice_and_broken_ones_come_last() {
        let engines = engines(3);
        engines.all()[0].is_down(&"gone");
        let mut tried = Vec::new();
        while let Some(seat) = engines.choose(&tried) {
            tried.push(seat);
        }
        let ports: Vec<u16> = tried.iter().map(port).collect();
        assert_eq!((ports.len(), ports[2]), (3, 8000), "{ports:?}");
    }

    #[test]
    fn an_engine_is_left_out_after_three_failures_in_a_row() {
        let engines = engines(1);
        let engine = &engines.all()[0];
        engine.failed(&"x");
        engine.failed(&"x");
        engine.works();
        engine.failed(&"x");
        engine.failed(&"x");
        assert!(engine.is_healthy());
        engine.failed(&"x");
        assert!(!engine.is_healthy());
        engine.works();
        assert!(engine.is_healthy());
    }
}
