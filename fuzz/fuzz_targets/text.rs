#![no_main]
//! See [`pushrelay_testkit::targets::text`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::text::run(data));
