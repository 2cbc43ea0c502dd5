//! The steps from `runtime.rt0_go` to `main.main`, for `init-trace` only; these probes are not attached
//! otherwise.
//!
//! Each hit records a point in time; no Go struct is read. Before `runtime.main`, the g register has no
//! meaning.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s#L159> (rt0_go)
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go#L7381> (doInit1)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{binary::site, event::kind, reg};

use crate::{
    capture::OpenPoint,
    context::{Hit, RFLAGS_CF, RFLAGS_ZF},
};

/// Records one step; the site's flags identify it.
#[uprobe]
pub(crate) fn init_step(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::INIT_STEP, 0)
    {
        point.finish_lean(0, [0; 6]);
    }
    0
}

/// On the `ja` after `cmp index, task.nfns` that closes the loop over a task's functions; the jump is taken
/// while there is a function to call. RAX = task and RSI = index, or RCX and RAX. args: the task, the index,
/// 1 if the function is about to be called.
#[uprobe]
pub(crate) fn init_task(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::INIT_TASK, 0)
    {
        let calls = hit.reg(reg::RFLAGS) & (RFLAGS_CF | RFLAGS_ZF) == 0;
        // Read before choosing: the verifier rejects a choice between addresses in the registers' struct.
        let (rax, rcx, rsi) = (hit.reg(reg::RAX), hit.reg(reg::RCX), hit.reg(reg::RSI));
        let (task, index) = if hit.site & site::TASK_RCX != 0 { (rcx, rax) } else { (rax, rsi) };
        point.finish_lean(0, [task, index, calls as u64, 0, 0, 0]);
    }
    0
}
