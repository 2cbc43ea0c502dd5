//! Fields of the tasks that the scheduler's tracepoints pass.
//!
//! At a BTF tracepoint a task is a pointer that the verifier knows, and reading a field is one load instruction; the verifier asks
//! for constant offsets, which [`TASK`] has. At a raw tracepoint a task is a number, and a field takes a call of a helper. Both
//! kinds of tracepoint pass the same arguments, so one program body serves both.

use core::{ffi::c_void, ptr};

use panicwatch_common::{
    config::{TaskLayout, UNKNOWN},
    recorder::pair,
};

use crate::recorder::{word, word32};

/// Set by the loader, read-only from then on: the verifier takes its fields for constants.
// SAFETY: the name is unique.
#[unsafe(no_mangle)]
static TASK: TaskLayout = TaskLayout { pid: 0, tgid: 0, comm: 0, state: 0, switch_has_state: 0 };

macro_rules! layout {
    ($field:ident) => {
        // SAFETY: a field of a static; volatile, so that the value is not taken from this source.
        unsafe { ptr::read_volatile(&raw const TASK.$field) }
    };
}

/// A way to read a word of a task.
pub(crate) trait Reads {
    /// The 32-bit word at `at`.
    fn word32(at: u64) -> u32;
    /// The 64-bit word at `at`.
    fn word(at: u64) -> u64;
}

/// At a BTF tracepoint.
pub(crate) struct Loads;
/// At a raw tracepoint.
pub(crate) struct Helper;

impl Reads for Loads {
    #[inline(always)]
    fn word32(at: u64) -> u32 {
        // SAFETY: the verifier proves that the address is in a task; a load that faults gives 0.
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

/// Argument `n` of the tracepoint whose context is at `ctx`: both kinds pass an array of words.
#[inline(always)]
pub(crate) fn arg(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the verifier proves that the tracepoint has that argument.
    unsafe { ptr::read_volatile(ctx.cast::<u64>().add(n)) }
}

/// Process of a task.
#[inline(always)]
pub(crate) fn tgid<R: Reads>(task: u64) -> u32 {
    R::word32(task + layout!(tgid) as u64)
}

/// Thread of a task.
#[inline(always)]
pub(crate) fn tid<R: Reads>(task: u64) -> u32 {
    R::word32(task + layout!(pid) as u64)
}

/// The other task of a record: its thread and process, and its name in two words; an idle CPU's own needs none.
#[inline(always)]
pub(crate) fn other<R: Reads>(task: u64, tid: u32, tgid: u32) -> [u64; 3] {
    if tid == 0 {
        return [0; 3];
    }
    let comm = task + layout!(comm) as u64;
    [pair(tid, tgid), R::word(comm), R::word(comm + 8)]
}

/// The state in which a task leaves its CPU, at sched_switch.
#[inline(always)]
pub(crate) fn state<R: Reads>(ctx: *mut c_void, prev: u64) -> u32 {
    if layout!(switch_has_state) != 0 {
        return arg(ctx, 3) as u32;
    }
    let at = layout!(state);
    if at == UNKNOWN { 0 } else { R::word32(prev + at as u64) }
}
