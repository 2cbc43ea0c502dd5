//! What the system tells of this machine's processes, lets this one do and gives at random. Must not know
//! what is watched.

pub mod privileges;
pub mod procfs;
pub mod random;
