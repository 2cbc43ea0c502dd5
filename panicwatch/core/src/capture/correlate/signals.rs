//! A signal as seen by the handler: number, cause, registers.

use std::collections::BTreeMap;

use panicwatch_common::{REG_NAMES, Regs, event::kind, go::SIGCTXT_CTXT, reg, ucontext};

use crate::{
    capture::{View, event::Body},
    go::memory::Memory,
    incident::{Addr, Signal},
};

/// Order of the registers at [`ucontext::REGS`], as indices in [`REG_NAMES`].
const ORDER: [usize; 18] = [
    reg::R8,
    reg::R9,
    reg::R10,
    reg::R11,
    reg::R12,
    reg::R13,
    reg::R14,
    reg::R15,
    reg::RDI,
    reg::RSI,
    reg::RBP,
    reg::RBX,
    reg::RDX,
    reg::RAX,
    reg::RCX,
    reg::RSP,
    reg::RIP,
    reg::RFLAGS,
];

/// Name and text of each signal, as in the runtime's sigtable.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/sigtab_linux_generic.go>
const SIGNALS: [(&str, &str); 31] = [
    ("SIGHUP", "terminal line hangup"),
    ("SIGINT", "interrupt"),
    ("SIGQUIT", "quit"),
    ("SIGILL", "illegal instruction"),
    ("SIGTRAP", "trace trap"),
    ("SIGABRT", "abort"),
    ("SIGBUS", "bus error"),
    ("SIGFPE", "floating-point exception"),
    ("SIGKILL", "kill"),
    ("SIGUSR1", "user-defined signal 1"),
    ("SIGSEGV", "segmentation violation"),
    ("SIGUSR2", "user-defined signal 2"),
    ("SIGPIPE", "write to broken pipe"),
    ("SIGALRM", "alarm clock"),
    ("SIGTERM", "termination"),
    ("SIGSTKFLT", "stack fault"),
    ("SIGCHLD", "child status has changed"),
    ("SIGCONT", "continue"),
    ("SIGSTOP", "stop, unblockable"),
    ("SIGTSTP", "keyboard stop"),
    ("SIGTTIN", "background read from tty"),
    ("SIGTTOU", "background write to tty"),
    ("SIGURG", "urgent condition on socket"),
    ("SIGXCPU", "cpu limit exceeded"),
    ("SIGXFSZ", "file size limit exceeded"),
    ("SIGVTALRM", "virtual alarm clock"),
    ("SIGPROF", "profiling alarm clock"),
    ("SIGWINCH", "window size change"),
    ("SIGIO", "i/o now possible"),
    ("SIGPWR", "power failure restart"),
    ("SIGSYS", "bad system call"),
];

/// Returns the name of a signal: "SIGSEGV".
pub(super) fn name(number: u32) -> String {
    match SIGNALS.get((number as usize).wrapping_sub(1)) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("signal {number}"),
    }
}

/// Returns the line that Go prints first when a signal kills the program: "SIGSEGV: segmentation violation".
pub(super) fn headline(number: u32) -> String {
    match SIGNALS.get((number as usize).wrapping_sub(1)) {
        Some((name, text)) => format!("{name}: {text}"),
        None => format!("Signal {number}"),
    }
}

/// Returns number, siginfo and ucontext of a SIGNAL or FATAL_SIGNAL event.
fn parts(view: &View<'_>) -> Option<(u32, u64, u64)> {
    let Body::Capture(capture) = &view.event.body else { return None };
    let word = |index: usize| capture.regs.words[index];
    let number = word(reg::RAX) as u32;
    match view.event.head.kind {
        // sighandler(sig, info, ctxt, gp)
        kind::SIGNAL => Some((number, word(reg::RBX), word(reg::RCX))),
        // fatalsignal(sig, c *sigctxt{info, ctxt}, gp, mp)
        kind::FATAL_SIGNAL => {
            let c = word(reg::RBX);
            Some((number, view.memory().u64(c)?, view.memory().u64(c + SIGCTXT_CTXT)?))
        }
        _ => None,
    }
}

/// Returns the registers of the interrupted code.
pub(super) fn interrupted(view: &View<'_>) -> Option<Regs> {
    let (_, _, context) = parts(view)?;
    let mut regs = Regs::default();
    for (i, index) in ORDER.iter().enumerate() {
        regs.words[*index] = view.memory().u64(context.checked_add(ucontext::REGS + 8 * i as u64)?)?;
    }
    Some(regs)
}

/// Returns the address of the interrupted instruction.
pub(super) fn pc(view: &View<'_>) -> Option<u64> {
    interrupted(view).map(|regs| regs.words[reg::RIP])
}

/// Returns the registers of the interrupted code by name.
pub(super) fn registers(view: &View<'_>) -> Option<BTreeMap<String, Addr>> {
    interrupted(view).map(|regs| named(&regs))
}

/// Maps registers to their names.
pub(super) fn named(regs: &Regs) -> BTreeMap<String, Addr> {
    REG_NAMES.iter().zip(regs.words).map(|(name, word)| ((*name).to_owned(), Addr(word))).collect()
}

/// Returns the signal for the document.
pub(super) fn signal(view: &View<'_>) -> Option<Signal> {
    let (number, info, _) = parts(view)?;
    let memory = view.memory();
    let code = memory.u32(info.checked_add(ucontext::SI_CODE)?).map(|code| i64::from(code as i32));
    // si_addr is meaningful only for faults.
    let faults = matches!(number, 4 | 5 | 7 | 8 | 11);
    let addr = if faults { memory.u64(info.checked_add(ucontext::SI_ADDR)?).map(Addr) } else { None };
    Some(Signal { number, name: name(number), code, addr, pc: pc(view).map(Addr) })
}
