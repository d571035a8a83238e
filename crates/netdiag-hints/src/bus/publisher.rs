//! Hints onto the bus: each board's, as far as they are news.
//!
//! Invariants: nothing waits for a broker: while there is no connection, or it is clogged, hints are dropped and counted, and after
//! it the newest are sent; within a session a greater number is a newer message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use netdiag_pacer::{Hint, WhenStale};
use netdiag_telemetry::Scope;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::connection::Bus;
use super::last_values::LastValues;
use super::message::NodeHint;
use super::selection::{Scopes, Selection};
use super::subject::{NodeName, key, subject};
use crate::board::Board;

/// Hints are repeated so often within their time to live: two may be lost.
const REPEATS: u32 = 3;

/// How long one message may wait for room on its way to the connection.
pub(super) const ROOM: Duration = Duration::from_millis(20);

/// How long what was sent last may take to leave when we end.
pub(super) const PARTING: Duration = Duration::from_millis(500);

/// What is published, and how.
#[derive(Clone, Debug)]
pub struct PublishSettings {
    /// Who says it.
    pub node: NodeName,
    /// Of which scopes, besides the host.
    pub scopes: Scopes,
    /// Most messages per second.
    pub rate: u32,
    /// Age at which telemetry is too old to act on; a hint's time to live.
    pub stale_after: Duration,
    /// What to recommend then.
    pub when_stale: WhenStale,
}

/// What has become of the bus, for metrics.
#[derive(Debug, Default)]
pub struct BusStatus {
    is_connected: AtomicBool,
    published: AtomicU64,
    dropped: AtomicU64,
    connections: AtomicU64,
    kept: AtomicU64,
}

impl BusStatus {
    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Messages that have left.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Messages that could not leave when they were new.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Connections made, the first included.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Values written for those who join late.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }
}

/// Publishes the newest of `boards` until `stop`, or until there are no more.
pub async fn publish(
    bus: &Bus,
    settings: &PublishSettings,
    mut boards: watch::Receiver<Arc<Board>>,
    status: &BusStatus,
    stop: impl Future<Output = ()>,
) {
    tracing::info!("bus {}: publishing as node {}", bus.place(), settings.node);
    let last_values = LastValues::default();
    let mut publisher = Publisher {
        settings,
        status,
        session: session(),
        sequence: 0,
        selection: Selection::new(settings.scopes, settings.stale_after / REPEATS),
        last_values: &last_values,
    };
    tokio::select! {
        () = publisher.publish(bus, &mut boards) => {}
        // Beside the hints: the bucket may take its time.
        () = last_values.keep(bus, &status.kept) => {}
        () = stop => {}
    }
    // What was said last should be heard.
    let _ = timeout(PARTING, bus.client.flush()).await;
    status.is_connected.store(false, Ordering::Relaxed);
}

/// Unix milliseconds: what a node's messages are ordered by across restarts.
pub(super) fn session() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or_default()
}

struct Publisher<'a> {
    settings: &'a PublishSettings,
    status: &'a BusStatus,
    session: u64,
    sequence: u64,
    selection: Selection,
    last_values: &'a LastValues,
}

impl Publisher<'_> {
    /// Publishes until there are no boards any more.
    async fn publish(&mut self, bus: &Bus, boards: &mut watch::Receiver<Arc<Board>>) {
        // Without a new board the hint goes stale, which must be told, too.
        let repeat = self.settings.stale_after / REPEATS;
        let mut last = None;
        let mut connections = bus.connections();
        boards.mark_changed();
        while !matches!(timeout(repeat, boards.changed()).await, Ok(Err(_ended))) {
            let board = Arc::clone(&boards.borrow_and_update());
            let now = Instant::now();
            self.status.is_connected.store(bus.is_connected(), Ordering::Relaxed);
            self.status.connections.store(bus.connections(), Ordering::Relaxed);
            // However short it was away: what was under way then is lost.
            if bus.connections() != connections {
                connections = bus.connections();
                self.selection.forget();
            }
            // The first may be as many as those of a whole time between two repetitions.
            let since = last.map_or(repeat, |last| now.saturating_duration_since(last));
            last = Some(now);
            self.send(bus, &board, now, since.min(repeat)).await;
        }
    }

    /// Sends what is news of a board; `since` is the time since the last one.
    async fn send(&mut self, bus: &Bus, board: &Board, now: Instant, since: Duration) {
        let budget = (f64::from(self.settings.rate) * since.as_secs_f64()).ceil() as usize;
        let taken = self.selection.take(board, now, budget);
        let mut left = taken.len() as u64;
        for (scope, hint) in taken {
            if !bus.is_connected() {
                break;
            }
            let (key, payload) = self.message(board, &scope, hint);
            match timeout(ROOM, bus.client.publish(subject(&key), payload.clone())).await {
                Ok(Ok(())) => self.sequence += 1,
                Ok(Err(error)) => {
                    tracing::debug!("bus: {key}: {error}");
                    continue;
                }
                // It is clogged; the next board will be newer.
                Err(_) => break,
            }
            self.last_values.set(key, payload, scope == Scope::Host);
            self.status.published.fetch_add(1, Ordering::Relaxed);
            left -= 1;
        }
        if left > 0 {
            self.status.dropped.fetch_add(left, Ordering::Relaxed);
            self.selection.forget();
        }
    }

    fn message(&self, board: &Board, scope: &Scope, hint: &Hint) -> (String, Bytes) {
        let PublishSettings { node, stale_after, when_stale, .. } = self.settings;
        let is_host = *scope == Scope::Host;
        let message = NodeHint {
            node: node.clone(),
            session: self.session,
            sequence: self.sequence + 1,
            time: unix_time().as_secs_f64(),
            ttl_seconds: stale_after.as_secs_f64(),
            streams: (is_host && !board.host_only).then(|| board.streams().len()),
            hint: board.present(hint.clone(), *stale_after, *when_stale),
        };
        let json = serde_json::to_vec(&message).unwrap_or_default();
        (key(node, scope), json.into())
    }
}

/// The time since 1970 by this host's clock.
pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
