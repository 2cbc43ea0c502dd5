//! Samples the stack of a watched thread by frame pointers (Go maintains them on amd64), in the scheduler
//! tick, which fires anyway, or with a sampling clock of panicwatch's own.
//!
//! An additional interrupt costs a program far more than the work done in it: in virtual machines, half a
//! millisecond was measured for a server whose caches and page tables the interrupt evicts. The tick
//! interrupts every busy CPU 100 to 1000 times a second. Other timers are not suitable: the timer of a
//! connection, for example, expires when something was sent a moment ago.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, generated::bpf_get_stack},
    macros::{perf_event, raw_tracepoint},
    programs::{PerfEventContext, RawTracePointContext},
};
use panicwatch_common::recorder::{IN_TICK, KERNEL_FRAMES, SAMPLE_GAP_NS, USER_FRAMES, kind, payer};

use crate::{
    atomic::next,
    goroutine::goid,
    maps::{CONFIG, HEADS, SAMPLES, watched},
    recorder::{at_tracepoint, count, no_ring, now, payer, took, word},
};

/// `BPF_F_USER_STACK`, a flag of `bpf_get_stack`.
const USER_STACK: u64 = 1 << 8;

/// Cap on the measured duration of a sample, nanoseconds: if it takes longer, the virtual machine was paused.
const LONGEST_NS: u64 = 50_000;

/// The sampling clock fired.
#[perf_event]
pub(crate) fn sample(ctx: PerfEventContext) -> u32 {
    take(ctx.as_ptr(), 0);
    0
}

/// A kernel timer expired; runs in its interrupt and samples if the timer is the tick. Argument: the timer.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/time/hrtimer.c> __run_hrtimer
#[raw_tracepoint]
pub(crate) fn hrtimer_expire_entry(ctx: RawTracePointContext) -> i32 {
    if payer(0) == payer::HOST {
        return at_tracepoint(kind::TIMER, || {});
    }
    let Some(config) = CONFIG.get(0) else { return 0 };
    let tick = config.tick[0] as u64 | (config.tick[1] as u64) << 32;
    if word(ctx.arg::<u64>(0) + config.hrtimer_function as u64) == Some(tick) {
        take(ctx.as_ptr(), IN_TICK);
    }
    0
}

/// Takes a sample if one is due, and charges its duration to the target.
#[inline(always)]
fn take(ctx: *mut core::ffi::c_void, flags: u32) {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let Some(row) = watched(tgid) else { return };
    let Some(config) = CONFIG.get(0) else { return };
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(head) = HEADS.get_ptr_mut(cpu) else { return no_ring(config) };
    let since = now();
    // SAFETY: the head is a map value; only timer interrupts write this word, one at a time on each CPU.
    unsafe {
        if flags & IN_TICK != 0 && since - (*head).sampled_ns < SAMPLE_GAP_NS {
            return;
        }
        (*head).sampled_ns = since;
    }
    count(head, kind::SAMPLE);
    // SAFETY: the head is a map value.
    let n = next(unsafe { &raw mut (*head).samples });
    let at = cpu * (config.sample_mask + 1) + (n as u32 & config.sample_mask);
    let Some(sample) = SAMPLES.get_ptr_mut(at) else { return };
    // SAFETY: the sample is a map value of this type, and the helper writes at most the given number of
    // bytes.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sample).seq, 0);
        (*sample).time_ns = since;
        (*sample).tgid = tgid;
        (*sample).tid = tid;
        (*sample).goid = goid(row);
        let user = bpf_get_stack(ctx, (&raw mut (*sample).user).cast(), 8 * USER_FRAMES as u32, USER_STACK);
        let kernel = bpf_get_stack(ctx, (&raw mut (*sample).kernel).cast(), 8 * KERNEL_FRAMES as u32, 0);
        (*sample).user_frames = if user > 0 { user as u32 / 8 } else { 0 };
        (*sample).kernel_frames = if kernel > 0 { kernel as u32 / 8 } else { 0 } | flags;
        core::ptr::write_volatile(&raw mut (*sample).seq, n + 1);
        took(head, kind::SAMPLE, payer::TARGET, now() - since, LONGEST_NS);
    }
}
