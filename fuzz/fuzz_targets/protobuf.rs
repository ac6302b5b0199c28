#![no_main]
//! See [`pushrelay_testkit::targets::protobuf`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_testkit::targets::protobuf::run(data));
