//! What in a Go function raises a panic: which instruction, of what kind, and what it compares. x86-64.
//!
//! Knows compiled code as the Go compiler writes it, and the runtime's functions that raise. Pure over the binary's
//! bytes: no process, no load address. Must not know who asks. An operand that is not certain is absent, and the
//! sentence says so.

mod bounds;
mod callee;
mod check;
mod code;
mod describe;
mod fault;
mod image;
mod locate;
mod term;
#[cfg(test)]
mod tests;
mod words;

pub use bounds::BoundsCode;

use crate::go::gobin::{Arch, Func, GoBinary};
use code::{Body, MAX_CODE};
use describe::Scan;

/// Why nothing is said: a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// What is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `panic(v)`.
    Panic,
    /// An index or slice bound out of range, or a slice too short for an array.
    Bounds {
        /// Which expression; `None` when the binary does not say.
        code: Option<BoundsCode>,
        /// Whether the index is a signed number; `None` for constants and when the binary does not say.
        signed: Option<bool>,
    },
    /// Nil dereference.
    Nil,
    /// Integer division by zero.
    Divide,
    /// Shift by a negative count.
    Shift,
    /// Integer overflow: no Go code raises it, a fault may.
    Overflow,
    /// Floating point error: no Go code raises it, a fault may.
    Float,
    /// A failed type assertion.
    Assertion,
    /// A value method called through a nil pointer.
    NilReceiver,
    /// `make([]T, n, m)` with sizes out of range.
    MakeSlice,
    /// `make(chan T, n)` with a size out of range.
    MakeChan,
    /// `append` beyond what a slice can hold.
    Grow,
    /// `unsafe.Slice` or `unsafe.String` with a bad length or pointer.
    Unsafe,
    /// Writing to a map: nil, or with a key that cannot be hashed.
    MapWrite,
    /// Looking up a key that cannot be hashed.
    MapKey,
    /// Comparing interfaces that hold what cannot be compared.
    Compare,
    /// Sending on a closed channel, closing a nil or closed one.
    Channel,
    /// An iterator function that calls a loop body which is over.
    RangeFunc,
    /// A vector instruction's constant operand out of range.
    Immediate,
    /// `runtime.throw`: the program ends, nothing recovers it.
    Throw,
    /// `runtime.fatal` and its kin: the program ends by its own fault.
    Fatal,
    /// Pointer checks of `-d=checkptr` and the race detector.
    CheckPointer,
}

impl Kind {
    /// A stable name, for documents: `bounds`, `nil_dereference`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Panic => "panic",
            Kind::Bounds { .. } => "bounds",
            Kind::Nil => "nil_dereference",
            Kind::Divide => "divide",
            Kind::Shift => "shift",
            Kind::Overflow => "overflow",
            Kind::Float => "float",
            Kind::Assertion => "type_assertion",
            Kind::NilReceiver => "nil_receiver",
            Kind::MakeSlice => "make_slice",
            Kind::MakeChan => "make_chan",
            Kind::Grow => "grow_slice",
            Kind::Unsafe => "unsafe",
            Kind::MapWrite => "map_write",
            Kind::MapKey => "map_key",
            Kind::Compare => "compare",
            Kind::Channel => "channel",
            Kind::RangeFunc => "range_func",
            Kind::Immediate => "immediate",
            Kind::Throw => "throw",
            Kind::Fatal => "fatal",
            Kind::CheckPointer => "check_pointer",
        }
    }
}

/// Whether an instruction raises whenever it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It is a call that always raises.
    Always,
    /// It is a call that may raise inside.
    InCallee,
    /// It faults for some operands, and the runtime makes a panic of the signal.
    Fault,
}

impl Certainty {
    /// A stable name, for documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Certainty::Always => "always",
            Certainty::InCallee => "in_callee",
            Certainty::Fault => "fault",
        }
    }
}

/// Where an operand was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// In the comparison of the check.
    Compare,
    /// As an argument of the raising call: registers are named as they are there.
    Call,
    /// In the faulting instruction.
    Fault,
}

/// One value that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// What it is to the check: "index", "length", "divisor"; "left" and "right" of an ordinary comparison.
    pub role: &'static str,
    /// Register, constant, memory in AT&T syntax, or a type's name: `%rbx`, `3`, `0x8(%rsp)`.
    pub what: String,
    /// Where it is that.
    pub seen: Seen,
}

/// A conditional jump that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Link-time address of the jump.
    pub jump: u64,
    /// Link-time address of the instruction whose flags it tests; `None` when that was not found.
    pub compare: Option<u64>,
    /// It raises when the jump is taken, else when it is not.
    pub raises_if_taken: bool,
    /// `cmp %rbx,%rdi; jae`
    pub text: String,
}

/// A place that raises. Names, types and texts are the program's: escape them before showing. [`Self::words`] is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaisedBy {
    /// Link-time address of the raising instruction: the call, or the one that faults.
    pub at: u64,
    /// Its disassembly, AT&T syntax.
    pub instruction: String,
    /// What is raised.
    pub kind: Kind,
    /// Whether it always is.
    pub certainty: Certainty,
    /// The function called, `runtime.panicIndex`; `None` for a fault.
    pub by: Option<String>,
    /// The conditional jumps that decide whether it is reached; the one asked about is first.
    pub checks: Vec<Check>,
    /// The values that decide. Those that are not certain are absent.
    pub operands: Vec<Operand>,
    /// Static type of the value given to panic, or the type asserted.
    pub type_name: Option<String>,
    /// Constant text given to panic, throw or fatal.
    pub message: Option<String>,
    /// The function whose source this is, which may be inlined.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// One sentence, safe to show.
    pub words: String,
    /// The address asked about can be read in another way: a return address right behind one call is also the
    /// address of the next instruction.
    pub otherwise: Option<Box<RaisedBy>>,
}

impl RaisedBy {
    /// The conditional jump that decides it, when it is one.
    pub fn check(&self) -> Option<u64> {
        self.checks.first().map(|c| c.jump)
    }

    /// The comparison that decides it.
    pub fn compare(&self) -> Option<u64> {
        self.checks.first()?.compare
    }

    /// The operand of this role.
    pub fn operand(&self, role: &str) -> Option<&str> {
        self.operands.iter().find(|o| o.role == role).map(|o| o.what.as_str())
    }
}

/// What raises at `pc`, a link-time address: the raising call, its return address (as tracebacks show), the faulting
/// instruction (also one byte further, as `runtime.Callers` has it), a check's comparison or conditional jump, or an
/// address from where the straight way leads to a call that always raises.
///
/// # Errors
/// When nothing does that is known here, with the reason.
pub fn raised_by(bin: &GoBinary, pc: u64) -> Result<RaisedBy, Unknown> {
    let func = bin.find_func(pc).ok_or_else(|| Unknown(format!("{pc:#x} is in no Go function")))?;
    locate::locate(&scan(bin, func)?, pc)
}

/// Every place in the function that can raise, by address. Of loads and stores through a pointer those are left out
/// whose pointer was used before on the same straight run, or cannot be nil. At most 65536 places.
pub fn all_in(bin: &GoBinary, func: Func<'_>) -> Vec<RaisedBy> {
    scan(bin, func).map(|scan| scan.everything()).unwrap_or_default()
}

fn scan<'a>(bin: &'a GoBinary, func: Func<'_>) -> Result<Scan<'a>, Unknown> {
    if bin.arch() != Arch::Amd64 {
        return Err(Unknown(format!("what raises is not looked for in {} code", bin.arch().name())));
    }
    let (entry, end) = (func.entry(), func.end());
    if end - entry > MAX_CODE {
        return Err(Unknown(format!("the function at {entry:#x} is longer than {MAX_CODE} bytes")));
    }
    let bytes = bin
        .code(entry, end)
        .ok_or_else(|| Unknown(format!("the code of the function at {entry:#x} is not in the file")))?;
    Ok(Scan::new(Body::decode(entry, bytes)?, bin))
}
