//! Stops the first thread of a program before an instruction and reads its registers, with ptrace(2).

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

/// The registers of a stopped thread.
pub(crate) struct Registers(libc::user_regs_struct);

impl Registers {
    /// Returns the value of a register named as in the disassembly, as a signed number of its size; `None`
    /// for any other text.
    pub(crate) fn value(&self, text: &str) -> Option<i64> {
        let r = &self.0;
        let name = text.strip_prefix('%')?;
        let wide = [
            ("rax", r.rax),
            ("rbx", r.rbx),
            ("rcx", r.rcx),
            ("rdx", r.rdx),
            ("rsi", r.rsi),
            ("rdi", r.rdi),
            ("rbp", r.rbp),
            ("r8", r.r8),
            ("r9", r.r9),
            ("r10", r.r10),
            ("r11", r.r11),
            ("r12", r.r12),
            ("r13", r.r13),
            ("r15", r.r15),
        ];
        let find = |name: &str| wide.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        if let Some(value) = find(name) {
            return Some(value.cast_signed());
        }
        let narrow = match name.strip_prefix('e') {
            Some(rest) => find(&format!("r{rest}")),
            None => find(name.strip_suffix('d')?),
        };
        Some(i64::from((narrow? as u32).cast_signed()))
    }
}

/// A traced child process; dropping the value kills it.
struct Traced(libc::pid_t, std::process::Child);

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

impl Traced {
    fn start(exe: &Path, argument: &str) -> io::Result<Self> {
        let mut command = Command::new(exe);
        command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: ptrace is a system call and touches no memory of the child, so it may run between fork and
        // exec.
        unsafe {
            command.pre_exec(|| check(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)).map(drop));
        }
        let child = command.spawn()?;
        let traced = Self(child.id().cast_signed(), child);
        traced.wait()?;
        Ok(traced)
    }

    /// Waits until the child stops and returns the signal.
    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: the call writes to `status`, which outlives it.
        check(i64::from(unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) }))?;
        if libc::WIFSTOPPED(status) {
            return Ok(libc::WSTOPSIG(status));
        }
        Err(io::Error::other(format!("it ended with status {status:#x}")))
    }

    fn resume(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the child is stopped; no memory of this process is involved.
        check(unsafe { libc::ptrace(libc::PTRACE_CONT, self.0, 0, signal) }).map(drop)
    }

    fn registers(&self) -> io::Result<Registers> {
        // SAFETY: a struct of integers, for which all zeroes is valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the struct whose address it is given.
        check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0, 0, &raw mut registers) })?;
        Ok(Registers(registers))
    }

    /// Replaces the first byte of the instruction at `at` with a breakpoint.
    fn stop_at(&self, at: u64) -> io::Result<()> {
        // SAFETY: reads a word of the child, which is stopped. -1 could be a word too, but code is never all
        // ones.
        let word = check(unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.0, at, 0) })?;
        let changed = word & !0xff | 0xcc;
        // SAFETY: writes a word of the child, which is stopped.
        check(unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.0, at, changed) }).map(drop)
    }
}

fn check(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Checks whether programs can be traced on this machine.
pub(crate) fn works() -> io::Result<()> {
    Traced::start(Path::new("/bin/true"), "").map(drop)
}

/// Returns the registers when `exe argument` first reaches the instruction at `at`, on its first thread.
pub(crate) fn registers_at(exe: &Path, argument: &str, at: u64) -> io::Result<Registers> {
    let traced = Traced::start(exe, argument)?;
    traced.stop_at(at)?;
    let mut signal = 0;
    loop {
        traced.resume(signal)?;
        signal = traced.wait()?;
        if signal == libc::SIGTRAP {
            let registers = traced.registers()?;
            if registers.0.rip == at + 1 {
                return Ok(registers);
            }
            signal = 0;
        }
    }
}
