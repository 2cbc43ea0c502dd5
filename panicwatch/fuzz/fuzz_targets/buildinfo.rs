//! Fuzzes build information, as the only content of a small ELF file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::buildinfo(input));
