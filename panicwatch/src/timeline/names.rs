//! Names of system calls and signals, which are the same on every machine of an architecture.

use crate::gobin::Arch;

/// Returns the name of a system call.
pub fn syscall_name(arch: Arch, number: u32) -> Option<&'static str> {
    let number = i64::from(number);
    match arch {
        Arch::Amd64 => syscall_numbers::x86_64::sys_call_name(number),
        Arch::Arm64 => syscall_numbers::aarch64::sys_call_name(number),
    }
}

/// Returns the name of a signal, which is the same on x86-64 and arm64.
pub fn signal_name(number: u32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(i32::try_from(number).ok()?)
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
}
