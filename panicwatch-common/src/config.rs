//! Facts about the kernel that user space finds at start (from BTF) and the programs read: the one row of `CONFIG`.

/// Offsets in bytes; `u32::MAX` when the kernel did not tell.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `task_struct.signal`: what the threads of a process share.
    pub task_signal: u32,
    /// `signal_struct.live`: threads that have not begun to exit.
    pub signal_live: u32,
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
    /// `task_struct.comm`: the thread's name.
    pub task_comm: u32,
    /// `task_struct.thread.fsbase`: where the thread's own data is.
    pub task_fsbase: u32,
    /// `task_struct.__state`, before 5.14 `state`.
    pub task_state: u32,
    /// Not zero: the tracepoint sched_switch hands the state over (Linux 5.18); it may change under a reader.
    pub switch_has_state: u32,
    /// Slots of the recorder's ring of one CPU, minus one; slots are a power of two.
    pub slot_mask: u32,
    /// The same for samples.
    pub sample_mask: u32,
    /// Panics of one binary that are captured in one window ([`crate::counted::WINDOW_NS`]); more are counted.
    pub max_captures: u32,
    /// Longest time that a capture may take in the target, nanoseconds; 0: any.
    pub max_capture_ns: u32,
    /// `hrtimer.function`.
    pub hrtimer_function: u32,
    /// Address of the kernel's function that the scheduler's tick is, low half first; 0 when it is not known.
    pub tick: [u32; 2],
}

/// "The kernel did not tell."
pub const UNKNOWN: u32 = u32::MAX;

const _: () = assert!(size_of::<Config>() == 88);

/// Facts about tasks that the programs at the scheduler's BTF tracepoints have as constants, because the verifier allows
/// direct loads from a `task_struct` at constant offsets only: the one global of the object. Offsets in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskLayout {
    /// `task_struct.pid`: the thread.
    pub pid: u32,
    /// `task_struct.tgid`: the process.
    pub tgid: u32,
    /// `task_struct.comm`.
    pub comm: u32,
    /// `task_struct.__state`, before 5.14 `state`.
    pub state: u32,
    /// Not zero: the tracepoint sched_switch passes the state (Linux 5.18).
    pub switch_has_state: u32,
}

const _: () = assert!(size_of::<TaskLayout>() == 20);
