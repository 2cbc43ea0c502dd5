//! The way from `runtime.rt0_go` to `main.main`, for `init-trace` alone: nothing here is attached otherwise.
//!
//! Each hit is one moment; no Go struct is read. Up to `runtime.main` the g register means nothing yet.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s#L159> (rt0_go)
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go#L7381> (doInit1)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{binary::site, event::kind, reg};

use crate::{
    capture::OpenPoint,
    context::{Hit, RFLAGS_CF, RFLAGS_ZF},
};

/// The site's flags say which step it is.
#[uprobe]
pub(crate) fn init_step(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::INIT_STEP)
    {
        point.finish_lean(0, [0; 6]);
    }
    0
}

/// On the `ja` behind `cmp index, task.nfns` that closes the loop over a task's functions: taken while there is one to
/// call. RAX = task and RSI = index, or RCX and RAX.
#[uprobe]
pub(crate) fn init_task(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::INIT_TASK)
    {
        let calls = hit.reg(reg::RFLAGS) & (RFLAGS_CF | RFLAGS_ZF) == 0;
        // Read before choosing: the verifier takes no choice between addresses in the registers' struct.
        let (rax, rcx, rsi) = (hit.reg(reg::RAX), hit.reg(reg::RCX), hit.reg(reg::RSI));
        let (task, index) = if hit.site & site::TASK_RCX != 0 { (rcx, rax) } else { (rax, rsi) };
        point.finish_lean(0, [task, index, calls as u64, 0, 0, 0]);
    }
    0
}
