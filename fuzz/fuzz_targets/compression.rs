#![no_main]
//! See [`pushrelay_testkit::targets::compression`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::compression::run(data));
