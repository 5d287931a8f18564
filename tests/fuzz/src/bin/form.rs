//! Runs `properties::form` on whatever the engine makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::properties::form::hold(data));
