//! Tests of timelines built from handwritten records: every race is a table.

mod exported;
mod last_ran;
mod partly;
mod properties;
mod runtime;
mod scene;
mod stored;
mod tables;
