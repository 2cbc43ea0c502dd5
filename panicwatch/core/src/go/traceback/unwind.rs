//! Unwinds the physical frames of a Go stack with the stack-pointer tables.
//!
//! Follows unwinder.init/resolveInternal/next of
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go> in its error-tolerant mode, the one
//! used for printing tracebacks (gentraceback in
//! <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go>).

use std::fmt;

use crate::go::{
    gobin::{Arch, Func, FuncId, GoBinary},
    memory::Memory,
};

/// Default maximum number of frames of a walk. A gigabyte of stack, the largest Go allows, contains no more
/// than this at 256 bytes a frame.
pub const DEFAULT_MAX_FRAMES: u64 = 1 << 22;

/// Captured memory is searched in pieces of this size, in bytes.
const PAGE: u64 = 4096;
/// Maximum distance in bytes of the first function's frame from the end of the stack: `newproc1` leaves four
/// words and alignment. <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (newproc1)
const ABOVE_FIRST: u64 = 128;
/// Opcode of `call rel32`.
const CALL: u8 = 0xe8;
/// Size in bytes of the pieces of a page that was captured only in part.
const LINE: u64 = 64;

/// Size in bytes of the return address above the frame, which amd64's call instruction pushes.
const RETURN_ADDRESS: u64 = 8;

/// Inputs of a stack walk.
pub struct Stack<'a> {
    /// Binary of the program.
    pub bin: &'a GoBinary,
    /// Load bias: run-time address minus link-time address.
    pub bias: u64,
    /// Memory that contains the stack.
    pub memory: &'a dyn Memory,
}

impl fmt::Debug for Stack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack(bias {:#x})", self.bias)
    }
}

/// Start of a walk. Addresses are run-time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Program counter in the frame: a return address but for the innermost.
    pub pc: u64,
    /// Stack pointer at `pc`.
    pub sp: u64,
    /// Whether `pc` is the next instruction to execute (a probe, a trap); otherwise it is a return address.
    pub exact: bool,
    /// Whether `pc` and `sp` are g.syscallpc and g.syscallsp.
    pub syscall: bool,
    /// Callee of `pc`'s function, if the walk starts below it; [`FuncId::Normal`] if nothing special.
    pub callee: FuncId,
    /// Set for a walk that starts on a system stack and is to continue where the goroutine left its own
    /// stack.
    pub user: Option<UserStack>,
    /// End of the goroutine's stack (`g.stack.hi`): limit of the search for frames beyond unreadable memory.
    /// With 0 the walk ends at unreadable memory instead.
    pub stack_hi: u64,
}

impl Start {
    /// Starts at an instruction about to be executed.
    pub fn at(pc: u64, sp: u64) -> Self {
        Self { pc, sp, exact: true, syscall: false, callee: FuncId::Normal, user: None, stack_hi: 0 }
    }

    /// Starts at a return address: g.sched of a goroutine that is not running, or the caller of a function
    /// that just returned.
    pub fn returning_to(pc: u64, sp: u64) -> Self {
        Self { exact: false, ..Self::at(pc, sp) }
    }
}

/// m.curg.sched: the point at which the goroutine switched from its own stack to the system stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserStack {
    /// Program counter (sched.pc).
    pub pc: u64,
    /// Stack pointer (sched.sp).
    pub sp: u64,
}

/// One physical frame. Addresses are run-time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackFrame<'a> {
    /// The function; its own addresses are link-time.
    pub func: Func<'a>,
    /// A return address into the function, or the interrupted instruction.
    pub pc: u64,
    /// Stack pointer at `pc`.
    pub sp: u64,
    /// Stack pointer of the caller.
    pub fp: u64,
    /// Whether `pc` was interrupted, instead of being a return address.
    pub trap: bool,
    /// FuncID of the function that it called.
    pub callee: FuncId,
    /// Bytes of stack between this frame and the previous one whose frames are unknown; normally 0.
    pub gap: u64,
}

impl StackFrame<'_> {
    /// Returns the link-time address of the last instruction executed here, which is used to look up file and
    /// line.
    pub fn call_pc(&self, bias: u64) -> u64 {
        let pc = self.pc.wrapping_sub(bias);
        if self.trap || pc <= self.func.entry() { pc } else { pc - 1 }
    }

    /// Returns the offset of `pc` from the function's entry.
    pub fn offset(&self, bias: u64) -> u64 {
        self.pc.wrapping_sub(bias).wrapping_sub(self.func.entry())
    }
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The whole stack was walked.
    #[error("the stack's first function was reached")]
    TopFrame,
    /// The function switches stacks by hand (a context switch, a call into C).
    #[error("a function that switches stacks")]
    SpWrite,
    /// The frame has no tables: foreign code linked into the binary.
    #[error("foreign code at {0:#x}")]
    Foreign(u64),
    /// The pc is not in Go code: C code, or a damaged stack.
    #[error("no Go function at {0:#x}")]
    UnknownPc(u64),
    /// The return address could not be read.
    #[error("no stack memory at {0:#x}")]
    NoMemory(u64),
    /// The tables or the stack contradict themselves.
    #[error("inconsistent frame at pc {0:#x}")]
    Inconsistent(u64),
    /// Not implemented for this instruction set.
    #[error("unwinding of {0} stacks is not supported")]
    UnsupportedArch(&'static str),
    /// The maximum number of frames was reached.
    #[error("more than {0} frames")]
    Limit(u64),
}

/// Iterator over a stack's frames, innermost first. Clones advance independently.
#[derive(Debug, Clone)]
pub struct Unwinder<'a> {
    stack: &'a Stack<'a>,
    next: Result<Position<'a>, End>,
    user: Option<UserStack>,
    stack_hi: u64,
    /// Size of the program's largest frame in bytes, computed on first use.
    largest: Option<u64>,
    left: u64,
    max: u64,
    cache: Cache<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Position<'a> {
    func: Func<'a>,
    pc: u64,
    sp: u64,
    trap: bool,
    syscall: bool,
    callee: FuncId,
    gap: u64,
}

impl<'a> Unwinder<'a> {
    /// Returns an unwinder of at most `max` frames from `start`.
    pub fn new(stack: &'a Stack<'a>, start: Start, max: u64) -> Self {
        let mut cache = Cache::default();
        let next = match stack.bin.arch() {
            Arch::Amd64 => first(stack, start, &mut cache),
            other @ Arch::Arm64 => Err(End::UnsupportedArch(other.name())),
        };
        Self { stack, next, user: start.user, stack_hi: start.stack_hi, largest: None, left: max, max, cache }
    }

    /// Returns why the walk ended; `None` while frames are left.
    pub fn end(&self) -> Option<End> {
        match self.next {
            Err(end) => Some(end),
            Ok(_) if self.left == 0 => Some(End::Limit(self.max)),
            Ok(_) => None,
        }
    }

    /// Returns the frame at `at`, and the position of its caller.
    fn resolve(&mut self, mut at: Position<'a>) -> Result<(StackFrame<'a>, Result<Position<'a>, End>), End> {
        if !at.func.has_spdelta() {
            return Err(End::Foreign(at.pc));
        }
        let mut jumped = false;
        match (at.func.func_id(), self.user) {
            (FuncId::Morestack, Some(user)) => {
                // newstack resumes at curg.sched, never in morestack: that is its caller's frame.
                at.func = self.cache.lookup(self.stack, user.pc).ok_or(End::UnknownPc(user.pc))?.0;
                (at.pc, at.sp) = (user.pc, user.sp);
                self.user = None;
            }
            (FuncId::SystemStack, Some(user)) => {
                at.sp = user.sp;
                self.user = None;
                jumped = true;
            }
            _ => {}
        }
        let (_, delta) = self.cache.lookup(self.stack, at.pc).ok_or(End::UnknownPc(at.pc))?;
        let delta = delta.and_then(|d| u64::try_from(d).ok());
        let fp = at.sp.checked_add(delta.unwrap_or(0) + RETURN_ADDRESS).ok_or(End::Inconsistent(at.pc))?;
        let Position { func, pc, sp, trap, callee, gap, .. } = at;
        let frame = StackFrame { func, pc, sp, fp, trap, callee, gap };
        if delta.is_none() {
            // Padding after a function (runtime.abort's INT $3 leaves the pc there): Go shows the frame, then
            // fails to find its caller.
            return Ok((frame, Err(End::Inconsistent(at.pc))));
        }
        // cgocallback also switches from the system stack, but leaves a frame that can be unwound on both.
        let trusted = jumped || at.syscall || at.func.func_id() == FuncId::CgoCallback;
        if at.func.is_top_frame() {
            return Ok((frame, Err(End::TopFrame)));
        }
        if at.func.writes_sp() && !trusted {
            return Ok((frame, Err(End::SpWrite)));
        }
        Ok((frame, self.caller(&frame)))
    }

    fn caller(&mut self, frame: &StackFrame<'a>) -> Result<Position<'a>, End> {
        let at = frame.fp - RETURN_ADDRESS;
        let Some(pc) = self.stack.memory.u64(at) else {
            return self.beyond(at).ok_or(End::NoMemory(at));
        };
        if pc == 0 {
            return Err(End::TopFrame);
        }
        let (func, _) = self.cache.lookup(self.stack, pc).ok_or(End::UnknownPc(pc))?;
        let callee = frame.func.func_id();
        let injected = match self.stack.bin.version().release.traces_injected_calls() {
            true => callee.is_injected_call(),
            false => callee == FuncId::Sigpanic,
        };
        Ok(Position { func, pc, sp: frame.fp, trap: injected, syscall: false, callee, gap: 0 })
    }
}

/// Continuing beyond unreadable memory.
///
/// Go's functions save the caller's frame pointer below the return address, and it points to where that
/// caller saved its own. So a return address is preceded by the address that follows from its function's
/// frame size, and from such a pair the frame sizes lead to the stack's first function. Such a pair can also
/// be left over from an earlier call, in an unused part of a frame whose beginning is unreadable. A frame is
/// therefore certain only if the frame it returns to is certain and called it directly, or if it is further
/// away than the size of any frame.
impl<'a> Unwinder<'a> {
    /// Returns the innermost certain frame beyond `at`, where a return address should be but is unreadable.
    fn beyond(&mut self, at: u64) -> Option<Position<'a>> {
        let memory = self.stack.memory;
        let mut page = at & !(PAGE - 1);
        // Start of the readable memory that is searched.
        let mut readable = at + 8;
        while page < self.stack_hi {
            let next = (page + PAGE).min(self.stack_hi);
            // One end of a page that is partly unreadable may be readable.
            let size = match memory.u64(page).or_else(|| memory.u64(next - 8)) {
                Some(_) if memory.bytes(page, (next - page) as usize).is_some() => PAGE,
                Some(_) => LINE,
                None => next - page,
            };
            for piece in (page..next).step_by(size as usize) {
                let end = (piece + size).min(next);
                let Some(bytes) = memory.bytes(piece, (end - piece) as usize) else {
                    readable = readable.max(end);
                    continue;
                };
                if let Some(found) = self.certain_in(piece, &bytes, readable) {
                    return Some(Position { gap: found.sp - at, ..found });
                }
            }
            page = next;
        }
        None
    }

    /// Returns the innermost certain frame to which the saved frame pointers in `bytes`, read from address
    /// `from`, lead.
    fn certain_in(&mut self, from: u64, bytes: &[u8], readable: u64) -> Option<Position<'a>> {
        let words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        words.zip((from..).step_by(8)).find_map(|(word, slot)| {
            // A frame pointer points outwards, into the same stack.
            let plausible = slot >= readable && word > slot && word < self.stack_hi;
            let found = if plausible { self.saved_at(slot, word) } else { None };
            found.and_then(|found| self.certain_from(found, readable))
        })
    }

    /// Returns the frame whose callee saved the frame pointer `saved` at `slot`, if frame size and frame
    /// pointer agree.
    fn saved_at(&mut self, slot: u64, saved: u64) -> Option<Position<'a>> {
        let pc = self.stack.memory.u64(slot + RETURN_ADDRESS).filter(|pc| *pc != 0)?;
        let (func, delta) = self.cache.lookup(self.stack, pc)?;
        let delta = u64::try_from(delta?).ok().filter(|delta| *delta > 0)?;
        // The frame begins after the return address; below its own return address it saved its caller's frame
        // pointer.
        let agrees = slot.checked_add(8)?.checked_add(delta)? == saved;
        let (trap, syscall, callee, gap) = (false, false, FuncId::Normal, 0);
        agrees.then_some(Position { func, pc, sp: slot + 16, trap, syscall, callee, gap })
    }

    /// Returns the innermost certain frame of the walk that starts at `from`, if the walk ends at the stack's
    /// first function.
    fn certain_from(&mut self, from: Position<'a>, readable: u64) -> Option<Position<'a>> {
        let mut walk = Self { next: Ok(from), user: None, stack_hi: 0, left: self.left, ..self.clone() };
        let frames: Vec<_> = walk.by_ref().collect();
        // Leftovers of an earlier call may lead anywhere, but not there.
        let is_first = |last: &StackFrame<'_>| {
            last.func.is_top_frame()
                && self.stack_hi.checked_sub(last.fp).is_some_and(|left| left <= ABOVE_FIRST)
        };
        if !frames.last().is_some_and(is_first) {
            return None;
        }
        let mut certain = frames.len() - 1;
        while let Some(inner) = certain.checked_sub(1) {
            let is_far =
                |largest: u64| frames[inner].sp > readable.saturating_add(largest).saturating_add(32);
            // Computing the largest frame takes time, and is useless if even a page is too large.
            let called = self.calls(&frames[certain], &frames[inner]);
            if !(called || is_far(PAGE) && is_far(self.largest_frame())) {
                break;
            }
            certain = inner;
        }
        let StackFrame { func, pc, sp, trap, .. } = frames[certain];
        Some(Position { func, pc, sp, trap, syscall: false, callee: FuncId::Normal, gap: 0 })
    }

    /// Reports whether `caller` called the function of `callee` directly, or is the runtime's first function
    /// of the stack.
    fn calls(&self, caller: &StackFrame<'a>, callee: &StackFrame<'a>) -> bool {
        // runtime.main calls main.main through its address in a variable.
        let runs_main = || caller.func.name() == "runtime.main" && callee.func.name() == "main.main";
        if caller.func.is_top_frame() || runs_main() {
            return true;
        }
        let pc = caller.pc.wrapping_sub(self.stack.bias);
        let code = pc.checked_sub(5).and_then(|call| self.stack.bin.code(call, pc));
        let Some([CALL, distance @ ..]) = code else { return false };
        let distance = distance.try_into().map_or(0, i32::from_le_bytes);
        pc.wrapping_add_signed(distance.into()) == callee.func.entry()
    }

    /// Returns the size of the program's largest frame in bytes.
    fn largest_frame(&mut self) -> u64 {
        let bin = self.stack.bin;
        let find = || bin.functions().filter_map(|func| func.frame_size()).max().unwrap_or(u64::MAX);
        *self.largest.get_or_insert_with(find)
    }
}

fn first<'a>(stack: &'a Stack<'a>, start: Start, cache: &mut Cache<'a>) -> Result<Position<'a>, End> {
    let (mut pc, mut sp) = (start.pc, start.sp);
    if pc == 0 {
        // A nil function was called: start with its caller.
        pc = stack.memory.u64(sp).ok_or(End::NoMemory(sp))?;
        sp = sp.checked_add(RETURN_ADDRESS).ok_or(End::Inconsistent(pc))?;
    }
    let (func, _) = cache.lookup(stack, pc).ok_or(End::UnknownPc(pc))?;
    Ok(Position { func, pc, sp, trap: start.exact, syscall: start.syscall, callee: start.callee, gap: 0 })
}

impl<'a> Iterator for Unwinder<'a> {
    type Item = StackFrame<'a>;

    fn next(&mut self) -> Option<StackFrame<'a>> {
        let at = self.next.ok()?;
        self.left = self.left.checked_sub(1)?;
        match self.resolve(at) {
            Ok((frame, next)) => {
                // Each frame is above the previous one (fp > sp), so no walk is circular.
                self.next = next;
                Some(frame)
            }
            Err(end) => {
                self.next = Err(end);
                None
            }
        }
    }
}

/// Cache of recent lookups: a deep stack mostly repeats a few program counters.
#[derive(Debug, Clone, Default)]
struct Cache<'a>([Option<(u64, Func<'a>, Option<i32>)>; 16]);

impl<'a> Cache<'a> {
    /// Returns the function at run-time address `pc` and its stack-pointer delta there.
    fn lookup(&mut self, stack: &Stack<'a>, pc: u64) -> Option<(Func<'a>, Option<i32>)> {
        let slot = &mut self.0[(pc ^ (pc >> 4) ^ (pc >> 8)) as usize % 16];
        if let Some((_, func, delta)) = slot.filter(|(known, ..)| *known == pc) {
            return Some((func, delta));
        }
        let link = pc.wrapping_sub(stack.bias);
        let func = stack.bin.find_func(link)?;
        let delta = func.spdelta(link);
        *slot = Some((pc, func, delta));
        Some((func, delta))
    }
}
