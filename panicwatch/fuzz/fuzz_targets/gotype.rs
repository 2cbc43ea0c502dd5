//! Fuzzes type descriptors, and the values decoded with them from hostile memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::gotype(input));
