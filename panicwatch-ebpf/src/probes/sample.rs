//! The CPU's sampling clock: where a watched thread is right now, by frame pointers (Go keeps them on amd64).

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_stack},
    macros::perf_event,
    programs::PerfEventContext,
};
use panicwatch_common::recorder::{KERNEL_FRAMES, USER_FRAMES, kind};

use crate::{
    atomic::next,
    maps::{CONFIG, HEADS, SAMPLES},
    recorder::{Who, count, no_ring},
};

/// `BPF_F_USER_STACK`.
const USER_STACK: u64 = 1 << 8;

#[perf_event]
pub(crate) fn sample(ctx: PerfEventContext) -> u32 {
    let Some(who) = Who::watched() else { return 0 };
    let Some(config) = CONFIG.get(0) else { return 0 };
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(head) = HEADS.get_ptr_mut(cpu) else {
        no_ring(config);
        return 0;
    };
    count(head, kind::SAMPLE);
    // SAFETY: the head is a map value.
    let n = next(unsafe { &raw mut (*head).samples });
    let at = cpu * (config.sample_mask + 1) + (n as u32 & config.sample_mask);
    let Some(sample) = SAMPLES.get_ptr_mut(at) else { return 0 };
    // SAFETY: the sample is a map value of this type, and the helper writes no more than it is told.
    unsafe {
        core::ptr::write_volatile(&raw mut (*sample).seq, 0);
        (*sample).time_ns = bpf_ktime_get_ns();
        (*sample).tgid = who.tgid;
        (*sample).tid = who.tid;
        (*sample).goid = who.goid;
        let user =
            bpf_get_stack(ctx.as_ptr(), (&raw mut (*sample).user).cast(), 8 * USER_FRAMES as u32, USER_STACK);
        let kernel =
            bpf_get_stack(ctx.as_ptr(), (&raw mut (*sample).kernel).cast(), 8 * KERNEL_FRAMES as u32, 0);
        (*sample).user_frames = if user > 0 { user as u32 / 8 } else { 0 };
        (*sample).kernel_frames = if kernel > 0 { kernel as u32 / 8 } else { 0 };
        core::ptr::write_volatile(&raw mut (*sample).seq, n + 1);
    }
    0
}
