//! The runtime's functions that raise: what they raise, whether they always do, and the registers of their
//! arguments.
//!
//! Knows names and Go's register ABI (integer arguments in RAX, RBX, RCX, RDI, RSI, R8, R9, R10, R11):
//! <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/abi-internal.md>. The compiler's list of
//! these functions:
//! <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/internal/typecheck/_builtin/runtime.go>.

use iced_x86::Register;

use super::{Certainty, Kind, bounds};
use crate::go::{disasm::INTEGER_REGISTERS, release::Release};

/// A runtime function that raises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Callee {
    pub(super) kind: Kind,
    pub(super) certainty: Certainty,
    /// The text of the error, or a description of it.
    pub(super) says: &'static str,
    /// Role and register of the arguments that decide whether it raises.
    pub(super) arguments: Vec<(&'static str, Register)>,
}

/// A row: names (a trailing `*` matches any suffix), kind, whether it always raises, text of the error, roles
/// of its arguments (an empty role is ignored).
type Row = (&'static [&'static str], Kind, Certainty, &'static str, &'static [&'static str]);

use Certainty::{Always, InCallee};

const ROWS: &[Row] = &[
    (&["runtime.gopanic"], Kind::Panic, Always, "the value given to panic", &[]),
    (&["runtime.panicdivide"], Kind::Divide, Always, "integer divide by zero", &[]),
    (&["runtime.panicshift"], Kind::Shift, Always, "negative shift amount", &[]),
    (&["runtime.panicoverflow"], Kind::Overflow, Always, "integer overflow", &[]),
    (&["runtime.panicfloat"], Kind::Float, Always, "floating point error", &[]),
    (
        &["runtime.panicmem", "runtime.panicmemAddr"],
        Kind::Nil,
        Always,
        "invalid memory address or nil pointer dereference",
        &[],
    ),
    (&["runtime.panicSimdImm"], Kind::Immediate, Always, "out-of-range immediate for simd intrinsic", &[]),
    // Arguments: the dynamic type's descriptor or, for an interface with methods, the itab.
    (&["runtime.panicdottypeE"], Kind::Assertion, Always, "interface conversion", &["dynamic type", "", ""]),
    (&["runtime.panicdottypeI"], Kind::Assertion, Always, "interface conversion", &["itab", "", ""]),
    (&["runtime.panicnildottype"], Kind::Assertion, Always, "interface conversion: interface is nil", &[]),
    (
        &["runtime.typeAssert"],
        Kind::Assertion,
        InCallee,
        "interface conversion, when the type lacks a method of the interface or is nil",
        &["", "dynamic type"],
    ),
    (
        &["runtime.assertE2I", "runtime.assertI2I"],
        Kind::Assertion,
        InCallee,
        "interface conversion, when the type lacks a method of the interface or is nil",
        &["", "dynamic type"],
    ),
    (&["runtime.panicwrap"], Kind::NilReceiver, Always, "value method called using nil pointer", &[]),
    (&["runtime.panicmakeslicelen"], Kind::MakeSlice, Always, "makeslice: len out of range", &[]),
    (&["runtime.panicmakeslicecap"], Kind::MakeSlice, Always, "makeslice: cap out of range", &[]),
    (
        &["runtime.makeslice", "runtime.makeslice64"],
        Kind::MakeSlice,
        InCallee,
        "makeslice: len out of range, or cap out of range",
        &["", "length", "capacity"],
    ),
    (
        &["runtime.makeslicecopy"],
        Kind::MakeSlice,
        InCallee,
        "makeslice: len out of range",
        &["", "length", "copied length"],
    ),
    (
        &["runtime.makechan", "runtime.makechan64"],
        Kind::MakeChan,
        InCallee,
        "makechan: size out of range",
        &["", "size"],
    ),
    (&["runtime.panicunsafeslicelen*"], Kind::Unsafe, Always, "unsafe.Slice: len out of range", &[]),
    (
        &["runtime.panicunsafeslicenilptr*"],
        Kind::Unsafe,
        Always,
        "unsafe.Slice: ptr is nil and len is not zero",
        &[],
    ),
    (&["runtime.panicunsafestringlen"], Kind::Unsafe, Always, "unsafe.String: len out of range", &[]),
    (
        &["runtime.panicunsafestringnilptr"],
        Kind::Unsafe,
        Always,
        "unsafe.String: ptr is nil and len is not zero",
        &[],
    ),
    (
        &["runtime.unsafeslice", "runtime.unsafeslice64", "runtime.unsafeslicecheckptr"],
        Kind::Unsafe,
        InCallee,
        "unsafe.Slice: len out of range, or ptr is nil",
        &["", "pointer", "length"],
    ),
    (
        &["runtime.unsafestring", "runtime.unsafestring64", "runtime.unsafestringcheckptr"],
        Kind::Unsafe,
        InCallee,
        "unsafe.String: len out of range, or ptr is nil",
        &["pointer", "length"],
    ),
    (
        &["runtime.mapassign*"],
        Kind::MapWrite,
        InCallee,
        "assignment to entry in nil map, or hash of unhashable type when the key has interfaces in it",
        &["", "map"],
    ),
    (
        &[
            "runtime.mapaccess1",
            "runtime.mapaccess2",
            "runtime.mapaccess1_fat",
            "runtime.mapaccess2_fat",
            "runtime.mapdelete",
        ],
        Kind::MapKey,
        InCallee,
        "hash of unhashable type, when the key's type has interfaces in it",
        &["", "map"],
    ),
    (&["runtime.efaceeq"], Kind::Compare, InCallee, "comparing uncomparable type", &["dynamic type"]),
    (&["runtime.ifaceeq"], Kind::Compare, InCallee, "comparing uncomparable type", &["itab"]),
    (
        &["runtime.closechan"],
        Kind::Channel,
        InCallee,
        "close of nil channel, or close of closed channel",
        &["channel"],
    ),
    (
        &["runtime.chansend1", "runtime.selectnbsend"],
        Kind::Channel,
        InCallee,
        "send on closed channel",
        &["channel"],
    ),
    (&["runtime.selectgo"], Kind::Channel, InCallee, "send on closed channel", &[]),
    (
        &["runtime.panicrangestate", "runtime.panicrangeexit"],
        Kind::RangeFunc,
        Always,
        "range function continued iteration",
        &["state"],
    ),
    (
        &["runtime.throw", "sync.throw", "internal/sync.throw", "internal/runtime/cgroup.throw"],
        Kind::Throw,
        Always,
        "fatal error",
        &[],
    ),
    (
        &[
            "runtime.fatal",
            "sync.fatal",
            "internal/sync.fatal",
            "crypto/rand.fatal",
            "crypto/internal/sysrand.fatal",
            "crypto/internal/fips140.fatal",
            "internal/runtime/maps.fatal",
        ],
        Kind::Fatal,
        Always,
        "fatal error",
        &[],
    ),
    (
        &["runtime.checkptrAlignment", "runtime.checkptrArithmetic"],
        Kind::CheckPointer,
        InCallee,
        "checkptr: a fatal error, when the pointer is misused",
        &["pointer"],
    ),
];

/// Returns what a call of the function `name` raises in a program of `release`; `None` for functions not
/// in the table.
pub(super) fn find(name: &str, release: Release) -> Option<Callee> {
    if let Some((code, signed, x, y)) = bounds::stub(name) {
        let (x_role, y_role) = code.roles();
        let kind = Kind::Bounds { code: Some(code), signed: Some(signed) };
        let arguments = vec![(x_role, x), (y_role, y)];
        return Some(Callee { kind, certainty: Always, says: code.pattern(), arguments });
    }
    if name == "runtime.panicBounds" {
        let kind = Kind::Bounds { code: None, signed: None };
        return Some(Callee { kind, certainty: Always, says: "out of range", arguments: Vec::new() });
    }
    if name
        .strip_prefix("runtime.growslice")
        .is_some_and(|rest| ["", "NoAlias", "Buf", "BufNoAlias"].contains(&rest))
    {
        let arguments = match release.growslice_takes_length() {
            true => vec![("length", Register::RBX)],
            false => vec![("capacity", Register::RSI)],
        };
        let says = "growslice: len out of range (cap out of range before Go 1.20)";
        return Some(Callee { kind: Kind::Grow, certainty: InCallee, says, arguments });
    }
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    let (_, kind, certainty, says, roles) = ROWS.iter().find(|row| row.0.iter().any(|p| matches(p)))?;
    let arguments =
        roles.iter().zip(INTEGER_REGISTERS).filter(|(role, _)| !role.is_empty()).map(|(role, r)| (*role, r));
    Some(Callee { kind: *kind, certainty: *certainty, says, arguments: arguments.collect() })
}
