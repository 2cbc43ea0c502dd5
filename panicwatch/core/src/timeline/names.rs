//! Names that the kernel's numbers have on every machine: system calls, signals.

use crate::go::gobin::Arch;

/// The name of a system call.
pub fn syscall_name(arch: Arch, number: u32) -> Option<&'static str> {
    let number = i64::from(number);
    match arch {
        Arch::Amd64 => syscall_numbers::x86_64::sys_call_name(number),
        Arch::Arm64 => syscall_numbers::aarch64::sys_call_name(number),
    }
}

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/signal.h>; x86's are the same
/// numbers.
const SIGNALS: [(u32, &str); 29] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (17, "SIGCHLD"),
    (18, "SIGCONT"),
    (19, "SIGSTOP"),
    (20, "SIGTSTP"),
    (21, "SIGTTIN"),
    (22, "SIGTTOU"),
    (23, "SIGURG"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (28, "SIGWINCH"),
    (29, "SIGIO"),
    (31, "SIGSYS"),
];

/// The name of a signal: the same on x86-64 and arm64.
pub fn signal_name(number: u32) -> Option<&'static str> {
    SIGNALS.iter().find(|(signal, _)| *signal == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_architecture() {
        assert_eq!(syscall_name(Arch::Amd64, 0), Some("read"));
        assert_eq!(syscall_name(Arch::Amd64, 202), Some("futex"));
        assert_eq!(syscall_name(Arch::Arm64, 63), Some("read"));
        assert_eq!(syscall_name(Arch::Amd64, 100_000), None);
        assert_eq!(signal_name(23), Some("SIGURG"));
        assert_eq!(signal_name(u32::MAX), None);
    }

    #[test]
    fn signals_are_named_as_signal_hook_names_them() {
        for number in 0..=65 {
            assert_eq!(signal_name(number), signal_hook::low_level::signal_name(number.cast_signed()));
        }
    }
}
