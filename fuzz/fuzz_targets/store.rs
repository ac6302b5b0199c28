#![no_main]
//! See [`pushrelay_fuzz::store`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::store::run(data));
