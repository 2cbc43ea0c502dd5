//! Goroutine scheduling and garbage collection in Go's runtime, for the recorder.
//!
//! Where a function runs on g0, the goroutine is an argument or m.curg. In the signatures below, `gp` is a g
//! in RAX.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go>
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/mgc.go>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{binary::site, go::G_STACK_HI, recorder::kind, reg};

use crate::{
    context::Hit,
    read,
    recorder::{self, Who, now},
};

/// `runtime.schedinit`: identifies the process's binary, as every hit does.
#[uprobe]
pub(crate) fn process_begins(ctx: ProbeContext) -> u32 {
    let _ = Hit::new(&ctx);
    0
}

impl Hit {
    /// Returns the current thread with the goroutine whose g is at `g` (0: none).
    #[inline(always)]
    fn who(&self, g: u64) -> Who {
        let id = aya_ebpf::helpers::bpf_get_current_pid_tgid();
        Who { tgid: (id >> 32) as u32, tid: id as u32, goid: self.goid(g), time_ns: now() }
    }

    #[inline(always)]
    fn goid(&self, g: u64) -> u64 {
        if g == 0 { 0 } else { read::word(g + self.binary.g_goid as u64).unwrap_or(0) }
    }

    /// Reads a word of the g at `g`.
    #[inline(always)]
    fn field(&self, g: u64, offset: u32) -> u64 {
        read::word(g + offset as u64).unwrap_or(0)
    }
}

/// Counts the hit and writes its record.
#[inline(always)]
fn record(kind: u32, who: Who, extra: u32, args: [u64; 3]) {
    recorder::hit(kind);
    recorder::record(kind, who, extra, args);
}

/// Shared program for events that have only a time and a goroutine; the site's flags identify the kind.
#[uprobe]
pub(crate) fn gc(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let kind = hit.site >> site::KIND_SHIFT & site::KIND_MASK;
        let g = if kind == kind::GC_ASSIST { hit.reg(reg::RAX) } else { hit.current_g() };
        let reason = if hit.site & site::HAS_REASON != 0 { hit.reg(reg::RAX) as u8 as u32 } else { u32::MAX };
        record(kind, hit.who(g), reason, [0; 3]);
    }
    0
}

/// Entry of a user-named function. On the thread's own stack (g0) there is no goroutine, and the depth is
/// meaningless.
#[uprobe]
pub(crate) fn function(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let g = hit.user_g();
        let sp = hit.reg(reg::RSP) + 8 * (hit.site >> site::BELOW_SHIFT & site::BELOW_MASK) as u64;
        let depth = read::word(g + G_STACK_HI).unwrap_or(0).wrapping_sub(sp);
        let caller = read::word(sp).unwrap_or(0);
        record(kind::FUNCTION, hit.who(g), 0, [hit.reg(reg::RIP), depth, caller]);
    }
    0
}

/// `runtime.gopark(unlockf, lock, reason CL, …)`, on the user's goroutine.
#[uprobe]
pub(crate) fn park(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let caller = read::word(hit.reg(reg::RSP)).unwrap_or(0);
        let reason = hit.reg(reg::RCX) as u8 as u32;
        record(kind::GO_PARK, hit.who(hit.user_g()), reason, [caller, 0, 0]);
    }
    0
}

/// `runtime.ready(gp, …)`.
#[uprobe]
pub(crate) fn ready(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let by = hit.goid(hit.current_g());
        record(kind::GO_READY, hit.who(hit.reg(reg::RAX)), 0, [by, 0, 0]);
    }
    0
}

/// `runtime.execute(gp, …)`, `runtime.goexit0(gp)`, and the functions through which a goroutine yields; the
/// site's flags give the kind and the reason.
#[uprobe]
pub(crate) fn turn(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let kind = hit.site >> site::KIND_SHIFT & site::KIND_MASK;
        let mut why = (hit.site & site::YIELD) >> site::YIELD_SHIFT;
        if hit.site & site::PREEMPTED_BL != 0 {
            why = if hit.reg(reg::RBX) & 0xff != 0 { 1 } else { 2 };
        }
        record(kind, hit.who(hit.reg(reg::RAX)), why, [0; 3]);
    }
    0
}

/// Probe in `runtime.newproc`'s closure on g0, on the call of `runqput(pp, newg, next)`. RBX = the new
/// goroutine's g.
#[uprobe]
pub(crate) fn create(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let new = hit.reg(reg::RBX);
        let start = hit.field(new, hit.binary.g_startpc);
        let at = hit.field(new, hit.binary.g_gopc);
        let by = hit.goid(hit.current_g());
        record(kind::GO_CREATE, hit.who(new), 0, [start, at, by]);
    }
    0
}
