//! panicwatch's eBPF programs.
//!
//! One set of programs serves every Go version: what differs between binaries comes from the row of
//! `BINARIES` that a probe's cookie names. The programs copy Go's structs and stacks undecoded, interpret
//! almost nothing and leave every decision to user space.
//!
//! For any other target this crate is an empty program with the standard library, so that clippy and
//! rust-analyzer can check the whole workspace.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(missing_docs, reason = "entry points are documented by their modules")
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "atomic addition with fetch has no stable name for this target"),
    feature(asm_experimental_arch)
)]

#[cfg(target_arch = "bpf")]
mod ancestors;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod capture;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod diagnostics;
#[cfg(target_arch = "bpf")]
mod goroutine;
#[cfg(target_arch = "bpf")]
mod loss;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod memory;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod pt_regs;
#[cfg(target_arch = "bpf")]
mod rate;
#[cfg(target_arch = "bpf")]
mod read;
#[cfg(target_arch = "bpf")]
mod recorder;
#[cfg(target_arch = "bpf")]
mod task;
#[cfg(target_arch = "bpf")]
mod trace;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// License of the programs: the kernel allows calls of GPL-only helpers only from GPL-compatible programs.
#[cfg(target_arch = "bpf")]
// SAFETY: the loader reads the license from this section, and the name is unique.
#[unsafe(link_section = "license")]
// SAFETY: as above.
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
