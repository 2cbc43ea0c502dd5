//! Operands: registers, constants, memory; and tracing the value of a register back to its origin.
//!
//! Knows sequences of instructions. Must not know jumps or what raises.

use iced_x86::{Formatter as _, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::code::Body;
use crate::go::disasm;

/// A value as an instruction operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    /// A register or a part of one, according to its size.
    Register(Register),
    /// An immediate constant.
    Constant(i64),
    /// A memory operand, in AT&T syntax: `0x8(%rax)`.
    Memory(String),
    /// This number of bytes of memory at a fixed address.
    Fixed(u64, usize),
    /// The address of an object in the program's image.
    Address(u64),
}

impl Term {
    /// Formats the operand: `%rbx`, `3`, `0x8(%rax)`, `address 0x4a9ba0`.
    pub(super) fn text(&self) -> String {
        match self {
            Term::Register(r) => register_text(*r),
            Term::Constant(n) if (-4096..=65536).contains(n) => n.to_string(),
            Term::Constant(n) if *n < 0 => n.to_string(),
            Term::Constant(n) => format!("{n:#x}"),
            Term::Memory(text) => text.clone(),
            Term::Fixed(at, _) => format!("memory at {at:#x}"),
            Term::Address(at) => format!("address {at:#x}"),
        }
    }

    /// Reports whether both are certainly the same value, if no instruction ran between them.
    pub(super) fn same(&self, other: &Term) -> bool {
        match (self, other) {
            (Term::Register(a), Term::Register(b)) => a.full_register() == b.full_register(),
            _ => self == other,
        }
    }
}

/// Formats a register: `%rax`.
pub(super) fn register_text(register: Register) -> String {
    format!("%{register:?}").to_lowercase()
}

/// Returns the general-purpose register with this hardware number.
pub(super) fn numbered(number: u8) -> Option<Register> {
    const ALL: [Register; 16] = [
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RBX,
        Register::RSP,
        Register::RBP,
        Register::RSI,
        Register::RDI,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];
    ALL.get(usize::from(number)).copied()
}

/// Formats an instruction as objdump does, without its target's name.
pub(super) fn text(instruction: &Instruction) -> String {
    let mut out = String::new();
    disasm::formatter().format(instruction, &mut out);
    out
}

/// Returns operand `n` (Intel order: the destination is 0).
pub(super) fn operand(instruction: &Instruction, n: u32) -> Option<Term> {
    if n >= instruction.op_count() {
        return None;
    }
    match instruction.op_kind(n) {
        OpKind::Register => Some(Term::Register(instruction.op_register(n))),
        OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
            Some(Term::Fixed(instruction.ip_rel_memory_address(), instruction.memory_size().size()))
        }
        OpKind::Memory => {
            let mut formatter = disasm::formatter();
            let index = formatter.get_formatter_operand(instruction, n).ok()??;
            let mut out = String::new();
            formatter.format_operand(instruction, &mut out, index).ok()?;
            Some(Term::Memory(out))
        }
        kind if is_immediate(kind) => Some(Term::Constant(instruction.immediate(n).cast_signed())),
        _ => None,
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// A memory access other than the implicit one of a push or pop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) base: Register,
    pub(super) index: Register,
    pub(super) displacement: i64,
    pub(super) bytes: usize,
    pub(super) writes: bool,
    pub(super) rip: bool,
    pub(super) segment: bool,
}

/// Computes the registers and memory that instructions use; reuses its buffers.
pub(super) struct Uses {
    factory: InstructionInfoFactory,
}

impl Uses {
    pub(super) fn new() -> Self {
        Self { factory: InstructionInfoFactory::new() }
    }

    /// Reports whether `instruction` may change `register` (a full one). A call changes all registers except
    /// those that Go preserves. <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/abi-internal.md>
    pub(super) fn writes(&mut self, instruction: &Instruction, register: Register) -> bool {
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            return !matches!(register, Register::RSP | Register::RBP | Register::R14 | Register::RIP);
        }
        self.factory.info(instruction).used_registers().iter().any(|used| {
            used.register().full_register() == register
                && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None)
        })
    }

    /// Returns the memory accesses of an instruction.
    pub(super) fn accesses(&mut self, instruction: &Instruction) -> Vec<Access> {
        let segment = !matches!(
            instruction.segment_prefix(),
            Register::None | Register::CS | Register::DS | Register::ES | Register::SS
        );
        let real = |access| !matches!(access, OpAccess::None | OpAccess::NoMemAccess);
        let info = self.factory.info(instruction);
        let used = info.used_memory().iter().filter(|m| real(m.access()));
        used.map(|m| Access {
            base: m.base(),
            index: m.index(),
            displacement: m.displacement().cast_signed(),
            bytes: m.memory_size().size(),
            writes: !matches!(m.access(), OpAccess::Read | OpAccess::CondRead),
            rip: instruction.is_ip_rel_memory_operand(),
            segment,
        })
        .collect()
    }

    /// Returns the origin of the value in `register` after the instructions of `path`: a constant, memory, an
    /// address, or a register's value before the first of them. `None` if the value was computed.
    pub(super) fn origin(&mut self, body: &Body, path: &[usize], register: Register) -> Option<Term> {
        let mut wanted = register;
        for instruction in path.iter().rev().filter_map(|i| body.get(*i)) {
            if !self.writes(instruction, wanted.full_register()) {
                continue;
            }
            let to = instruction.op_kind(0) == OpKind::Register
                && instruction.op0_register().full_register() == wanted.full_register()
                // A 32-bit write clears the upper half; a smaller one leaves the rest.
                && instruction.op0_register().size() >= 4;
            if !to {
                return None;
            }
            match instruction.mnemonic() {
                Mnemonic::Mov => match operand(instruction, 1)? {
                    Term::Register(from) if from.is_gpr() => wanted = from,
                    Term::Register(_) => return None,
                    found => return Some(found),
                },
                Mnemonic::Xor if operand(instruction, 0) == operand(instruction, 1) => {
                    return Some(Term::Constant(0));
                }
                Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
                    return Some(Term::Address(instruction.ip_rel_memory_address()));
                }
                _ => return None,
            }
        }
        Some(Term::Register(wanted))
    }
}
