//! Survives the truncation of a file that is mapped.
//!
//! Binaries are read through mappings. While a process runs one the kernel lets nobody write to it; afterwards somebody may
//! copy a new release over it, and reading what is no longer there raises SIGBUS. The page is then made one of zeros: whoever
//! reads it finds a damaged file, which is an error like others.
//! <https://man7.org/linux/man-pages/man2/mmap.2.html> (SIGBUS)

use std::{io, ptr};

const PAGE: usize = 4096;

/// From now on. Affects the whole process.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn survive() -> io::Result<()> {
    // SAFETY: all zeros is a sigaction without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action lives through the call, and its handler does only what handlers may.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a system call and returns to the instruction that failed; nothing else.
extern "C" fn on_bus_error(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a siginfo of a fault.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    // SAFETY: replaces, at a whole page, only what cannot be read; nothing of ours was ever written there, for mappings of
    // files are read-only.
    let done = unsafe {
        code == libc::BUS_ADRERR
            && libc::mmap(
                (address & !(PAGE - 1)) as *mut libc::c_void,
                PAGE,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            ) != libc::MAP_FAILED
    };
    if !done {
        // SAFETY: back to what the kernel does with it; the instruction is tried again and dies of it.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    #[test]
    fn a_truncated_file_reads_as_zeros() {
        super::survive().expect("a handler");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[7; 3 * super::PAGE]).expect("room");
        // SAFETY: that it is truncated meanwhile is what is tested.
        let map = unsafe { memmap2::Mmap::map(&file) }.expect("a mapping");
        assert_eq!(map[2 * super::PAGE], 7);
        file.set_len(super::PAGE as u64).expect("truncated");
        assert_eq!(std::hint::black_box(&map)[2 * super::PAGE + 5], 0);
        assert_eq!(map[5], 7);
    }
}
