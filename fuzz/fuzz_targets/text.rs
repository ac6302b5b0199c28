#![no_main]
//! See [`pushrelay_fuzz::text`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::text::run(data));
