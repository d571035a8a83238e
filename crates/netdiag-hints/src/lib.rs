//! The hint server: the recommended token rate over HTTP.
//!
//! [`router`] turns a stream of [`Board`]s (one per sampling interval) into an `axum::Router`; [`serve`] runs a router on
//! a listener with limits on everything a client can send or hold. Who may ask is decided by an [`Exposure`], which
//! cannot be built open to the network by accident.
//!
//! Invariants: staleness is judged when a request comes, never stored, so a dead probe is noticed without its help; a
//! slow or stuck client holds one connection and the newest board, never a queue; a token is compared in constant time
//! and never shown.

#![forbid(unsafe_code)]

mod auth;
mod board;
mod events;
mod metrics;
mod problem;
mod query;
mod routes;
mod server;

pub use auth::{Exposure, ExposureError, Token};
pub use board::{Board, StreamEntry};
pub use routes::{Options, router};
pub use server::{Limits, serve};
