#![no_main]
//! See [`pushrelay_testkit::targets::store`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::store::run(data));
