//! Fuzzes inline trees and the pc-value tables that index them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::inline_tree(input));
