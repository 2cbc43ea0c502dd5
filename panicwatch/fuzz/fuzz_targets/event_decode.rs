//! Records of the ring, decoded and put together.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::event_decode(input));
