//! Disassembles the instructions around the one that raised a panic, and classifies single instructions for
//! probe placement. x86-64 only.
//!
//! The text is GNU (AT&T) syntax as printed by `objdump -d`, `gdb`, `perf annotate` and
//! `go tool objdump -gnu`, the tools used to examine a Go crash; its operand order is that of Go's own
//! assembler. This module knows bytes and addresses. It must not know files, processes or symbols: the caller
//! passes names.

use std::collections::VecDeque;

use iced_x86::{ConditionCode, Decoder, DecoderOptions, Formatter as _, GasFormatter, OpKind, Register};

use crate::incident::{Addr, Instruction};

/// Registers of integer arguments and results, in the order of Go's ABI.
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/abi-internal.md#amd64-architecture>
pub const INTEGER_REGISTERS: [Register; 9] = [
    Register::RAX,
    Register::RBX,
    Register::RCX,
    Register::RDI,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// Maximum distance in bytes from the function's entry to the raising instruction: decoding 4 MiB takes some
/// 50 ms.
pub const MAX_BEFORE: usize = 4 << 20;
/// Maximum number of instructions returned on each side of the raising instruction.
pub const MAX_SIDE: usize = 256;

/// The code of one function.
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    /// Run-time address of the function's first byte. Decoding starts there, so that instruction boundaries
    /// are right: x86 cannot be decoded backwards.
    pub entry: u64,
    /// The function's bytes, from its entry to its end (or as far as they are known).
    pub bytes: &'a [u8],
}

/// Identifies the instruction that raised the panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// The instruction at this address, which faulted.
    At(u64),
    /// The call that returns to this address, such as a call of gopanic or panicIndex.
    CallReturningTo(u64),
}

/// Why no instructions are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is outside the function.
    #[error("{address:#x} is outside the function at {entry:#x}")]
    Outside {
        /// The requested address.
        address: u64,
        /// The function's entry.
        entry: u64,
    },
    /// Decoding from the entry does not reach the address on an instruction boundary.
    #[error("no instruction begins or ends at {address:#x} when the function at {entry:#x} is decoded")]
    Boundary {
        /// The requested address.
        address: u64,
        /// The function's entry.
        entry: u64,
    },
    /// The function is longer than [`MAX_BEFORE`] before the address.
    #[error("the function at {entry:#x} is longer than {MAX_BEFORE} bytes before {address:#x}")]
    TooLong {
        /// The requested address.
        address: u64,
        /// The function's entry.
        entry: u64,
    },
}

/// Returns the raising instruction, with up to `before` instructions before it and `after` after it. `name`
/// resolves an address to its symbol ("runtime.gopanic"), appended to branch targets and data references.
pub fn around(
    code: Code<'_>,
    raise: Raise,
    before: usize,
    after: usize,
    name: &dyn Fn(u64) -> Option<String>,
) -> Result<Vec<Instruction>, Error> {
    let (before, after) = (before.min(MAX_SIDE), after.min(MAX_SIDE));
    let Code { entry, bytes } = code;
    let (Raise::At(address) | Raise::CallReturningTo(address)) = raise;
    let offset = match address.checked_sub(entry) {
        Some(o) if o <= bytes.len() as u64 => o as usize,
        _ => return Err(Error::Outside { address, entry }),
    };
    if offset > MAX_BEFORE {
        return Err(Error::TooLong { address, entry });
    }
    let mut decoder = decoder(entry, bytes);
    let mut seen = VecDeque::with_capacity(before + 1);
    let raised = loop {
        if !decoder.can_decode() || decoder.ip() > address {
            return Err(Error::Boundary { address, entry });
        }
        let instruction = decoder.decode();
        let found = match raise {
            Raise::At(pc) => instruction.ip() == pc,
            Raise::CallReturningTo(pc) => instruction.next_ip() == pc,
        };
        if found {
            break instruction;
        }
        seen.push_back(instruction);
        if seen.len() > before {
            seen.pop_front();
        }
    };
    if raised.is_invalid() {
        return Err(Error::Boundary { address, entry });
    }
    let mut writer = Writer { formatter: formatter(), code, name };
    let mut out: Vec<_> = seen.iter().map(|i| writer.write(i, false)).collect();
    out.push(writer.write(&raised, true));
    for _ in 0..after {
        // The bytes between a function and the next one are padding (0xcc).
        if !decoder.can_decode() || code.is_padding(decoder.ip()) {
            break;
        }
        out.push(writer.write(&decoder.decode(), false));
    }
    Ok(out)
}

impl Code<'_> {
    /// Reports whether the bytes from `address` on (up to 64) are all padding.
    fn is_padding(&self, address: u64) -> bool {
        let rest = &self.bytes[(address - self.entry) as usize..];
        rest.iter().take(64).all(|b| *b == 0xcc)
    }
}

/// Decodes the instruction at the start of `bytes`, which are located at `address`; `None` if it is invalid
/// or truncated.
pub fn decode_at(address: u64, bytes: &[u8]) -> Option<iced_x86::Instruction> {
    let instruction = decoder(address, bytes).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Reports whether the instruction is a direct call of `target`.
pub fn is_call_to(instruction: &iced_x86::Instruction, target: u64) -> bool {
    instruction.is_call_near() && instruction.near_branch_target() == target
}

/// Returns the condition of a conditional jump (`jbe` and the like); `None` for any other instruction.
pub fn jump_condition(instruction: &iced_x86::Instruction) -> Option<ConditionCode> {
    instruction.is_jcc_short_or_near().then(|| instruction.condition_code())
}

/// Reports whether the instruction is `push %rbp`, the first of a Go function's body.
pub fn is_push_rbp(instruction: &iced_x86::Instruction) -> bool {
    instruction.mnemonic() == iced_x86::Mnemonic::Push
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RBP
}

fn decoder(address: u64, bytes: &[u8]) -> Decoder<'_> {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE)
}

/// Returns the formatter for all disassembly: AT&T syntax, like objdump and the kernel.
pub(crate) fn formatter() -> GasFormatter {
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_rip_relative_addresses(true);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    formatter
}

struct Writer<'a> {
    formatter: GasFormatter,
    code: Code<'a>,
    name: &'a dyn Fn(u64) -> Option<String>,
}

impl Writer<'_> {
    fn write(&mut self, instruction: &iced_x86::Instruction, raised: bool) -> Instruction {
        let mut text = String::new();
        if instruction.is_invalid() {
            text.push_str("(bad)");
        } else {
            self.formatter.format(instruction, &mut text);
            self.add_target(instruction, &mut text);
        }
        let from = (instruction.ip() - self.code.entry) as usize;
        let bytes = &self.code.bytes[from..(from + instruction.len()).min(self.code.bytes.len())];
        Instruction {
            address: Addr(instruction.ip()),
            bytes: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            text,
            raised,
        }
    }

    fn add_target(&self, instruction: &iced_x86::Instruction, text: &mut String) {
        if instruction.is_ip_rel_memory_operand() {
            let target = instruction.ip_rel_memory_address();
            text.push_str(&format!(" # {target:#x}"));
            if let Some(name) = (self.name)(target) {
                text.push_str(&format!(" <{name}>"));
            }
        } else if instruction.op_kinds().any(|k| k == OpKind::NearBranch64)
            && let Some(name) = (self.name)(instruction.near_branch_target())
        {
            text.push_str(&format!(" <{name}>"));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// (*Cart).Total, compiled by Go 1.24: `t - c.promo.Price` with a nil promo faults at 0x491b63.
    const TOTAL: Code<'_> = Code {
        entry: 0x49_1b40,
        bytes: &[
            0x48, 0x8b, 0x08, 0x48, 0x8b, 0x50, 0x08, 0x31, 0xdb, 0x31, 0xf6, 0xeb, 0x0d, 0x48, 0x8b, 0x3c,
            0xd9, 0x48, 0x8b, 0x3f, 0x48, 0xff, 0xc3, 0x48, 0x01, 0xfe, 0x48, 0x39, 0xd3, 0x7c, 0xee, 0x48,
            0x8b, 0x48, 0x18, 0x48, 0x8b, 0x09, 0x48, 0x29, 0xce, 0x48, 0x89, 0xf0, 0xc3, 0xcc, 0xcc, 0xcc,
        ],
    };

    fn check(code: Code<'_>, raise: Raise, before: usize, after: usize, want: Expect) {
        let name = |a| match a {
            0x1010 => Some("runtime.gopanic".to_owned()),
            0x1020 => Some("main.limit".to_owned()),
            _ => None,
        };
        want.assert_eq(&match around(code, raise, before, after, &name) {
            Ok(list) => list
                .iter()
                .map(|i| {
                    format!("{} {} {:10} {}\n", if i.raised { '>' } else { ' ' }, i.address, i.bytes, i.text)
                })
                .collect(),
            Err(e) => format!("{e}\n"),
        });
    }

    #[test]
    fn a_fault_is_the_instruction_itself() {
        check(
            TOTAL,
            Raise::At(0x49_1b63),
            2,
            9,
            expect![[r#"
                  0x491b5d 7cee       jl 0x491b4d
                  0x491b5f 488b4818   mov 0x18(%rax),%rcx
                > 0x491b63 488b09     mov (%rcx),%rcx
                  0x491b66 4829ce     sub %rcx,%rsi
                  0x491b69 4889f0     mov %rsi,%rax
                  0x491b6c c3         ret
            "#]],
        );
    }

    #[test]
    fn a_call_is_the_one_before_the_return_address() {
        // lea 0x13(%rip),%rax; mov 0x14(%rip),%rbx; call 0x1010; nop
        let bytes = [
            0x48, 0x8d, 0x05, 0x13, 0, 0, 0, 0x48, 0x8b, 0x1d, 0x12, 0, 0, 0, 0xe8, 0xfd, 0xff, 0xff, 0xff,
            0x90,
        ];
        check(
            Code { entry: 0x1000, bytes: &bytes },
            Raise::CallReturningTo(0x1013),
            5,
            5,
            expect![[r#"
                  0x1000 488d0513000000 lea 0x13(%rip),%rax # 0x101a
                  0x1007 488b1d12000000 mov 0x12(%rip),%rbx # 0x1020 <main.limit>
                > 0x100e e8fdffffff call 0x1010 <runtime.gopanic>
                  0x1013 90         nop
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_said_is_an_error() {
        check(
            TOTAL,
            Raise::At(0x49_1b64),
            2,
            2,
            expect![[r#"
            no instruction begins or ends at 0x491b64 when the function at 0x491b40 is decoded
        "#]],
        );
        check(
            TOTAL,
            Raise::At(0x1000),
            2,
            2,
            expect![[r#"
            0x1000 is outside the function at 0x491b40
        "#]],
        );
        let long = vec![0x90; MAX_BEFORE + 10];
        check(
            Code { entry: 0, bytes: &long },
            Raise::At(long.len() as u64 - 1),
            2,
            2,
            expect![[r#"
                the function at 0x0 is longer than 4194304 bytes before 0x400009
            "#]],
        );
    }

    #[test]
    fn single_instructions() {
        let call = decode_at(0x1000, &[0xe8, 0x0b, 0, 0, 0]).expect("a call");
        assert!(is_call_to(&call, 0x1010) && !is_call_to(&call, 0x1011));
        let jbe = decode_at(0, &[0x0f, 0x86, 1, 2, 0, 0]).expect("a jump");
        assert_eq!((jump_condition(&jbe), jbe.len()), (Some(ConditionCode::be), 6));
        assert_eq!(jump_condition(&call), None);
        let push = decode_at(0, &[0x55]).expect("a push");
        assert!(is_push_rbp(&push) && !is_push_rbp(&jbe));
        assert_eq!(decode_at(0, &[0xe8, 0]), None, "cut short");
        assert_eq!(decode_at(0, &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_list_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            entry in any::<u64>(), at in 0u64..250, call in any::<bool>(),
        ) {
            let pc = entry.wrapping_add(at);
            let raise = if call { Raise::CallReturningTo(pc) } else { Raise::At(pc) };
            if let Ok(list) = around(Code { entry, bytes: &bytes }, raise, 5, 5, &|_| Some("x".into())) {
                prop_assert_eq!(list.iter().filter(|i| i.raised).count(), 1);
                prop_assert!(list.len() <= 11);
            }
        }
    }
}
