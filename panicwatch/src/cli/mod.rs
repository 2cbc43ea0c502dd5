//! The subcommands: one file each, arguments and `run(args)`; what a library caller would miss lives elsewhere.

pub mod attach;
pub mod common;
pub mod doctor;
pub mod inspect;
pub mod run;
mod signals;
pub mod symbolize;
