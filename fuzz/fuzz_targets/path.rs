#![no_main]
//! See [`pushrelay_fuzz::path`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::path::run(data));
