//! Instructions that raise by faulting: memory accesses through a pointer that may be nil, and hardware
//! division.
//!
//! Knows instructions. The runtime treats a fault below 4096 as a nil dereference, any other address as a
//! fatal error:
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go> sigpanic

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::term::{self, Access, Term, Uses, register_text};

/// First address beyond the nil page: the runtime's limit, and the compiler's for omitting a nil check.
const NIL_PAGE: i64 = 4096;

/// Condition under which an instruction faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Pointers that may be nil: one, or two for an instruction that copies memory.
    Nil {
        touched: Vec<Touch>,
        /// Whether the access is an explicit nil check without another purpose.
        check: bool,
    },
    /// A divisor of 0.
    Divide(Term),
}

/// A memory access through a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touch {
    /// Register that contains the pointer.
    pub(super) pointer: Register,
    /// Memory operand in AT&T syntax: `0x18(%rax)`.
    pub(super) memory: String,
    /// Size of the access in bytes; 0 if it is known only at run time.
    pub(super) bytes: usize,
    pub(super) writes: bool,
    /// Whether an index register is added to the pointer.
    pub(super) indexed: bool,
}

impl Fault {
    /// Returns the registers whose pointers may be nil.
    pub(super) fn pointers(&self) -> impl Iterator<Item = Register> + '_ {
        let touched = match self {
            Fault::Nil { touched, .. } => touched.as_slice(),
            Fault::Divide(_) => &[],
        };
        touched.iter().map(|t| t.pointer)
    }
}

/// Returns how `instruction` may fault; `None` if it accesses no memory through a pointer that may be nil.
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
        // Indirect calls and jumps have a leading star.
        Some(Term::Memory(text)) => text.trim_start_matches('*').to_owned(),
        _ => format!("({})", register_text(access.base)),
    }
}

/// Reports whether the base register may be nil: the stack pointer, the frame pointer and g never are.
fn may_be_nil(base: Register) -> bool {
    base.is_gpr() && !matches!(base, Register::RSP | Register::RBP | Register::R14)
}

/// Pointers that cannot be nil on a straight run: already used before, or the address of an object.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Register>);

impl Known {
    /// Forgets all pointers, because control may come from another instruction.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn holds(&self, register: Register) -> bool {
        self.0.contains(&register)
    }

    /// Updates the pointers for the code after `instruction`, which did not fault.
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

/// Reports whether the instruction has a memory operand, other than to compute its address.
pub(super) fn touches_memory(instruction: &Instruction) -> bool {
    instruction.mnemonic() != Mnemonic::Lea
        && instruction.mnemonic() != Mnemonic::Nop
        && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
}
