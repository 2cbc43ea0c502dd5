//! Converts physical frames to the lines of Go's traceback.
//!
//! Follows traceback1, traceback2 and printcreatedby of
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go>; up to 1.20, gentraceback of
//! <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go>. Arguments are not decoded.

use std::rc::Rc;

use super::{DEFAULT_MAX_FRAMES, End, Stack, StackFrame, Start, Unwinder, Visibility};
use crate::{
    go::gobin::{CodeFrame, FuncId, GoBinary},
    incident::{Addr, Frame},
};

/// Number of frames printed from each end of a deep stack since 1.21.
const INNER: u64 = 50;
const OUTER: u64 = 50;
/// Number of physical frames examined up to 1.20.
const MAX_OLD: u64 = 100;

/// The frames that Go prints of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Traceback {
    /// The frames shown, innermost first.
    pub frames: Vec<Frame>,
    /// Number of further frames that would be shown without the limit; `None` when some of them are unknown.
    pub elided: Option<u64>,
    /// Parts of the stack whose frames are unknown, in order.
    pub gaps: Vec<Gap>,
    /// The elided frames belong before `frames[elided_before]`: after the 50 innermost; up to Go 1.20, at the
    /// end.
    pub elided_before: usize,
    /// Why the walk ended; anything but [`End::TopFrame`] and [`End::SpWrite`] means that outer frames are
    /// unknown.
    pub end: End,
}

/// A part of the stack whose frames are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The unknown frames belong before [`Traceback::frames`]`[before]`.
    pub before: usize,
    /// Size of the part, in bytes.
    pub bytes: u64,
}

/// Returns the frames that Go's traceback would print for the stack that begins at `start`.
pub fn traceback(stack: &Stack<'_>, start: Start, visibility: Visibility) -> Traceback {
    let with_runtime = |show_all| {
        if stack.bin.version().release.traceback_prints_both_ends() {
            print_ends(stack, start, visibility, show_all)
        } else {
            print_innermost(stack, start, visibility, show_all)
        }
    };
    let user = with_runtime(visibility.all());
    if user.frames.is_empty() && !visibility.all() {
        // Instead of nothing, Go shows the runtime's own frames.
        return with_runtime(true);
    }
    user
}

/// Since 1.21: two passes over the outer part, as in the runtime. The second pass restarts the tracking of
/// the first frame and of the callee, which has a visible effect on rare stacks; hence the same procedure.
fn print_ends(stack: &Stack<'_>, start: Start, visibility: Visibility, all: bool) -> Traceback {
    let mut printer = Printer::new(stack, start, visibility, all);
    let mut frames = Vec::new();
    let inner = printer.run(0, INNER, &mut frames);
    if inner.seen < INNER {
        let end = printer.end();
        return Traceback { frames, elided: Some(0), gaps: printer.gaps, elided_before: 0, end };
    }
    let mut again = printer.clone();
    let left = printer.run(u64::MAX, 0, &mut Vec::new()).seen;
    let elided = left.saturating_sub(inner.in_last_frame).saturating_sub(OUTER);
    let elided_before = if elided > 0 { frames.len() } else { 0 };
    again.run(inner.in_last_frame + elided, OUTER, &mut frames);
    // A gap at the seam counts as part of the elided frames, if there are any.
    let hidden = elided > 0 && again.gaps.iter().any(|gap| gap.before == elided_before);
    Traceback {
        frames,
        elided: (!hidden).then_some(elided),
        gaps: again.gaps,
        elided_before,
        end: printer.end(),
    }
}

/// Up to 1.20: the visible frames among the 100 innermost physical frames.
fn print_innermost(stack: &Stack<'_>, start: Start, visibility: Visibility, all: bool) -> Traceback {
    let mut frames = Vec::new();
    let mut printer = Printer::new(stack, start, visibility, all);
    let mut shown = 0;
    for i in 0.. {
        let Some(frame) = printer.current else { break };
        printer.note_gap(&frame, frames.len());
        for code in printer.shown(&frame, shown == 0) {
            shown += 1;
            if i < MAX_OLD {
                frames.push(to_frame(&frame, &code, stack.bias));
            }
        }
        printer.advance();
    }
    let elided = shown - frames.len() as u64;
    let elided_before = if elided > 0 { frames.len() } else { 0 };
    let hidden = elided > 0 && printer.gaps.iter().any(|gap| gap.before == elided_before);
    let end = printer.end();
    Traceback { elided_before, frames, elided: (!hidden).then_some(elided), gaps: printer.gaps, end }
}

/// A walk, positioned at a physical frame.
#[derive(Clone)]
struct Printer<'a> {
    stack: &'a Stack<'a>,
    unwinder: Unwinder<'a>,
    current: Option<StackFrame<'a>>,
    callee: FuncId,
    visibility: Visibility,
    all: bool,
    expanded: Expanded<'a>,
    gaps: Vec<Gap>,
    /// Stack pointer of the frame whose gap was recorded last.
    gap_of: u64,
}

/// Cache of the logical frames of recent program counters: a deep stack mostly repeats a few of them.
#[derive(Clone, Default)]
struct Expanded<'a>([Option<(u64, Rc<[CodeFrame<'a>]>)>; 16]);

impl<'a> Expanded<'a> {
    fn get(&mut self, frame: &StackFrame<'a>, bias: u64) -> Rc<[CodeFrame<'a>]> {
        let pc = frame.call_pc(bias);
        let slot = &mut self.0[(pc ^ (pc >> 4) ^ (pc >> 8)) as usize % 16];
        match slot {
            Some((known, codes)) if *known == pc => Rc::clone(codes),
            _ => {
                let codes: Rc<[_]> = frame.func.frames_at(pc).into();
                *slot = Some((pc, Rc::clone(&codes)));
                codes
            }
        }
    }
}

/// Frame counts of one pass.
struct Counted {
    /// Number of logical frames skipped or printed.
    seen: u64,
    /// Number of those that belong to the physical frame at which the pass stopped.
    in_last_frame: u64,
}

impl<'a> Printer<'a> {
    fn new(stack: &'a Stack<'a>, start: Start, visibility: Visibility, all: bool) -> Self {
        let mut unwinder = Unwinder::new(stack, start, DEFAULT_MAX_FRAMES);
        let current = unwinder.next();
        Self {
            stack,
            unwinder,
            current,
            callee: start.callee,
            visibility,
            all,
            expanded: Expanded::default(),
            gaps: Vec::new(),
            gap_of: 0,
        }
    }

    fn advance(&mut self) {
        self.current = self.unwinder.next();
        if let Some(frame) = &self.current {
            self.callee = frame.callee;
        }
    }

    /// Records the gap before `frame`, unless there is none or it has been recorded already.
    fn note_gap(&mut self, frame: &StackFrame<'_>, before: usize) {
        let gap = Gap { before, bytes: frame.gap };
        if frame.gap > 0 && self.gap_of != frame.sp {
            self.gap_of = frame.sp;
            self.gaps.push(gap);
        }
    }

    fn end(&self) -> End {
        // Called only after the walk has ended.
        self.unwinder.end().unwrap_or(End::Limit(DEFAULT_MAX_FRAMES))
    }

    fn shows(&self, code: &CodeFrame<'_>, first: bool, callee: FuncId) -> bool {
        let version = self.stack.bin.version();
        self.all || self.visibility.shows(version, &code.raw_name, code.func_id, first, callee)
    }

    /// Returns the logical frames of `frame` that are shown. `first` is whether none has been shown so far.
    fn shown(&mut self, frame: &StackFrame<'a>, mut first: bool) -> Vec<CodeFrame<'a>> {
        let codes = self.expanded.get(frame, self.stack.bias);
        let judged = codes.iter().filter(|code| {
            let callee = std::mem::replace(&mut self.callee, code.func_id);
            let show = self.shows(code, first, callee);
            first &= !show;
            show
        });
        judged.cloned().collect()
    }

    /// Skips `skip` shown frames, then prints up to `max`; stops at the next one, positioned at its physical
    /// frame.
    fn run(&mut self, mut skip: u64, mut max: u64, out: &mut Vec<Frame>) -> Counted {
        let mut seen = 0;
        while let Some(frame) = self.current {
            let mut in_last_frame = 0;
            self.note_gap(&frame, out.len());
            for code in self.expanded.get(&frame, self.stack.bias).iter() {
                let callee = std::mem::replace(&mut self.callee, code.func_id);
                if !self.shows(code, seen == 0, callee) {
                    continue;
                }
                if skip == 0 && max == 0 {
                    return Counted { seen, in_last_frame };
                }
                seen += 1;
                in_last_frame += 1;
                if skip > 0 {
                    skip -= 1;
                } else {
                    max -= 1;
                    out.push(to_frame(&frame, code, self.stack.bias));
                }
            }
            self.advance();
        }
        Counted { seen, in_last_frame: 0 }
    }
}

fn printed_name(raw: &str, display: String) -> String {
    if raw == "runtime.gopanic" { "panic".to_owned() } else { display }
}

fn to_frame(frame: &StackFrame<'_>, code: &CodeFrame<'_>, bias: u64) -> Frame {
    Frame {
        function: printed_name(&code.raw_name, code.function.clone().into_owned()),
        // For code without table entries (assembly after a function's end) Go prints "?:0".
        file: Some(code.file.as_deref().unwrap_or("?").to_owned()),
        line: Some(code.line.unwrap_or(0)),
        pc: Addr(frame.pc),
        offset: frame.offset(bias),
        inlined: code.inlined,
    }
}

/// Returns the frame of the go statement at run-time address `gopc`, named as in the "created by" line: after
/// the physical function, even if the statement is in a function inlined into it.
pub fn creator(bin: &GoBinary, bias: u64, gopc: u64) -> Option<Frame> {
    let pc = gopc.wrapping_sub(bias);
    let func = bin.find_func(pc)?;
    let call = if pc > func.entry() { pc - 1 } else { pc };
    let (file, line) = func.file_line(call).unzip();
    Some(Frame {
        function: printed_name(&func.name(), func.display_name().into_owned()),
        file: file.map(std::borrow::Cow::into_owned),
        line,
        pc: Addr(gopc),
        offset: pc - func.entry(),
        inlined: false,
    })
}

/// Reports whether Go prints "created by" for goroutine `goid`: never for the main one, nor for a creator
/// that it hides.
pub fn shows_creator(bin: &GoBinary, bias: u64, gopc: u64, goid: u64, visibility: Visibility) -> bool {
    let Some(func) = bin.find_func(gopc.wrapping_sub(bias)) else { return false };
    goid != 1 && visibility.shows(bin.version(), &func.name(), func.func_id(), false, FuncId::Normal)
}
