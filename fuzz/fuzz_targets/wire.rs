#![no_main]
//! See [`pushrelay_testkit::targets::wire`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::wire::run(data));
