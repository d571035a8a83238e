//! From link telemetry to tokens per second.
//!
//! Pure: no I/O, no async, no clock. Time comes in as an argument, so that a whole day of pacing runs in a test within
//! a second.
//!
//! - [`Classic`] maps a link's health to a rate: the original project's policy, for input that knows no more than a CSV
//!   row does.
//! - [`Carry`] paces one flow by what the kernel says of it: what its path carries, and no more. [`Lead`] says how far ahead of its
//!   reader it should be, [`Attribution`] who makes it slow.
//! - [`Pacer`] is one stream's, for servers that ask before they generate.
//! - [`share`] gives each stream of an engine its rate, those whose clients run dry first; [`plan`] does it for who comes and goes,
//!   [`allocate`] is the arithmetic.
//! - [`fleet_level`] does it for streams that are spread over many hosts.
//! - [`TokenBucket`] spaces tokens at whatever rate a policy gives.
//! - [`Hint`] is the recommendation in its published form.

#![forbid(unsafe_code)]

mod allocator;
mod bucket;
mod carry;
mod classic;
mod fleet;
mod hint;
mod pacer;
mod plan;

pub use allocator::{Claim, InvalidClaim, allocate};
pub use bucket::TokenBucket;
pub use carry::{Attribution, Carry, Cause, Causes, Evidence, Lead, Look, Unread};
pub use classic::{Classic, Judgement, Observation};
pub use fleet::{Demand, InvalidDemand, Level, Share, Turn, fleet_level};
pub use hint::{Hint, InvalidRange, State, TpsRange, WhenStale};
pub use pacer::{Admission, Pacer, Report};
pub use plan::{Load, Need, plan, share};
