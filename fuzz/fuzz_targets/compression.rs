#![no_main]
//! See [`pushrelay_fuzz::compression`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::compression::run(data));
