//! From link telemetry to tokens per second.
//!
//! Pure: no I/O, no async, no clock. Time comes in as an argument, so that a whole day of pacing runs in a test within
//! a second.

#![forbid(unsafe_code)]

mod hint;

pub use hint::{Hint, State};
