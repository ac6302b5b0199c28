#![no_main]
//! See [`pushrelay_testkit::targets::config`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::config::run(data));
