//! Bounds errors: their codes, how a call encodes the one it raises, and what it compares.
//!
//! <https://github.com/golang/go/blob/go1.26.6/src/internal/abi/bounds.go>, up to 1.25
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go> boundsErrorCode

use iced_x86::Register;

use super::term::{Term, numbered};

/// `abi.BoundsErrorCode`: the expression that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundsCode {
    /// `s[x]`, x compared with the length.
    Index,
    /// `s[?:x]`, x compared with the length (strings and arrays).
    SliceLength,
    /// `s[?:x]`, x compared with the capacity.
    SliceCapacity,
    /// `s[x:y]`, x compared with y.
    SliceLow,
    /// `s[?:?:x]`, x compared with the length (arrays).
    Slice3Length,
    /// `s[?:?:x]`, x compared with the capacity.
    Slice3Capacity,
    /// `s[?:x:y]`, x compared with y.
    Slice3High,
    /// `s[x:y:?]`, x compared with y.
    Slice3Low,
    /// `[x]T(s)` or `(*[x]T)(s)`, x compared with the length of s.
    Convert,
}

/// Code, name of the stub without `runtime.panic`, class of its argument registers, roles of x and y, text.
type Row = (BoundsCode, &'static str, Class, &'static str, &'static str, &'static str);

/// The registers in which a stub receives x and y:
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s> panicIndex and the functions after
/// it; the same from 1.19 to 1.25.
#[derive(Debug, Clone, Copy)]
enum Class {
    AxCx,
    CxDx,
    DxBx,
}

/// In the order of the code numbers.
const ROWS: [Row; 9] = [
    (BoundsCode::Index, "Index", Class::AxCx, "index", "length", "index out of range [{x}] with length {y}"),
    (
        BoundsCode::SliceLength,
        "SliceAlen",
        Class::CxDx,
        "high",
        "length",
        "slice bounds out of range [:{x}] with length {y}",
    ),
    (
        BoundsCode::SliceCapacity,
        "SliceAcap",
        Class::CxDx,
        "high",
        "capacity",
        "slice bounds out of range [:{x}] with capacity {y}",
    ),
    (BoundsCode::SliceLow, "SliceB", Class::AxCx, "low", "high", "slice bounds out of range [{x}:{y}]"),
    (
        BoundsCode::Slice3Length,
        "Slice3Alen",
        Class::DxBx,
        "max",
        "length",
        "slice bounds out of range [::{x}] with length {y}",
    ),
    (
        BoundsCode::Slice3Capacity,
        "Slice3Acap",
        Class::DxBx,
        "max",
        "capacity",
        "slice bounds out of range [::{x}] with capacity {y}",
    ),
    (BoundsCode::Slice3High, "Slice3B", Class::CxDx, "high", "max", "slice bounds out of range [:{x}:{y}]"),
    (BoundsCode::Slice3Low, "Slice3C", Class::AxCx, "low", "high", "slice bounds out of range [{x}:{y}:]"),
    (
        BoundsCode::Convert,
        "SliceConvert",
        Class::DxBx,
        "array length",
        "length",
        "cannot convert slice with length {y} to array or pointer to array with length {x}",
    ),
];

impl BoundsCode {
    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Returns the code with this number; `None` for a number that no release uses.
    pub fn from_number(number: u8) -> Option<Self> {
        ROWS.get(usize::from(number)).map(|row| row.0)
    }

    /// Returns the roles of x and y, such as "index" and "length".
    pub fn roles(self) -> (&'static str, &'static str) {
        (self.row().3, self.row().4)
    }

    /// Returns the error's text after "runtime error: ", with `{x}` and `{y}` for the two values.
    pub fn pattern(self) -> &'static str {
        self.row().5
    }

    /// Reports whether x may equal y without an error.
    pub(super) fn may_be_equal(self) -> bool {
        self != Self::Index
    }
}

/// Returns code, signedness of x, and registers of x and y of a stub, given its name (`runtime.panicIndexU`).
/// Also accepts the Go function to which the stub jumps (`runtime.goPanicIndexU`), which uses the ordinary
/// argument registers.
pub(super) fn stub(name: &str) -> Option<(BoundsCode, bool, Register, Register)> {
    let (rest, go) = match name.strip_prefix("runtime.panic") {
        Some(rest) => (rest, false),
        None => (name.strip_prefix("runtime.goPanic")?, true),
    };
    let find = |text: &str| ROWS.iter().find(|row| row.1 == text);
    let (row, signed) = match find(rest) {
        Some(row) => (row, true),
        None => (find(rest.strip_suffix('U')?)?, false),
    };
    let (x, y) = match row.2 {
        _ if go => (Register::RAX, Register::RBX),
        Class::AxCx => (Register::RAX, Register::RCX),
        Class::CxDx => (Register::RCX, Register::RDX),
        Class::DxBx => (Register::RDX, Register::RBX),
    };
    Some((row.0, signed, x, y))
}

/// Decoded PCDATA_PanicBounds of a call of `runtime.panicBounds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) code: BoundsCode,
    /// Whether x is a signed number; `None` for a constant.
    pub(super) signed: Option<bool>,
    pub(super) x: Term,
    pub(super) y: Term,
}

/// `abi.BoundsDecode` for 64-bit machines; `None` for an invalid value.
/// <https://github.com/golang/go/blob/go1.26.6/src/internal/abi/bounds.go>
pub(super) fn decode(value: i32) -> Option<Encoded> {
    let value = u32::try_from(value).ok()?;
    let codes = ROWS.len() as u32;
    let code = BoundsCode::from_number((value % codes) as u8)?;
    let mut rest = value / codes;
    let mut take = |bits: u32| {
        let low = rest & ((1 << bits) - 1);
        rest >>= bits;
        low as u8
    };
    let (x_register, y_register) = (take(1) != 0, take(1) != 0);
    let (signed, x) = if x_register {
        (Some(take(1) != 0), Term::Register(numbered(take(4))?))
    } else {
        (None, Term::Constant(i64::from(take(5))))
    };
    let y = if y_register { Term::Register(numbered(take(4))?) } else { Term::Constant(i64::from(take(5))) };
    (rest == 0).then_some(Encoded { code, signed, x, y })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `abi.BoundsEncode` of the same file.
    fn encode(code: u32, signed: bool, x: Result<u32, u32>, y: Result<u32, u32>) -> i32 {
        let mut c = 0;
        match x {
            Ok(register) => c |= 1 | u32::from(signed) << 2 | register << 3,
            Err(constant) => c |= constant << 2,
        }
        match y {
            Ok(register) => c |= 2 | register << 7,
            Err(constant) => c |= constant << 7,
        }
        (c * 9 + code) as i32
    }

    #[test]
    fn what_go_encodes_is_decoded() {
        let registers = decode(encode(2, true, Ok(7), Ok(1))).expect("decodes");
        assert_eq!(
            registers,
            Encoded {
                code: BoundsCode::SliceCapacity,
                signed: Some(true),
                x: Term::Register(Register::RDI),
                y: Term::Register(Register::RCX),
            }
        );
        let constants = decode(encode(8, false, Err(4), Err(31))).expect("decodes");
        assert_eq!(
            constants,
            Encoded { code: BoundsCode::Convert, signed: None, x: Term::Constant(4), y: Term::Constant(31) }
        );
        assert_eq!(decode(encode(0, false, Ok(3), Err(0))).expect("decodes").signed, Some(false));
        assert_eq!(decode(-1), None, "no entry");
        assert_eq!(decode(i32::MAX), None, "bits left over");
    }

    #[test]
    fn stubs_are_known_by_name_and_say_their_registers() {
        assert_eq!(
            stub("runtime.panicSlice3BU"),
            Some((BoundsCode::Slice3High, false, Register::RCX, Register::RDX))
        );
        assert_eq!(
            stub("runtime.panicSliceConvert"),
            Some((BoundsCode::Convert, true, Register::RDX, Register::RBX))
        );
        assert_eq!(
            stub("runtime.goPanicSlice3C"),
            Some((BoundsCode::Slice3Low, true, Register::RAX, Register::RBX))
        );
        assert_eq!(stub("runtime.panicdivide"), None);
        assert_eq!(stub("runtime.panicExtendIndex"), None);
    }
}
