#![no_main]
//! See [`pushrelay_testkit::targets::conversation`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::conversation::run(data));
