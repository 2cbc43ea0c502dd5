//! Deferred calls that are pending on a goroutine, in the order they would run.
//!
//! Knows where each Go release stores them: in linked `_defer` records, or as open-coded defers, which exist
//! only as a byte of flag bits and closure slots in their function's frame. Must not unwind stacks: the
//! caller passes the frames.
//!
//! Go 1.22 and later: follows `(*_panic).nextDefer` of
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go>. Earlier releases: follows
//! runOpenDeferFrame of
//! <https://github.com/golang/go/blob/go1.21.13/src/runtime/panic.go>.

use crate::go::{
    gobin::{Arch, Func, GoBinary, tables},
    memory::Memory,
    traceback::StackFrame,
};

/// Maximum number of pending calls read.
const MAX_CALLS: usize = 1 << 16;
/// Maximum number of steps of one read; a record that is a pending call counts as two.
const MAX_STEPS: usize = 4 * MAX_CALLS;
/// Value of the list head of a range-over-func loop after its function has returned: `badDefer`.
const POISONED: u64 = 1;
/// Maximum number of open-coded defers of one function: one bit each.
const MAX_OPEN_CODED: u32 = 8;

/// An activation that may have registered deferred calls. Stack addresses are run-time.
#[derive(Debug, Clone, Copy)]
pub struct Activation<'a> {
    /// The active function.
    pub func: Func<'a>,
    /// Stack pointer of this activation.
    pub sp: u64,
    /// Stack pointer of its caller.
    pub fp: u64,
}

impl<'a> From<StackFrame<'a>> for Activation<'a> {
    fn from(frame: StackFrame<'a>) -> Self {
        Self { func: frame.func, sp: frame.sp, fp: frame.fp }
    }
}

/// Where a deferred call is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In the function's frame, without a record.
    OpenCoded,
    /// In a record on the stack.
    Stack,
    /// In a record on the heap: a defer statement in a loop.
    Heap,
    /// In a record created by the body of a range-over-func loop.
    RangeFunc,
}

/// A deferred call that has not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Run-time address of the closure; 0 for a nil function.
    pub closure: u64,
    /// Run-time address of the closure's code; `None` when the closure was not captured.
    pub pc: Option<u64>,
    /// Run-time address in the function that registered it: for records, the return address of its defer
    /// statement; for open-coded defers, the function's entry.
    pub registered_by: u64,
    /// Stack pointer of the registering activation; for records, as stored in the record.
    pub sp: u64,
    /// Where the call is stored.
    pub storage: Storage,
}

/// The pending deferred calls of a goroutine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PendingDefers {
    /// The calls, in the order they would run.
    pub calls: Vec<Pending>,
    /// Why `calls` may be incomplete; `None` when these are all.
    pub incomplete: Option<String>,
}

/// Reads the pending calls of a goroutine whose list of records starts at `first` (`g._defer`).
///
/// `frames` are its activations, innermost first, beginning with the one whose deferred calls would run first
/// (for a panic, the caller of gopanic). `walked` is whether `frames` reach the goroutine's first function.
pub fn pending<'a>(
    memory: &dyn Memory,
    binary: &GoBinary,
    bias: u64,
    first: u64,
    frames: impl IntoIterator<Item = Activation<'a>>,
    walked: bool,
) -> PendingDefers {
    let mut reader = Reader { memory, binary, bias, out: PendingDefers::default(), steps: 0 };
    let mut record = first;
    let result = frames
        .into_iter()
        .try_for_each(|frame| {
            reader.open_coded(&frame)?;
            reader.records(&mut record, Some(frame.sp))
        })
        // Records remain when the walk ended early or started above their frame.
        .and_then(|()| reader.records(&mut record, None));
    reader.out.incomplete = match result {
        Err(reason) => Some(reason),
        Ok(()) if !walked => Some("the stack was not unwound to its end".to_owned()),
        Ok(()) => None,
    };
    reader.out
}

struct Reader<'a> {
    memory: &'a dyn Memory,
    binary: &'a GoBinary,
    bias: u64,
    out: PendingDefers,
    /// Steps taken, including those for records that are no pending call: a damaged list may be circular.
    steps: usize,
}

impl Reader<'_> {
    /// Adds the open-coded defers of one frame; the highest bit runs first.
    fn open_coded(&mut self, frame: &Activation<'_>) -> Result<(), String> {
        let Some(info) = frame.func.funcdata(tables::FUNCDATA_OPEN_CODED_DEFER) else { return Ok(()) };
        let varp = self.varp(frame);
        let damaged = || format!("the open-coded defers of {} cannot be read", frame.func.display_name());
        let mut info = Varints { binary: self.binary, at: info };
        let bits_at = varp.wrapping_sub(info.next().ok_or_else(damaged)?);
        let bits = self.memory.u8(bits_at).ok_or_else(|| unread(bits_at))?;
        // Go 1.21 and earlier list each closure's offset, from the last defer to the first; later releases
        // use adjacent slots.
        let second = info.next().ok_or_else(damaged)?;
        let mut slots = [0; MAX_OPEN_CODED as usize];
        if self.binary.version().release.open_coded_defers_are_adjacent() {
            for (slot, i) in slots.iter_mut().zip(0u64..) {
                *slot = varp.wrapping_sub(second).wrapping_add(8 * i);
            }
        } else {
            let count = usize::try_from(second).ok().filter(|n| *n <= slots.len()).ok_or_else(damaged)?;
            for slot in slots[..count].iter_mut().rev() {
                *slot = varp.wrapping_sub(info.next().ok_or_else(damaged)?);
            }
        }
        for i in (0..MAX_OPEN_CODED as usize).rev().filter(|i| bits & 1 << i != 0) {
            let closure = self.word(slots[i])?;
            self.push(closure, frame.func.entry().wrapping_add(self.bias), frame.sp, Storage::OpenCoded)?;
        }
        Ok(())
    }

    /// Returns the end of the frame's variables, just below the saved frame pointer.
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go> resolveInternal
    fn varp(&self, frame: &Activation<'_>) -> u64 {
        match self.binary.arch() {
            Arch::Amd64 => frame.fp.wrapping_sub(16),
            Arch::Arm64 => frame.fp.wrapping_sub(8),
        }
    }

    /// Adds the records from `*record` on that belong to the frame with stack pointer `sp`, or all of them
    /// for `None`.
    fn records(&mut self, record: &mut u64, sp: Option<u64>) -> Result<(), String> {
        let layout = self.binary.layout().defer;
        while *record != 0 {
            let at = *record;
            let own = self.word(at.wrapping_add(layout.sp.into()))?;
            if sp.is_some_and(|sp| sp != own) {
                return Ok(());
            }
            // Up to Go 1.21 a record stays in the list while its call runs, and panics add records for
            // open-coded frames, whose calls `open_coded` has already read from the frame.
            let flag = |off: Option<u16>| self.flag(at, off);
            let (started, open, range) =
                (flag(layout.started)?, flag(layout.open_defer)?, flag(layout.rangefunc)?);
            if range {
                self.range_func(at, own)?;
            } else if !started && !open {
                let storage = if flag(Some(layout.heap))? { Storage::Heap } else { Storage::Stack };
                let pc = self.word(at.wrapping_add(layout.pc.into()))?;
                let closure = self.word(at.wrapping_add(layout.fn_.into()))?;
                self.push(closure, pc, own, storage)?;
            }
            *record = self.word(at.wrapping_add(layout.link.into()))?;
            self.bound()?;
        }
        Ok(())
    }

    /// Adds the calls deferred by the bodies of range-over-func loops of one activation. They form a separate
    /// list, linked from the record, in the order they run.
    fn range_func(&mut self, at: u64, sp: u64) -> Result<(), String> {
        let layout = self.binary.layout().defer;
        let Some(head) = layout.head else { return Ok(()) };
        let pc = self.word(at.wrapping_add(layout.pc.into()))?;
        let head = self.word(at.wrapping_add(head.into()))?;
        let mut record = self.word(head)?;
        while record != 0 && record != POISONED {
            let closure = self.word(record.wrapping_add(layout.fn_.into()))?;
            self.push(closure, pc, sp, Storage::RangeFunc)?;
            record = self.word(record.wrapping_add(layout.link.into()))?;
        }
        Ok(())
    }

    fn push(&mut self, closure: u64, registered_by: u64, sp: u64, storage: Storage) -> Result<(), String> {
        self.bound()?;
        let pc = if closure == 0 { None } else { self.memory.u64(closure) };
        self.out.calls.push(Pending { closure, pc, registered_by, sp, storage });
        Ok(())
    }

    fn bound(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.calls.len() >= MAX_CALLS {
            return Err(format!("there are more deferred calls than the {MAX_CALLS} that are read"));
        }
        Ok(())
    }

    fn flag(&self, at: u64, off: Option<u16>) -> Result<bool, String> {
        let Some(off) = off else { return Ok(false) };
        let at = at.wrapping_add(off.into());
        self.memory.u8(at).map(|byte| byte != 0).ok_or_else(|| unread(at))
    }

    fn word(&self, at: u64) -> Result<u64, String> {
        self.memory.u64(at).ok_or_else(|| unread(at))
    }
}

fn unread(at: u64) -> String {
    format!("memory at {at:#x} (deferred calls) was not captured")
}

/// Decoder of variable-length integers in the binary's read-only data.
struct Varints<'a> {
    binary: &'a GoBinary,
    at: u64,
}

impl Varints<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = *self.binary.read_static(self.at, 1)?.bytes.first()?;
            self.at = self.at.checked_add(1)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
