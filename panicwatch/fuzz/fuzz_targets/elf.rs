//! Fuzzes ELF parsing: the input is an ELF file, or damages the headers of a Go program.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::elf(input));
