//! Instructions that raise by faulting: memory through a pointer that may be nil, and hardware division.
//!
//! Knows instructions. A fault below 4096 is a nil dereference to the runtime, any other address is a fatal error:
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go> sigpanic

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::term::{self, Access, Term, Uses, register_text};

/// First address that is not nil's: the runtime's limit, and the compiler's for leaving out a nil check.
const NIL_PAGE: i64 = 4096;

/// What makes an instruction fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Pointers that may be nil: one, or two of an instruction that copies.
    Nil {
        touched: Vec<Touch>,
        /// It reads for no other purpose.
        check: bool,
    },
    /// A divisor of 0.
    Divide(Term),
}

/// Memory used through a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touch {
    /// The register that holds it.
    pub(super) pointer: Register,
    /// `0x18(%rax)`
    pub(super) memory: String,
    /// 0: not known before it runs.
    pub(super) bytes: usize,
    pub(super) writes: bool,
    /// An index is added to it.
    pub(super) indexed: bool,
}

impl Fault {
    /// The registers whose pointers may be nil.
    pub(super) fn pointers(&self) -> impl Iterator<Item = Register> + '_ {
        let touched = match self {
            Fault::Nil { touched, .. } => touched.as_slice(),
            Fault::Divide(_) => &[],
        };
        touched.iter().map(|t| t.pointer)
    }
}

/// How `instruction` may fault; `None`: it touches no memory that could be nil's.
pub(super) fn of(instruction: &Instruction, uses: &mut Uses) -> Option<Fault> {
    if matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
        return term::operand(instruction, 0).map(Fault::Divide);
    }
    let mut touched = Vec::new();
    for access in uses.accesses(instruction).into_iter().filter(near_nil) {
        let touch = Touch {
            pointer: access.base,
            memory: text(instruction, &access),
            bytes: access.bytes,
            writes: access.writes,
            indexed: access.index != Register::None,
        };
        if !touched.contains(&touch) {
            touched.push(touch);
        }
    }
    let check = instruction.mnemonic() == Mnemonic::Test
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register() == Register::AL;
    (!touched.is_empty()).then_some(Fault::Nil { touched, check })
}

fn near_nil(access: &Access) -> bool {
    let low = if access.index == Register::None { 0 } else { -NIL_PAGE };
    let near = (low..NIL_PAGE).contains(&access.displacement);
    near && may_be_nil(access.base) && !access.rip && !access.segment
}

fn text(instruction: &Instruction, access: &Access) -> String {
    let operand = (0..instruction.op_count()).find(|&n| instruction.op_kind(n) == OpKind::Memory);
    match operand.and_then(|n| term::operand(instruction, n)) {
        // Calls and jumps through memory have a star in front.
        Some(Term::Memory(text)) => text.trim_start_matches('*').to_owned(),
        _ => format!("({})", register_text(access.base)),
    }
}

/// The stack pointer, the frame pointer and g never are.
fn may_be_nil(base: Register) -> bool {
    base.is_gpr() && !matches!(base, Register::RSP | Register::RBP | Register::R14)
}

/// Pointers that cannot be nil on a straight run: they were used before, or are the address of something.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Register>);

impl Known {
    /// Control may come from elsewhere.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn holds(&self, register: Register) -> bool {
        self.0.contains(&register)
    }

    /// What is known behind `instruction`, which did not fault.
    pub(super) fn pass(&mut self, instruction: &Instruction, fault: Option<&Fault>, uses: &mut Uses) {
        for pointer in fault.into_iter().flat_map(Fault::pointers) {
            if !self.holds(pointer) {
                self.0.push(pointer);
            }
        }
        let copied = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && self.holds(instruction.op1_register());
        self.0.retain(|r| !uses.writes(instruction, *r));
        let address = instruction.mnemonic() == Mnemonic::Lea
            && (instruction.is_ip_rel_memory_operand() || instruction.memory_base() == Register::RSP);
        if (copied || address) && instruction.op0_register().size() == 8 {
            self.0.push(instruction.op0_register());
        }
    }
}

/// Whether it names memory at all, other than to take its address.
pub(super) fn touches_memory(instruction: &Instruction) -> bool {
    instruction.mnemonic() != Mnemonic::Lea
        && instruction.mnemonic() != Mnemonic::Nop
        && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
}
