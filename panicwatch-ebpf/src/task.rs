//! Reads fields of the tasks that the scheduler's tracepoints pass.
//!
//! At a BTF tracepoint, a task is a pointer that the verifier knows, and reading a field is a single load
//! instruction; the verifier requires constant offsets, which [`TASK`] provides. At a raw tracepoint, a task
//! is a number, and reading a field takes a helper call. Both kinds of tracepoint pass the same arguments, so
//! they share one program body.

use core::{ffi::c_void, ptr};

use panicwatch_common::{
    config::{TaskLayout, UNKNOWN},
    recorder::pair,
};

use crate::recorder::{word, word32};

/// Field offsets. The loader sets them, and the data is read-only from then on, so the verifier treats them
/// as constants.
// SAFETY: the name is unique.
#[unsafe(no_mangle)]
static TASK: TaskLayout = TaskLayout { pid: 0, tgid: 0, comm: 0, state: 0, switch_has_state: 0 };

macro_rules! layout {
    ($field:ident) => {
        // SAFETY: a field of a static; the read is volatile so that the compiler does not use the initializer
        // above.
        unsafe { ptr::read_volatile(&raw const TASK.$field) }
    };
}

/// A way to read words of a task.
pub(crate) trait Reads {
    /// Reads the 32-bit word at `at`.
    fn word32(at: u64) -> u32;
    /// Reads the 64-bit word at `at`.
    fn word(at: u64) -> u64;
}

/// Reads with load instructions, at a BTF tracepoint.
pub(crate) struct Loads;
/// Reads with a helper, at a raw tracepoint.
pub(crate) struct Helper;

impl Reads for Loads {
    #[inline(always)]
    fn word32(at: u64) -> u32 {
        // SAFETY: the verifier proves that the address is in a task; a load that faults yields 0.
        unsafe { ptr::read_volatile(at as *const u32) }
    }

    #[inline(always)]
    fn word(at: u64) -> u64 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(at as *const u64) }
    }
}

impl Reads for Helper {
    #[inline(always)]
    fn word32(at: u64) -> u32 {
        word32(at).unwrap_or(0)
    }

    #[inline(always)]
    fn word(at: u64) -> u64 {
        word(at).unwrap_or(0)
    }
}

/// Returns argument `n` of the tracepoint whose context is at `ctx`; both kinds of tracepoint pass an array
/// of words.
#[inline(always)]
pub(crate) fn arg(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the verifier proves that the tracepoint has this argument.
    unsafe { ptr::read_volatile(ctx.cast::<u64>().add(n)) }
}

/// Returns the process id of a task.
#[inline(always)]
pub(crate) fn tgid<R: Reads>(task: u64) -> u32 {
    R::word32(task + layout!(tgid) as u64)
}

/// Returns the thread id of a task.
#[inline(always)]
pub(crate) fn tid<R: Reads>(task: u64) -> u32 {
    R::word32(task + layout!(pid) as u64)
}

/// Returns the arguments of a record that describe the other task: its thread and process, and its name in
/// two words. All are zero for the idle task.
#[inline(always)]
pub(crate) fn other<R: Reads>(task: u64, tid: u32, tgid: u32) -> [u64; 3] {
    if tid == 0 {
        return [0; 3];
    }
    let comm = task + layout!(comm) as u64;
    [pair(tid, tgid), R::word(comm), R::word(comm + size_of::<u64>() as u64)]
}

/// Returns the state in which a task leaves its CPU, at sched_switch.
#[inline(always)]
pub(crate) fn state<R: Reads>(ctx: *mut c_void, prev: u64) -> u32 {
    if layout!(switch_has_state) != 0 {
        return arg(ctx, 3) as u32;
    }
    let at = layout!(state);
    if at == UNKNOWN { 0 } else { R::word32(prev + at as u64) }
}
