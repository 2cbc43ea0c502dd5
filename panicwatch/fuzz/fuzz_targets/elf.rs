//! The ELF entry: a file of its own, or a Go program with damaged headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::elf(input));
