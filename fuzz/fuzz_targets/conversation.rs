#![no_main]
//! See [`pushrelay_fuzz::conversation`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::conversation::run(data));
