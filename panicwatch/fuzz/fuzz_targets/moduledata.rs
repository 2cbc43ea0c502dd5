//! Fuzzes runtime.firstmoduledata and the tables it points to.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| panicwatch_fuzz::moduledata(input));
