//! Numbers by which the runtime states how far something is, the same in every supported release.

/// Names of `g.atomicstatus`.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/runtime2.go#L17>
pub const GOROUTINE_STATUS: [(u32, &str); 10] = [
    (0, "idle"),
    (1, "runnable"),
    (2, "running"),
    (GOROUTINE_SYSCALL, "syscall"),
    (GOROUTINE_WAITING, "waiting"),
    (6, "dead"),
    (8, "copystack"),
    (9, "preempted"),
    (10, "leaked"),
    (11, "dead"),
];
/// The goroutine is in a system call or in C code.
pub const GOROUTINE_SYSCALL: u32 = 3;
/// The goroutine waits for the event that `g.waitreason` describes.
pub const GOROUTINE_WAITING: u32 = 4;
/// Bit that is set in addition while the garbage collector scans the goroutine's stack.
pub const GOROUTINE_SCAN: u32 = 0x1000;

/// `initTask.state` of a task that is running.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (doInit1)
pub const INIT_TASK_RUNNING: u32 = 1;
/// `initTask.state` of a task that has completed.
pub const INIT_TASK_DONE: u32 = 2;
