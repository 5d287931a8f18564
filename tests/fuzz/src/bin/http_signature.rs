//! Runs `properties::http_signature` on whatever the engine makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::properties::http_signature::hold(data));
