//! Facts about the kernel that user space finds at start (from BTF) and the programs read: the one row of `CONFIG`.

/// Offsets in bytes; `u32::MAX` when the kernel did not tell.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `mm_struct.arg_start`.
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`.
    pub mm_arg_end: u32,
    /// `mm_struct.env_start`.
    pub mm_env_start: u32,
    /// `mm_struct.env_end`.
    pub mm_env_end: u32,
    /// Report every exec, not only those of watched processes.
    pub exec_all: u32,
    /// `task_struct.pid`: the thread.
    pub task_pid: u32,
    /// `task_struct.tgid`: the process.
    pub task_tgid: u32,
}

/// "The kernel did not tell."
pub const UNKNOWN: u32 = u32::MAX;

const _: () = assert!(size_of::<Config>() == 36);
