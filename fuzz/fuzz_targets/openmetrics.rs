#![no_main]
//! See [`pushrelay_testkit::targets::openmetrics`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::openmetrics::run(data));
