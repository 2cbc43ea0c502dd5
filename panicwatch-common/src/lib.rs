//! Layouts and limits shared by panicwatch's eBPF programs and user space.
//!
//! Every shared type is `#[repr(C)]` and has fixed-width integers only, without implicit padding; a `const`
//! assertion beside each type checks its size. This crate is compiled for both sides, so it has no logic and
//! no dependencies.
#![no_std]

pub mod binary;
pub mod config;
pub mod counted;
pub mod event;
pub mod go;
pub mod reason;
pub mod recorder;
pub mod trace;
pub mod ucontext;

/// General-purpose registers as the kernel saves them (x86-64 `struct pt_regs`, in its order).
///
/// Source: <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/uapi/asm/ptrace.h>
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Regs {
    /// Register values, in the order of [`REG_NAMES`].
    pub words: [u64; REGS],
}

/// Number of saved registers.
pub const REGS: usize = 18;

/// Names of [`Regs::words`], as Go's crash output spells them.
pub const REG_NAMES: [&str; REGS] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "rip", "rflags", "rsp",
];

/// Indices into [`Regs::words`].
#[expect(missing_docs, reason = "the names of the registers say it all")]
pub mod reg {
    pub const R15: usize = 0;
    pub const R14: usize = 1;
    pub const R13: usize = 2;
    pub const R12: usize = 3;
    pub const RBP: usize = 4;
    pub const RBX: usize = 5;
    pub const R11: usize = 6;
    pub const R10: usize = 7;
    pub const R9: usize = 8;
    pub const R8: usize = 9;
    pub const RAX: usize = 10;
    pub const RCX: usize = 11;
    pub const RDX: usize = 12;
    pub const RSI: usize = 13;
    pub const RDI: usize = 14;
    pub const RIP: usize = 15;
    pub const RFLAGS: usize = 16;
    pub const RSP: usize = 17;
}

const _: () = assert!(size_of::<Regs>() == 8 * REGS);
