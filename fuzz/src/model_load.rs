//! Model files: any bytes are refused with a message, or are a model that judges links as any other does.
//!
//! An input is a file, and after its last NUL (which JSON never has) the intervals that are judged by it. So a seed is a plain
//! model file, and the fuzzer adds intervals as it finds them.

use arbitrary::Unstructured;
use netdiag_health::Model;

use crate::check_message;
use crate::judge::{check_model, observations};

/// Panics if a model file is refused with a message that cannot be shown, or is a model that does not judge as
/// [`check_model`] wants it.
pub fn model_load(input: &[u8]) {
    let (file, intervals) = parts(input);
    match Model::parse(file) {
        Ok(model) => check_model(&model, &observations(&mut Unstructured::new(intervals))),
        Err(error) => check_message(&error.to_string()),
    }
}

/// The file and the intervals of an input.
pub(crate) fn parts(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().rposition(|&byte| byte == 0) {
        Some(nul) => (&input[..nul], &input[nul + 1..]),
        None => (input, &[]),
    }
}
