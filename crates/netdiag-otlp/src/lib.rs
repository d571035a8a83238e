//! Pushes a process' metrics to an OpenTelemetry collector: OTLP over HTTP, as Protobuf (opentelemetry.io/docs/specs/otlp).
//!
//! There is one account of metrics, `prometheus-client`'s, and what it writes is what is translated here: whoever compares `/metrics`
//! with what a collector has finds the same numbers. Counters and histograms are cumulative, so an export that is lost costs
//! resolution and no count; that is why nothing is queued. The newest values are tried until there are newer ones.
//!
//! Invariants: a collector that is away, slow or wrong costs one connection, one snapshot and two lines of the log. What is in
//! headers is never shown.

#![forbid(unsafe_code)]

mod endpoint;
mod export;
mod exposition;
mod headers;
mod post;
mod translate;

pub use endpoint::{Endpoint, InvalidEndpoint};
pub use export::{Settings, export};
pub use headers::{Headers, InvalidHeaders, pairs};
