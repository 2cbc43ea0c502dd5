//! Kernel facts that user space reads from BTF at start and passes to the programs: the single row of
//! `CONFIG`.

/// Struct offsets in bytes, [`UNKNOWN`] where the kernel's BTF does not have the field, and settings of the
/// programs.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `task_struct.signal`: the struct shared by all threads of a process.
    pub task_signal: u32,
    /// `signal_struct.live`: number of threads that have not begun to exit.
    pub signal_live: u32,
    /// `mm_struct.arg_start`.
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`.
    pub mm_arg_end: u32,
    /// `mm_struct.env_start`.
    pub mm_env_start: u32,
    /// `mm_struct.env_end`.
    pub mm_env_end: u32,
    /// Nonzero: report every exec, not only those of watched processes.
    pub exec_all: u32,
    /// `task_struct.pid`: the thread id.
    pub task_pid: u32,
    /// `task_struct.tgid`: the process id.
    pub task_tgid: u32,
    /// `task_struct.comm`: the thread name.
    pub task_comm: u32,
    /// `task_struct.thread.fsbase`: base address of the thread-local storage.
    pub task_fsbase: u32,
    /// `task_struct.__state`, called `state` before Linux 5.14.
    pub task_state: u32,
    /// Nonzero: the sched_switch tracepoint passes the task state (Linux 5.18). Without it, the programs read
    /// the state from the task, where it may already have changed.
    pub switch_has_state: u32,
    /// Number of slots in one CPU's recorder ring, minus one; the number is a power of two.
    pub slot_mask: u32,
    /// Number of entries in one CPU's sample ring, minus one; the number is a power of two.
    pub sample_mask: u32,
    /// Maximum number of panics of one binary that are captured in one window
    /// ([`crate::counted::WINDOW_NS`]); further ones are only counted.
    pub max_captures: u32,
    /// Longest time that a capture may take in the target, nanoseconds; 0: any.
    pub max_capture_ns: u32,
    /// `hrtimer.function`.
    pub hrtimer_function: u32,
    /// Address of the kernel function that runs the scheduler tick, low half first; 0 when unknown.
    pub tick: [u32; 2],
}

/// Offset of a field that the kernel's BTF does not have.
pub const UNKNOWN: u32 = u32::MAX;

const _: () = assert!(size_of::<Config>() == 88);

/// Task layout for the programs at the scheduler's BTF tracepoints, which need it as constants because the
/// verifier allows direct loads from a `task_struct` only at constant offsets. It is the object's only
/// global. Offsets are in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskLayout {
    /// `task_struct.pid`: the thread id.
    pub pid: u32,
    /// `task_struct.tgid`: the process id.
    pub tgid: u32,
    /// `task_struct.comm`.
    pub comm: u32,
    /// `task_struct.__state`, called `state` before Linux 5.14.
    pub state: u32,
    /// Nonzero: the sched_switch tracepoint passes the task state (Linux 5.18).
    pub switch_has_state: u32,
}

const _: () = assert!(size_of::<TaskLayout>() == 20);
