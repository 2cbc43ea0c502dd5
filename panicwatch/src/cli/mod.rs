//! The subcommands, one file each: arguments and `run(args)`. Logic that a library caller would need is in
//! other modules.

pub mod ask;
pub mod attach;
mod child;
pub mod common;
pub mod daemon;
pub mod doctor;
pub mod generated;
pub mod init_trace;
pub mod inspect;
pub mod manual;
pub mod run;
pub mod show;
mod signals;
mod sink;
pub mod symbolize;
pub mod top;
pub mod trace;
mod values;
