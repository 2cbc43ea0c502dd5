//! A seccomp filter for the daemon. System calls that would let an attacker in the daemon take over the host,
//! and that neither the daemon nor a reasonable hook makes, fail with EPERM.
//!
//! The list names refused calls rather than allowed ones: hooks inherit the filter, and they are arbitrary
//! commands.
//! <https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html>

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Refused system calls, grouped by what they would allow.
pub const REFUSED: &[(&str, &[i64])] = &[
    (
        "loading code into the kernel, or another kernel",
        &[
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
        ],
    ),
    (
        "changing mounts and namespaces",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_unshare,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_acct,
        ],
    ),
    (
        "changing other processes",
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
            libc::SYS_kcmp,
        ],
    ),
    (
        "setting the clock or the host's name",
        &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_syslog,
        ],
    ),
    (
        "parts of the kernel that attacks have often used",
        &[
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_open_by_handle_at,
            libc::SYS_lookup_dcookie,
            libc::SYS_nfsservctl,
            libc::SYS_vmsplice,
            libc::SYS_personality,
        ],
    ),
];

/// Refused on x86-64; other architectures do not have these calls.
#[cfg(target_arch = "x86_64")]
const REFUSED_X86_64: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_X86_64: &[i64] = &[];

/// Applies the filter to all threads of the process, and to every process it starts from now on.
///
/// Also sets no_new_privs: a set-user-ID program started by a hook gains no privileges.
///
/// # Errors
/// A sentence, when the kernel refuses.
pub fn apply() -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot apply the seccomp filter: {error}");
    let program = program().map_err(|e| failed(&e))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| failed(&e))
}

fn program() -> Result<BpfProgram, seccompiler::Error> {
    let always = |number: &i64| (*number, Vec::new());
    let listed = REFUSED.iter().flat_map(|(_, numbers)| numbers.iter());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = listed.chain(REFUSED_X86_64).map(always).collect();
    // The daemon enters UTS namespaces to read the host names of containers; no other kind is allowed.
    let not_uts =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::CLONE_NEWUTS as u64)?;
    rules.insert(libc::SYS_setns, vec![SeccompRule::new(vec![not_uts])?]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io;

    /// Runs in a separate thread, because a filter cannot be removed.
    #[test]
    fn listed_calls_are_refused_and_others_are_not() {
        let results = std::thread::spawn(|| {
            let program = super::program().expect("the list compiles");
            seccompiler::apply_filter(&program).expect("this kernel has seccomp");
            let error = |result: i64| (result < 0).then(|| io::Error::last_os_error().raw_os_error());
            // SAFETY: these calls receive no pointers, or null pointers that the kernel checks.
            let swapoff = error(unsafe { libc::syscall(libc::SYS_swapoff, std::ptr::null::<u8>()) });
            // SAFETY: as above.
            let net = error(unsafe { libc::syscall(libc::SYS_setns, -1, libc::CLONE_NEWNET) });
            // SAFETY: as above.
            let uts = error(unsafe { libc::syscall(libc::SYS_setns, -1, libc::CLONE_NEWUTS) });
            // SAFETY: as above.
            let pid = error(unsafe { libc::syscall(libc::SYS_getpid) });
            (swapoff, net, uts, pid)
        });
        let (swapoff, net, uts, pid) = results.join().expect("no panic");
        assert_eq!(swapoff, Some(Some(libc::EPERM)));
        assert_eq!(net, Some(Some(libc::EPERM)));
        assert_eq!(uts, Some(Some(libc::EBADF)), "it gets as far as the descriptor");
        assert_eq!(pid, None);
    }
}
