//! From link telemetry to tokens per second.
//!
//! Pure: no I/O, no async, no clock. Time comes in as an argument, so that a whole day of pacing runs in a test within
//! a second.
//!
//! - [`Classic`] maps a link's health to a rate: the original project's policy, for input that knows no more than a CSV
//!   row does.
//! - [`allocate`] shares the capacity of one engine among streams.
//! - [`TokenBucket`] spaces tokens at whatever rate a policy gives.
//! - [`Hint`] is the recommendation in its published form.

#![forbid(unsafe_code)]

mod allocator;
mod bucket;
mod classic;
mod hint;

pub use allocator::{Claim, InvalidClaim, allocate};
pub use bucket::TokenBucket;
pub use classic::{Classic, Judgement, Observation};
pub use hint::{Hint, InvalidRange, State, TpsRange, WhenStale};
