//! What the probe measures and everything above it reasons about: flows, link samples, their units and
//! their CSV form.
//!
//! This crate is pure: it does no I/O and reads no clock. Kernel sources (crate `netdiag-probe`) produce
//! [`FlowSnapshot`]s; [`FlowTable`] turns two consecutive views of the same flows into one [`LinkSample`]
//! per [`Scope`]; [`Window`] adds the rolling statistics that make a [`Row`] of `net_data.csv`.
//!
//! Invariant: an RTT *sample* (one measured round trip) and `srtt` (the kernel's moving average of them)
//! never share a field. The 95th percentile of an average is not the 95th percentile of the round trips.

#![forbid(unsafe_code)]

pub mod csv;
mod flow;
mod histogram;
mod room;
mod sample;
mod table;
mod units;
mod window;

pub use flow::{Counters, FlowKey, FlowSnapshot, Liveness, Scope, canonical};
pub use histogram::{BUCKETS, RttHistogram, RttSamples, bucket_bounds, bucket_of};
pub use room::give_back;
pub use sample::{LinkSample, Rolling, Row, RttSummary, Source};
pub use table::{FlowTable, Instant, StreamSample, Tick};
pub use units::{Bytes, InvalidTps, Tps};
pub use window::Window;
