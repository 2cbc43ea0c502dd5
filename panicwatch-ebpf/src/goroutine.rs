//! Finds the goroutine that the current thread runs, and the one that ran last on it, from the thread's TLS;
//! for records of the kernel's tracepoints.

use panicwatch_common::{
    binary::Binary,
    config::UNKNOWN,
    go::{G_M, GOBUF_G, MCALL_G},
    recorder::{RAN_LAST, TIMES_RUN_SHIFT},
};

use crate::{
    maps::{BINARIES, CONFIG},
    read,
    recorder::{task, word},
};

/// Returns the id of the goroutine that the current thread runs, 0 when it runs none (the Go scheduler, a
/// signal handler outside a goroutine, C). `row` is the process's value in `WATCHED`.
#[inline(always)]
pub(crate) fn goid(row: u32) -> u64 {
    match holds(row) {
        Holds::Goroutine(id) => id,
        Holds::Scheduler { .. } | Holds::Unknown => 0,
    }
}

/// Like [`goid`], for a thread that leaves its CPU; also returns the bits to add to `extra` of its record.
/// For a thread in the Go scheduler, the goroutine is the one that ran last on the thread.
#[inline(always)]
pub(crate) fn goid_or_last(row: u32) -> (u64, u32) {
    match holds(row) {
        Holds::Goroutine(id) => (id, 0),
        Holds::Scheduler { g, binary } => ran_last(g, binary).unwrap_or((0, 0)),
        Holds::Unknown => (0, 0),
    }
}

enum Holds {
    Goroutine(u64),
    /// No goroutine; `g` is the thread's own g, g0 or gsignal.
    Scheduler {
        g: u64,
        binary: &'static Binary,
    },
    Unknown,
}

/// Reads the current g from the thread's TLS. Only goroutines have a goid; if the g is the thread's own (g0,
/// gsignal), the goroutine is the curg of its m.
#[inline(always)]
fn holds(row: u32) -> Holds {
    if row == 0 {
        return Holds::Unknown;
    }
    let (Some(config), Some(binary)) = (CONFIG.get(0), BINARIES.get(row - 1)) else { return Holds::Unknown };
    if config.task_fsbase == UNKNOWN || binary.tls_g == 0 {
        return Holds::Unknown;
    }
    let Some(base) = word(task() + config.task_fsbase as u64) else { return Holds::Unknown };
    let Some(g) = read::word(base.wrapping_add(binary.tls_g as i64 as u64)) else { return Holds::Unknown };
    match read::word(g + binary.g_goid as u64) {
        Some(0) => {}
        Some(id) => return Holds::Goroutine(id),
        None => return Holds::Unknown,
    }
    let Some(m) = read::word(g + G_M) else { return Holds::Unknown };
    match read::word(m + binary.m_curg as u64) {
        Some(0) => Holds::Scheduler { g, binary },
        Some(curg) => read::word(curg + binary.g_goid as u64).map_or(Holds::Unknown, Holds::Goroutine),
        None => Holds::Unknown,
    }
}

/// Number of words from `gobuf.sp` up to and including `gobuf.g`.
const SP_PC_G: usize = GOBUF_G as usize / 8 + 1;

/// Returns the goroutine that ran last on a thread in the Go scheduler. A goroutine gives up its thread
/// through mcall, which leaves the goroutine's g on top of g0's stack, in the slot for the argument of the
/// function that it calls. On a new thread that word holds something else, which the check of `sched.g`
/// detects: in a g, it points back to the g itself.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s> mcall
#[inline(always)]
fn ran_last(g0: u64, binary: &Binary) -> Option<(u64, u32)> {
    if binary.g_tracking_seq == 0 {
        return None;
    }
    let top = read::word(g0 + binary.g_sched_sp as u64)?;
    let g = read::word(top.wrapping_sub(MCALL_G))?;
    let sched = read::head_of_g::<SP_PC_G>(g + binary.g_sched_sp as u64)?;
    if sched[SP_PC_G - 1] != g {
        return None;
    }
    let goid = read::word(g + binary.g_goid as u64).filter(|id| *id != 0)?;
    let times = read::byte(g + binary.g_tracking_seq as u64)? as u32;
    Some((goid, RAN_LAST | times << TIMES_RUN_SHIFT))
}
