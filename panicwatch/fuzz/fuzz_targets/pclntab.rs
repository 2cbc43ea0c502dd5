//! Fuzzes the pclntab of Go programs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::pclntab(input));
