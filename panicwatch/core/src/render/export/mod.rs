//! Formats of other tools. Pure: what is to be shown goes in, bytes come out.

pub mod perfetto;
