#![no_main]
//! See [`pushrelay_fuzz::config`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::config::run(data));
