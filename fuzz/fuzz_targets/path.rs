#![no_main]
//! See [`pushrelay_testkit::targets::path`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::path::run(data));
