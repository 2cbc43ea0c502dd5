//! Timelines of records that were written down by hand: every race is a table.

mod exported;
mod last_ran;
mod partly;
mod properties;
mod runtime;
mod scene;
mod stored;
mod tables;
