//! Runs `properties::chunked` on whatever the engine makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::properties::chunked::hold(data));
