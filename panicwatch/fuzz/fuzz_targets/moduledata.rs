//! runtime.firstmoduledata and what it points to, damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::moduledata(input));
