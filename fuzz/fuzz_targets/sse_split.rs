//! Hands libFuzzer's inputs to [`netdiag_fuzz::sse_split`].

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netdiag_fuzz::sse_split(input));
