//! What must hold for any bytes that a file, a stream or a request may contain, as functions that panic where it does not.
//!
//! They are apart from the targets in `fuzz_targets/`, which only hand them libFuzzer's inputs, so that an ordinary test runs
//! them over the committed seeds as well and no target can rot unnoticed. Invariant: a function's outcome depends on its
//! input alone, so that an input that fails once fails always.

#![forbid(unsafe_code)]

mod csv_rows;
mod gateway_request;
mod judge;
mod model_judge;
mod model_load;
mod sse_split;

pub use csv_rows::csv_rows;
pub use gateway_request::gateway_request;
pub use model_judge::model_judge;
pub use model_load::model_load;
pub use sse_split::sse_split;

/// Panics unless a message can be shown to anyone: one line that a terminal shows as it is, and no longer than a paragraph,
/// whatever the file says.
fn check_message(message: &str) {
    const LONGEST: usize = 500;
    assert!(message.chars().count() <= LONGEST, "{} bytes of message", message.len());
    assert!(!message.contains(char::is_control), "control character in {message:?}");
}

#[cfg(test)]
mod tests;
