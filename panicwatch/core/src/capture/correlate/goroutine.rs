//! The goroutine of an event: its g, and its stack as Go would print it.

use super::{
    ancestry,
    build::{addr, lack},
};
use crate::{
    capture::{View, event::Body},
    go::{
        defers::{self, Activation},
        gobin::offsets::{GOROUTINE_SCAN, GOROUTINE_STATUS, GOROUTINE_SYSCALL, GOROUTINE_WAITING},
        memory::Memory,
        traceback::{self, DEFAULT_MAX_FRAMES, End, Gap, Stack, Start, Unwinder, UserStack, Visibility},
        value,
    },
    incident::{Frame, Goroutine, Incident, Process},
};

/// A stack as Go shows it, and with all frames.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// Frames as Go shows them.
    pub(super) shown: Vec<Frame>,
    /// Number of frames omitted from `shown`; `None` when unknown.
    pub(super) elided: Option<u64>,
    /// All frames including the runtime's, used to find raise sites.
    pub(super) all: Vec<Frame>,
    /// Number of frames at the beginning of `all` that precede any gap.
    pub(super) contiguous: usize,
    /// Reasons why frames are unknown.
    pub(super) incomplete: Vec<String>,
    /// Visibility with which `shown` was walked.
    pub(super) visibility: Visibility,
}

/// Returns what Go's traceback shows: the level of GOTRACEBACK, and whether the runtime itself failed.
pub(super) fn visibility(info: &Process, throwing: bool) -> Visibility {
    let setting = info.env.as_ref().and_then(|env| env.get("GOTRACEBACK")).map(String::as_str);
    // https://github.com/golang/go/blob/go1.24.11/src/runtime/runtime1.go#L450 (setTraceback); with "none" Go
    // prints no stack at all; it is treated as 1 here, because an incident without a stack is of no use.
    let level = match setting {
        Some("system" | "crash" | "wer") => 2,
        Some(number) => number.parse::<u32>().map_or(1, |n| if n >= 2 { 2 } else { 1 }),
        None => 1,
    };
    Visibility { level, throwing }
}

/// Walks the stack from `pc` and `sp`.
pub(super) fn stack_at(view: &View<'_>, pc: u64, sp: u64, exact: bool, visibility: Visibility) -> Stacks {
    let start = if exact { Start::at(pc, sp) } else { Start::returning_to(pc, sp) };
    walk(view, start, visibility)
}

/// Walks the user goroutine's stack from where it left it: for system calls and runtime work on the system
/// stack.
pub(super) fn saved_stack(view: &View<'_>, visibility: Visibility) -> Stacks {
    match saved(view) {
        Some(start) => walk(view, start, visibility),
        None => Stacks {
            elided: Some(0),
            incomplete: vec!["the goroutine's saved registers were not captured".into()],
            visibility,
            ..Stacks::default()
        },
    }
}

/// Returns a start at `g.syscallpc/sp` in a system call, else at `g.sched`.
fn saved(view: &View<'_>) -> Option<Start> {
    let g = &view.program.bin.layout().g;
    if status(view) == Some(GOROUTINE_SYSCALL) {
        let start = Start::returning_to(view.g(g.syscallpc)?, view.g(g.syscallsp)?);
        return Some(Start { syscall: true, ..start });
    }
    Some(Start::returning_to(view.g(g.sched_pc)?, view.g(g.sched_sp)?))
}

/// Reports whether the goroutine is in a system call or in C code: Go then walks from where it entered.
pub(super) fn in_syscall(view: &View<'_>) -> bool {
    status(view) == Some(GOROUTINE_SYSCALL)
}

pub(super) fn walk(view: &View<'_>, mut start: Start, visibility: Visibility) -> Stacks {
    let memory = view.memory();
    let stack = Stack { bin: &view.program.bin, bias: view.bias, memory: &memory };
    let g = &view.program.bin.layout().g;
    if let (Some(pc), Some(sp)) = (view.g(g.sched_pc), view.g(g.sched_sp)) {
        start.user = Some(UserStack { pc, sp });
    }
    start.stack_hi = view.event.head.stack_hi;
    let shown = traceback::traceback(&stack, start, visibility);
    let all = traceback::traceback(&stack, start, Visibility { level: 2, throwing: true });
    let mut incomplete: Vec<String> = shown.gaps.iter().map(|gap| behind_gap(&shown, *gap)).collect();
    if !matches!(shown.end, End::TopFrame | End::SpWrite) {
        incomplete.push(format!("unwinding ended early: {}", shown.end));
    }
    let contiguous = all.gaps.iter().map(|gap| gap.before).min().unwrap_or(all.frames.len());
    Stacks { shown: shown.frames, elided: shown.elided, all: all.frames, contiguous, incomplete, visibility }
}

/// Describes which frames are unknown, and why.
fn behind_gap(shown: &traceback::Traceback, gap: Gap) -> String {
    let Gap { before, bytes } = gap;
    let size = if bytes < 10 << 10 { format!("{bytes} bytes") } else { format!("{} KiB", bytes >> 10) };
    let place = match before {
        0 => "before stack[0]".to_owned(),
        at if at >= shown.frames.len() => format!("after stack[{}]", at - 1),
        at => format!("between stack[{}] and stack[{at}]", at - 1),
    };
    format!("the frames in {size} {place} are missing: their memory was not captured")
}

fn status(view: &View<'_>) -> Option<u32> {
    let field = view.program.bin.layout().g.atomicstatus;
    let at = view.event.head.g.checked_add(u64::from(field)).filter(|_| view.event.head.g != 0)?;
    view.memory().u32(at).map(|status| status & !GOROUTINE_SCAN)
}

/// Fills in goroutine and ancestry.
///
/// `visibility` is that of the goroutine's stack: Go hides or shows the creator by the same rule as a frame.
pub(super) fn describe(incident: &mut Incident, view: &View<'_>, visibility: Visibility) {
    let head = view.event.head;
    if head.g == 0 {
        return;
    }
    let layout = view.program.bin.layout();
    let g = &layout.g;
    let status = status(view);
    let waiting = status == Some(GOROUTINE_WAITING);
    let reason = view.byte(head.g, g.waitreason).map(usize::from);
    let parent = g.parent_goid.and_then(|field| view.g(field)).filter(|id| *id != 0);
    let gopc = view.g(g.gopc).filter(|pc| *pc != 0);
    // The main goroutine's creator is the runtime's start-up code, which Go never prints.
    let shown = |pc: &u64| traceback::shows_creator(&view.program.bin, view.bias, *pc, head.goid, visibility);
    let created_by = gopc.filter(shown).and_then(|pc| traceback::creator(&view.program.bin, view.bias, pc));
    let (thread_id, locked) = thread(view);
    if let Some(frame) = &created_by {
        ancestry::fill(incident, view, parent, frame.clone(), visibility);
    }
    incident.goroutine = Some(Goroutine {
        id: head.goid,
        status: status
            .and_then(|s| GOROUTINE_STATUS.iter().find(|(n, _)| *n == s))
            .map(|(_, name)| (*name).to_owned()),
        wait_reason: reason
            .filter(|_| waiting)
            .and_then(|r| layout.wait_reasons.get(r))
            .map(|r| (*r).to_owned()),
        parent_id: parent,
        created_by,
        start: view.g(g.startpc).and_then(|pc| view.function(pc)),
        thread_id,
        locked_to_thread: locked,
        labels: Default::default(),
        stack_lo: view.g(g.stack_lo).map(addr),
        stack_hi: view.g(g.stack_hi).map(addr),
        stackguard0: view.g(g.stackguard0).map(addr),
        defer_depth: None,
    });
}

/// Fills in the labels at the raise of the goroutine's first panic (`view`): a deferred call such as that of
/// pprof.Do resets them before the end.
pub(super) fn set_labels(incident: &mut Incident, view: &View<'_>) {
    let Some(goroutine) = &mut incident.goroutine else { return };
    let layout = view.program.bin.layout();
    let word = view.g(layout.g.labels);
    let found = word.map(|word| value::labels(&view.memory(), layout.release, word));
    let (labels, reason) = found
        .unwrap_or_else(|| (Default::default(), Some("labels: the goroutine's g was not captured".into())));
    goroutine.labels = labels;
    incident.missing.extend(reason.map(|reason| lack("goroutine.labels", reason)));
}

/// Returns the number of deferred calls pending when this panic was raised (`view` is of its raise).
pub(super) fn defer_depth(view: &View<'_>) -> Result<u64, String> {
    let head = view.event.head;
    let memory = view.memory();
    let stack = Stack { bin: &view.program.bin, bias: view.bias, memory: &memory };
    let first = view.g(view.program.bin.layout().g.defer).ok_or("the goroutine's g was not captured")?;
    let start = Start { stack_hi: head.stack_hi, ..Start::at(head.ip, head.sp) };
    let mut unwinder = Unwinder::new(&stack, start, DEFAULT_MAX_FRAMES);
    // The first frame is gopanic itself.
    let frames: Vec<_> = unwinder.by_ref().skip(1).collect();
    let ended = matches!(unwinder.end(), Some(End::TopFrame | End::SpWrite));
    let walked = ended && frames.iter().all(|frame| frame.gap == 0);
    let frames = frames.into_iter().map(Activation::from);
    let pending = defers::pending(&memory, &view.program.bin, view.bias, first, frames, walked);
    match pending.incomplete {
        Some(reason) => Err(reason),
        None => Ok(pending.calls.len() as u64),
    }
}

/// Returns the kernel thread, and whether the goroutine is locked to it.
fn thread(view: &View<'_>) -> (Option<u32>, Option<bool>) {
    let layout = view.program.bin.layout();
    let m = match &view.event.body {
        Body::Capture(capture) => capture.m_addr,
        _ => 0,
    };
    let id = view.word(m, layout.m.procid).and_then(|id| u32::try_from(id).ok());
    (id.or(Some(view.event.head.tid)), view.g(layout.g.lockedm).map(|locked| locked != 0))
}
