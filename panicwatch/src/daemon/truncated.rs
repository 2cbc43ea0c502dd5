//! Survives the truncation of a mapped file.
//!
//! Binaries are read through mappings. While a process runs a binary, the kernel rejects writes to it.
//! Afterwards a new release may be copied over it, and reading a page beyond the new end raises SIGBUS. The
//! handler then replaces the page with zeros: the reader finds a damaged file, which is an ordinary error.
//! <https://man7.org/linux/man-pages/man2/mmap.2.html> (SIGBUS)

use std::{io, ptr};

const PAGE: usize = 4096;

/// Installs the handler of SIGBUS, for the whole process.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn survive() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action outlives the call, and its handler is async-signal-safe.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces the page and returns to the faulting instruction; does nothing else.
extern "C" fn on_bus_error(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes the siginfo of a fault.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    // SAFETY: replaces, as a whole page, only memory that cannot be read. It held no data of ours, because
    // mappings of files are read-only.
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
        // SAFETY: restores the default action; the instruction is retried and the signal ends the process.
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
        // SAFETY: the test truncates the file on purpose.
        let map = unsafe { memmap2::Mmap::map(&file) }.expect("a mapping");
        assert_eq!(map[2 * super::PAGE], 7);
        file.set_len(super::PAGE as u64).expect("truncated");
        assert_eq!(std::hint::black_box(&map)[2 * super::PAGE + 5], 0);
        assert_eq!(map[5], 7);
    }
}
