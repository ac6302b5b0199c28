#![no_main]
//! See [`pushrelay_fuzz::protobuf`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushrelay_fuzz::protobuf::run(data));
