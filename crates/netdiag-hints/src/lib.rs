//! The recommended token rate, for whoever generates: served over HTTP, and pushed over a message bus.
//!
//! [`router`] turns a stream of [`Board`]s (one per sampling interval) into an `axum::Router`, which `netdiag-http` serves
//! and guards.
//!
//! Invariants: staleness is judged when a request comes, never stored, so a dead probe is noticed without its help; a
//! slow or stuck client holds one connection and the newest board, never a queue.

#![forbid(unsafe_code)]

mod board;
pub mod bus;
mod events;
mod fleet_routes;
mod metrics;
mod query;
mod routes;

pub use board::{Board, Carried, StreamEntry};
pub use fleet_routes::{fleet_metrics, fleet_router, fleet_router_and_metrics};
pub use metrics::hint_metrics;
pub use routes::{Options, router, router_and_metrics};
