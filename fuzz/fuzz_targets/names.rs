#![no_main]
//! See [`pushrelay_fuzz::names`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::names::run(data));
