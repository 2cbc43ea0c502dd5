//! The daemon: what happens to an incident once it is known, and what is known of the daemon itself.

pub mod feed;
pub mod status;
