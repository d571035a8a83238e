//! `GET /api/events`: history, then news, as one stream of server-sent events.
//!
//! The body is polled, never pushed: a viewer that reads slowly is behind, and catches up with what is kept. What it holds is
//! its position and the few events on their way; history is shared. One that has not read for a while is dropped and counted,
//! because its place is somebody else's: here when it is polled again, and by the server (`netdiag_http::GivenUp`) when it never
//! is.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use netdiag_http::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::feed::{Feed, News, Position};
use crate::metrics::Metrics;

/// Event streams open at once; more get 503.
pub(crate) const MOST_VIEWERS: usize = 256;

/// A viewer that takes nothing for so long does not look.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// How soon a browser asks again after a stream has ended, milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// One open stream.
struct Viewer {
    feed: Feed,
    changes: watch::Receiver<u64>,
    position: Position,
    queue: VecDeque<News>,
    /// Since when the connection has not asked for more.
    given: Option<Instant>,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

/// The response: everything there is, then what comes.
pub(crate) fn respond(feed: &Feed, metrics: &Metrics, permits: &Arc<Semaphore>) -> Response {
    let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
        metrics.refused.inc();
        let message = format!("{MOST_VIEWERS} dashboards are open already; close one of them");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    // Before the position is taken, so that nothing falls between the two.
    let changes = feed.changes();
    let (position, news) = feed.all();
    let mut queue = VecDeque::from([News::Event(Bytes::from_static(RETRY.as_bytes()))]);
    queue.extend(news);
    metrics.viewers.inc();
    let viewer = Viewer {
        feed: feed.clone(),
        changes,
        position,
        queue,
        given: None,
        metrics: metrics.clone(),
        _permit: permit,
    };
    let body = Body::from_stream(stream::unfold(viewer, async |mut viewer| {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would collect events before it passes them on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

impl Viewer {
    /// The next event; `None` ends the stream, and the browser asks anew.
    async fn next(&mut self) -> Option<Bytes> {
        if self.given.take().is_some_and(|at| at.elapsed() > SLOW_AFTER) {
            self.metrics.dropped.inc();
            return None;
        }
        loop {
            if let Some(news) = self.queue.pop_front() {
                self.given = Some(Instant::now());
                return Some(news.into_event());
            }
            // Without news the hint goes stale, which must be told too.
            let changed = tokio::time::timeout(self.feed.patience(), self.changes.changed());
            if matches!(changed.await, Ok(Err(_))) {
                return None;
            }
            self.queue.extend(self.feed.news(&mut self.position)?);
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.metrics.viewers.dec();
    }
}
