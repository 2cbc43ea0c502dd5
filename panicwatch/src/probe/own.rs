//! Functions of this program to attach probes to, for measuring the cost of a hit on this machine.

use std::{fs, hint::black_box, io, thread, time::Duration};

use super::error::ProbeError;
use crate::{clock, mappings};

/// Begins with an instruction that the kernel emulates (`nop`), as most probe sites in Go code do.
#[unsafe(naked)]
extern "C" fn emulated() {
    core::arch::naked_asm!(".byte 0x90", "ret")
}

/// Begins with an instruction that the kernel single-steps (`xor eax, eax`).
#[unsafe(naked)]
extern "C" fn stepped() {
    core::arch::naked_asm!(".byte 0x31, 0xc0", "ret")
}

/// Words of a fake g; more than the programs read.
const G_WORDS: usize = 64;

/// Function of this program to probe, by how the kernel executes its first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Emulated,
    Stepped,
}

/// Probe site of an [`Own`] function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnSite {
    pub(super) address: u64,
    pub(super) file_offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// Number of tries; the fastest counts, because any disturbance makes a try slower.
pub(super) const TRIES: u32 = 5;

impl Own {
    fn function(self) -> extern "C" fn() {
        match self {
            Own::Emulated => emulated,
            Own::Stepped => stepped,
        }
    }

    /// Calls the function `times` times as Go would: with a readable address in the g register. A failed read
    /// would take as long as everything else together.
    pub(super) fn call(self, times: u32) {
        let (function, g) = (black_box(self.function()), [0_u64; G_WORDS]);
        for _ in 0..times {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the function changes only registers that any C function may change.
            unsafe {
                std::arch::asm!("call {}", in(reg) function, in("r14") g.as_ptr(), clobber_abi("C"));
            }
            #[cfg(not(target_arch = "x86_64"))]
            black_box(function)();
        }
        black_box(g);
    }

    /// Returns the CPU time of the fastest try of `times` calls, with a pause before each try.
    pub(super) fn time(self, times: u32, pause: Duration) -> Duration {
        let once = |_| {
            thread::sleep(pause);
            let start = clock::thread_cpu_ns();
            self.call(times);
            Duration::from_nanos(clock::thread_cpu_ns() - start)
        };
        (0..TRIES).map(once).min().unwrap_or_default()
    }

    /// Returns the probe site of the function.
    ///
    /// # Errors
    /// Fails if our own mappings cannot be read or do not contain the function.
    pub(super) fn site(self) -> Result<OwnSite, ProbeError> {
        let address = self.function() as *const () as u64;
        let maps = fs::read("/proc/self/maps").map_err(ProbeError::Recorder)?;
        let maps = mappings::parse(&String::from_utf8_lossy(&maps));
        let mapping = maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
        let missing = || ProbeError::Recorder(io::Error::other("our own code is not mapped"));
        let mapping = mapping.ok_or_else(missing)?;
        // Not read from memory: another panicwatch may be measuring at this moment and have its breakpoint
        // there.
        let bytes = match self {
            Own::Emulated => vec![0x90],
            Own::Stepped => vec![0x31, 0xc0],
        };
        Ok(OwnSite { address, file_offset: address - mapping.start + mapping.offset, bytes })
    }
}
