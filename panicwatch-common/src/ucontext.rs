//! Offsets into `ucontext_t` and `siginfo_t`, which the kernel passes to signal handlers (x86-64), in bytes.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/uapi/asm/sigcontext.h>,
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/siginfo.h>

/// `uc_mcontext.gregs`: r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags.
pub const REGS: u64 = 40;
/// Size of these registers.
pub const REGS_BYTES: u64 = 18 * 8;
/// RSP among them.
pub const RSP: u64 = REGS + 15 * 8;
/// RIP among them.
pub const RIP: u64 = REGS + 16 * 8;

/// `siginfo_t.si_code`.
pub const SI_CODE: u64 = 8;
/// `siginfo_t.si_addr`, for faults.
pub const SI_ADDR: u64 = 16;
