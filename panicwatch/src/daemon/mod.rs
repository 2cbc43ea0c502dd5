//! The daemon: what happens to an incident once it is known, and what is known of the daemon itself.

pub mod feed;
pub mod keeper;
pub mod log;
pub mod paint;
pub mod privileges;
pub mod status;
