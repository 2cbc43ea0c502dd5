//! Process events: forks, execs, and exits.
//!
//! The programs are at raw tracepoints of the scheduler (no tracefs needed). Each runs in the context of the
//! task that the event is about (fork: of the parent).
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sched.h>

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns,
        bpf_probe_read_kernel,
    },
    macros::raw_tracepoint,
    maps::ring_buf::RingBufEntry,
    programs::RawTracePointContext,
};
use panicwatch_common::{
    binary::row,
    config::{Config, UNKNOWN},
    event::{Exec, Head, kind},
    reason::Reason,
    recorder::{self, pair},
};

use crate::{
    goroutine::goid,
    maps::{CONFIG, EVENTS, WAKEUP, WATCHED, failed, unwatch, watch, watched},
    memory,
    recorder::{Who, now, record},
};

/// Arguments: parent, child. Child processes of a watched process are watched, too.
#[raw_tracepoint]
pub(crate) fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the value is copied at once.
    let Some(row) = unsafe { WATCHED.get(&tgid) }.copied() else { return 0 };
    let Some(config) = CONFIG.get(0) else { return 0 };
    let child = ctx.arg::<u64>(1);
    let (Some(tid), Some(child_tgid)) = (field32(child, config.task_pid), field32(child, config.task_tgid))
    else {
        return 0;
    };
    if tid == child_tgid {
        if !watch(tid, row) {
            failed(Reason::WatchedFull);
        }
    } else if config.slot_mask != 0 {
        let who = Who { tgid, tid, goid: goid(row), time_ns: now() };
        let parent = bpf_get_current_pid_tgid() as u32;
        record(recorder::kind::THREAD_BEGIN, who, 0, [pair(parent, tgid), 0, 0]);
    }
    0
}

#[raw_tracepoint]
pub(crate) fn sched_process_exec(_ctx: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(config) = CONFIG.get(0) else { return 0 };
    // The binary of the new image is unknown until one of its probes is hit.
    if config.exec_all != 0 {
        unwatch(tgid);
    } else if watched(tgid).is_some() {
        let _ = watch(tgid, row::UNKNOWN);
    }
    let Some(mut entry) = begin(kind::EXEC, config.exec_all != 0) else { return 0 };
    let exec = entry.as_mut_ptr();
    if let Some(mm) = field(task(), config.task_mm) {
        let (arg_start, arg_end) = (field(mm, config.mm_arg_start), field(mm, config.mm_arg_end));
        let (env_start, env_end) = (field(mm, config.mm_env_start), field(mm, config.mm_env_end));
        // SAFETY: the reservation has the size of Exec.
        unsafe {
            (*exec).arg_start = arg_start.unwrap_or(0);
            (*exec).arg_end = arg_end.unwrap_or(0);
            (*exec).env_start = env_start.unwrap_or(0);
            (*exec).env_end = env_end.unwrap_or(0);
            block(exec.cast(), (*exec).arg_start, (*exec).arg_end);
            block(exec.cast(), (*exec).env_start, (*exec).env_end);
        }
    }
    entry.submit(WAKEUP);
    0
}

/// Copies the arguments or the environment.
#[inline(always)]
fn block(head: *mut Head, start: u64, end: u64) {
    if end > start {
        memory::copy(head, start, end - start);
    }
}

#[raw_tracepoint]
pub(crate) fn sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let Some(config) = CONFIG.get(0) else { return 0 };
    if config.slot_mask != 0
        && let Some(who) = Who::watched()
    {
        record(recorder::kind::THREAD_END, who, 0, [0; 3]);
    }
    // SAFETY: the value is copied at once.
    let Some(row) = unsafe { WATCHED.get(&tgid) }.copied() else { return 0 };
    if !is_last_thread(config, tgid == tid) {
        return 0;
    }
    // Two threads can both get here as the last one; report the end of the process once.
    if !unwatch(tgid) || row == row::IGNORED {
        return 0;
    }
    if let Some(mut entry) = reserve(kind::PROCESS_EXIT) {
        // SAFETY: the reservation has the size of Exec.
        unsafe { (*entry.as_mut_ptr()).code = field32(task(), config.task_exit_code).unwrap_or(UNKNOWN) };
        entry.submit(WAKEUP);
    }
    0
}

/// Reports whether the process ends with the current thread. The exit of the first thread is not always the
/// end: it also exits when another thread calls execve and takes over its identity (de_thread), and it can
/// exit before threads that continue without it. If the kernel's BTF does not have the counter, `first`
/// decides.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c> (do_exit decrements `live` before the
/// tracepoint),
/// <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c> (de_thread)
#[inline(always)]
fn is_last_thread(config: &Config, first: bool) -> bool {
    let signal = field(task(), config.task_signal).unwrap_or(0);
    match field32(signal, config.signal_live) {
        Some(live) => live == 0,
        None => first,
    }
}

/// Reserves a record for the current process, if it is watched or `all` processes are reported.
#[inline(always)]
fn begin(kind: u32, all: bool) -> Option<RingBufEntry<Exec>> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if !all && watched(tgid).is_none() {
        return None;
    }
    reserve(kind)
}

/// Reserves a record for the current process; counts a failure if the ring is full.
#[inline(always)]
fn reserve(kind: u32) -> Option<RingBufEntry<Exec>> {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let Some(mut entry) = EVENTS.reserve::<Exec>(0) else {
        failed(Reason::RingFull);
        return None;
    };
    // SAFETY: no preconditions.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let head =
        Head { kind, len: size_of::<Exec>() as u32, time_ns, tgid, tid, binary: u32::MAX, ..Head::default() };
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    entry.write(Exec {
        head,
        reserved: 0,
        code: UNKNOWN,
        arg_start: 0,
        arg_end: 0,
        env_start: 0,
        env_end: 0,
        comm,
    });
    Some(entry)
}

#[inline(always)]
fn task() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() }
}

/// Reads the 64-bit field at `offset` of a kernel object.
#[inline(always)]
fn field(base: u64, offset: u32) -> Option<u64> {
    if offset == UNKNOWN || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const u64) }.ok()
}

/// Reads the 32-bit field at `offset` of a kernel object.
#[inline(always)]
fn field32(base: u64, offset: u32) -> Option<u32> {
    if offset == UNKNOWN || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const u32) }.ok()
}
