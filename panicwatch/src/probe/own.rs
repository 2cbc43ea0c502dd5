//! Functions of our own to put probes on, so that what a hit costs on this machine can be measured.

use std::{fs, hint::black_box, io, thread, time::Duration};

use super::error::ProbeError;
use crate::{clock, mappings};

/// One that begins with an instruction that the kernel emulates (`nop`), as those are that probes stand on in Go code.
#[unsafe(naked)]
extern "C" fn emulated() {
    core::arch::naked_asm!(".byte 0x90", "ret")
}

/// One that begins with an instruction that the kernel steps over (`xor eax, eax`).
#[unsafe(naked)]
extern "C" fn stepped() {
    core::arch::naked_asm!(".byte 0x31, 0xc0", "ret")
}

/// More words than the programs read of a g.
const G_WORDS: usize = 64;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Emulated,
    Stepped,
}

/// Where its probe goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnSite {
    pub(super) address: u64,
    pub(super) file_offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// The best of so many tries counts: whatever disturbs makes them longer.
pub(super) const TRIES: u32 = 5;

impl Own {
    fn function(self) -> extern "C" fn() {
        match self {
            Own::Emulated => emulated,
            Own::Stepped => stepped,
        }
    }

    /// Calls it so often, as Go would: with the address of something that can be read where the g is. A read that fails
    /// takes as long again as all the rest.
    pub(super) fn call(self, times: u32) {
        let (function, g) = (black_box(self.function()), [0_u64; G_WORDS]);
        for _ in 0..times {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the function changes no register but those that any C function may.
            unsafe {
                std::arch::asm!("call {}", in(reg) function, in("r14") g.as_ptr(), clobber_abi("C"));
            }
            #[cfg(not(target_arch = "x86_64"))]
            black_box(function)();
        }
        black_box(g);
    }

    /// The CPU time that `times` calls take at best, with a pause before each try.
    pub(super) fn time(self, times: u32, pause: Duration) -> Duration {
        let once = |_| {
            thread::sleep(pause);
            let start = clock::thread_cpu_ns();
            self.call(times);
            Duration::from_nanos(clock::thread_cpu_ns() - start)
        };
        (0..TRIES).map(once).min().unwrap_or_default()
    }

    /// # Errors
    /// When our own mappings cannot be read.
    pub(super) fn site(self) -> Result<OwnSite, ProbeError> {
        let address = self.function() as *const () as u64;
        let maps = fs::read("/proc/self/maps").map_err(ProbeError::Recorder)?;
        let maps = mappings::parse(&String::from_utf8_lossy(&maps));
        let mapping = maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
        let missing = || ProbeError::Recorder(io::Error::other("our own code is not mapped"));
        let mapping = mapping.ok_or_else(missing)?;
        // Not as they are in memory: another panicwatch may be measuring at this moment, and then its probe is there.
        let bytes = match self {
            Own::Emulated => vec![0x90],
            Own::Stepped => vec![0x31, 0xc0],
        };
        Ok(OwnSite { address, file_offset: address - mapping.start + mapping.offset, bytes })
    }
}
