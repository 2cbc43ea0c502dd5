//! File formats of other tools. Does no I/O: takes what is to be shown and returns bytes.

pub mod perfetto;
