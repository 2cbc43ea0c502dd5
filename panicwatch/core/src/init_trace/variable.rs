//! Determines which variables a line of a package's `init` function initializes: those that its code stores
//! to.
//!
//! Knows the binary and its symbol table. A line that initializes a part of a longer literal stores to no
//! variable, and gives no result.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use crate::go::gobin::{Arch, GoBinary};

/// Maximum number of instructions of an init function that are examined.
const MAX_INSTRUCTIONS: usize = 1 << 18;
/// Maximum total length in bytes of the line table walks, over all stores.
const MAX_WALKED: u64 = 1 << 31;
/// Maximum number of variables named for one line.
const MAX_NAMES: usize = 8;

/// Returns the variables that the code of `line` in the function at link-time address `pc` stores to, as Go
/// names them: `bad.Size`. Empty without a symbol table.
pub(super) fn initialised_by(bin: &GoBinary, pc: u64, line: u32) -> Vec<String> {
    let mut names = Vec::new();
    let (Some(func), Arch::Amd64) = (bin.find_func(pc), bin.arch()) else { return names };
    let Some(code) = bin.code(func.entry(), func.end()) else { return names };
    let Some(package) = func.name().strip_suffix("init").map(str::to_owned) else { return names };
    let decoder = Decoder::with_ip(64, code, func.entry(), DecoderOptions::NONE);
    let mut left = MAX_WALKED;
    for instruction in decoder.into_iter().take(MAX_INSTRUCTIONS).filter(stores) {
        left = left.saturating_sub(instruction.ip() - func.entry());
        if left == 0 {
            break;
        }
        let frames = func.frames_at(instruction.ip());
        if frames.last().and_then(|frame| frame.line) != Some(line) {
            continue;
        }
        let Some(symbol) = bin.symbol_at(instruction.ip_rel_memory_address()) else { continue };
        let variable = symbol.strip_prefix(&package).is_some_and(|name| !name.contains('.'));
        if variable && !names.iter().any(|name| *name == symbol) && names.len() < MAX_NAMES {
            names.push(symbol.into_owned());
        }
    }
    names
}

fn stores(instruction: &Instruction) -> bool {
    let moves = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov | Mnemonic::Movups | Mnemonic::Movsd | Mnemonic::Movss | Mnemonic::Movdqu
    );
    moves && instruction.is_ip_rel_memory_operand() && instruction.op0_kind() == iced_x86::OpKind::Memory
}
