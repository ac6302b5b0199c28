#![no_main]
//! See [`pushrelay_fuzz::wire`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::wire::run(data));
