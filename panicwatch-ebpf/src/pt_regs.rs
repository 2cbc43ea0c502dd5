//! Indices of the words of the kernel's `struct pt_regs` on x86-64.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/asm/ptrace.h#L103>

pub(crate) const R14: usize = 1;
pub(crate) const RBP: usize = 4;
pub(crate) const RBX: usize = 5;
pub(crate) const R11: usize = 6;
pub(crate) const R10: usize = 7;
pub(crate) const R9: usize = 8;
pub(crate) const R8: usize = 9;
pub(crate) const RAX: usize = 10;
pub(crate) const RCX: usize = 11;
pub(crate) const RDX: usize = 12;
pub(crate) const RSI: usize = 13;
pub(crate) const RDI: usize = 14;
/// Number of the system call; -1 if an interrupt entered the kernel or a signal handler returned.
pub(crate) const ORIG_RAX: usize = 15;
pub(crate) const RIP: usize = 16;
pub(crate) const RFLAGS: usize = 18;
pub(crate) const RSP: usize = 19;
