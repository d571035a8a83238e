//! An answer in segments: a long request as a row of short ones, each of which goes on where the one before has ended.
//!
//! With an engine that keeps prefixes cached, a continuation costs it a step, and between two segments it owes the client nothing. So
//! a client that falls silent costs one segment, whatever the engine, and no engine has to be changed. To the client it is one
//! stream.
//!
//! Everything here is pure: [`plan`] turns a request and the text so far into the next request, [`stitch`] turns the engine's events
//! into the client's. Who asks, and when, is [`crate::adapter::segmented`].
//!
//! Invariant: for whatever text and wherever it was cut, text, reason and tokens are those of one request to an engine that says the
//! same after the same words.

pub(crate) mod plan;
pub(crate) mod stitch;
mod stops;

#[cfg(test)]
mod tests;
