//! Ends without a recovery: `runtime.Goexit` of a goroutine and `runtime.exit` of the process.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L600> (Goexit)
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/sys_linux_amd64.s#L54> (exit)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{event::kind, go::ABI0_ARGUMENT, reg};

use crate::{capture::OpenPoint, context::Hit, read};

#[uprobe]
pub(crate) fn goexit(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && !hit.was_quiet(hit.user_g())
        && let Some(point) = OpenPoint::new(&hit, kind::GOEXIT, hit.user_g())
    {
        point.finish([0; 6]);
    }
    0
}

/// `runtime.exit`: assembly in ABI0, so the status is an int32 at 8(SP). args: the status.
#[uprobe]
pub(crate) fn exit(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::EXIT, hit.current_g())
    {
        let status = read::word32(hit.reg(reg::RSP) + ABI0_ARGUMENT).unwrap_or(u32::MAX);
        point.finish([status as u64, 0, 0, 0, 0, 0]);
    }
    0
}
