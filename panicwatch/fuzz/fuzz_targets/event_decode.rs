//! Fuzzes decoding ring records and assembling them into events.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::event_decode(input));
