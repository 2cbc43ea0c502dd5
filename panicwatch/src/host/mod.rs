//! What the kernel tells of this machine's processes and lets this one do. Must not know what is watched.

pub mod privileges;
pub mod procfs;
