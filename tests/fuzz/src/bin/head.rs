//! Runs `properties::head` on whatever the engine makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::properties::head::hold(data));
