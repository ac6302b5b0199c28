#![no_main]
//! See [`pushrelay_testkit::targets::names`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::names::run(data));
