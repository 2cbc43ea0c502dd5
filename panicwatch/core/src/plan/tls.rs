//! Finds where a thread keeps its current g: the offset from the thread pointer, as encoded in the program's
//! own code.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/tls_amd64.s>

use iced_x86::{Instruction, OpKind, Register};

use super::Body;
use crate::go::gobin::{Arch, GoBinary};

/// Offsets of fields in the ELF header. <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const PT_TLS: u32 = 7;

/// Returns the signed offset; `None` if the code is not as expected.
///
/// The offset is in the instruction, `mov %fs:-8,%rax`, or in the register that it uses. A program linked by
/// gcc may load it from a table that is filled at start; the offset is then -8 if the program's thread-local
/// block contains nothing else.
pub fn tls_g(bin: &GoBinary) -> Option<i32> {
    if bin.arch() != Arch::Amd64 {
        return None;
    }
    let body = Body::decode(bin, "runtime.systemstack").ok()?;
    let at = body.index_of(|i| i.segment_prefix() == Register::FS)?;
    let uses = &body.code[at];
    let distance = match uses.memory_base() {
        Register::None => uses.memory_displacement64() as i64,
        base => {
            let sets = |i: &&Instruction| i.op0_kind() == OpKind::Register && i.op0_register() == base;
            let set = body.code[..at].iter().rev().find(sets)?;
            match set.op1_kind() {
                OpKind::Memory if block_bytes(bin.file_bytes())? == 8 => -8,
                OpKind::Immediate32to64 => set.immediate32to64(),
                OpKind::Immediate64 => set.immediate64() as i64,
                _ => return None,
            }
        }
    };
    i32::try_from(distance).ok().filter(|distance| (-4096..0).contains(distance))
}

/// Returns the size of the thread-local block of an ELF file.
fn block_bytes(file: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let start = usize::try_from(word(E_PHOFF)?).ok()?;
    let (size, count) = (usize::from(half(E_PHENTSIZE)?), usize::from(half(E_PHENTSIZE + 2)?));
    for i in 0..count {
        let header = start.checked_add(size.checked_mul(i)?)?;
        let kind = word(header)? as u32;
        if kind == PT_TLS {
            return word(header.checked_add(40)?);
        }
    }
    None
}
