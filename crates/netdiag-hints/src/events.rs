//! `GET /v1/events`: hints pushed as server-sent events, as often as they are made: per sampling interval, or ten times a second where
//! flows are paced.
//!
//! With `rows=true` the first one of an interval is preceded by the interval itself, an event `row` whose data is a line of `net_data.csv`.
//!
//! Each stream waits on the board's watch channel, which holds the newest board and nothing else: a client that reads
//! slowly misses boards, and a client that does not read at all holds one event and one permit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use netdiag_http::Problem;
use netdiag_telemetry::csv;
use tokio::sync::Semaphore;

use crate::query::Target;
use crate::routes::Shared;

/// Event streams open at once; more get 503. Each is a connection, of which there are [`netdiag_http::Limits`] of.
const MOST_STREAMS: usize = 256;

/// A comment is sent on a quiet stream this often, so that proxies keep it open and a dead client is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The permits for event streams.
pub(crate) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_STREAMS))
}

/// The response: the present hint at once, then one per board; `rows` for the host's rows between them.
pub(crate) fn respond(shared: &Shared, target: Target, rows: bool) -> Response {
    let Ok(permit) = Arc::clone(&shared.event_permits).try_acquire_owned() else {
        let message =
            format!("{MOST_STREAMS} event streams are open already; poll /v1/hint instead");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let mut boards = shared.boards.clone();
    boards.mark_changed();
    let state = (boards, shared.clone(), permit, None);
    let events = stream::unfold(state, move |(mut boards, shared, permit, mut told)| async move {
        // Without a new board the hint goes stale, which must be told too. A board that will never come ends the stream.
        let changed = tokio::time::timeout(shared.options.stale_after, boards.changed()).await;
        let row = match changed {
            Ok(Ok(())) if rows => boards.borrow_and_update().row,
            Ok(Ok(())) | Err(_) => None,
            Ok(Err(_closed)) => return None,
        };
        // Hints may come more often than intervals.
        let row = row.filter(|row| told != Some(*row));
        told = row.or(told);
        let row =
            row.map(|row| Event::default().event("row").data(csv::format_row(&row).trim_end()));
        let hint = shared.hint(target);
        let hint = Event::default().event("hint").json_data(&hint).unwrap_or_default();
        let events = row.into_iter().chain([hint]).map(Ok::<_, Infallible>);
        Some((stream::iter(events), (boards, shared, permit, told)))
    });
    let events = Sse::new(events.flatten()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx would collect events before it passes them on.
    ([("x-accel-buffering", "no")], events).into_response()
}
