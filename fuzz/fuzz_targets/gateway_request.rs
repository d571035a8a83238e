//! Hands libFuzzer's inputs to [`netdiag_fuzz::gateway_request`].

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netdiag_fuzz::gateway_request(input));
