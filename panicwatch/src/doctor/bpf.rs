//! Probes kernel features with the system calls themselves: one function per feature, each without lasting
//! effect.
//!
//! Features are tried, never deduced from the kernel's version, because distributions backport and configure
//! them.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// Lets user space map the values; Linux 5.5.
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_FUNC_GET_ATTACH_COOKIE: u32 = 174;

/// `union bpf_attr`, filled by offset; the kernel accepts any length and requires unused bytes to be zero.
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// # Safety
    ///
    /// Every address in the attributes must point to live memory of the kind that the command reads, and the
    /// command must be one that returns a new file descriptor and does not write through any of them.
    unsafe fn call(&self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: the attributes are 128 initialized bytes, which is the length passed; the caller guarantees
        // the addresses in them.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), self.0.len()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the commands used here return a descriptor that we alone own.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
    }
}

fn map(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    // map_type 0, key_size 4, value_size 8, max_entries 12
    let attr = Attr::new().u32(0, kind).u32(4, key).u32(8, value).u32(12, entries);
    // SAFETY: no addresses; BPF_MAP_CREATE returns a descriptor.
    unsafe { attr.call(BPF_MAP_CREATE) }
}

/// Loads `body; r0 = 0; exit` as a program of that kind.
fn program(kind: u32, body: &[u8], expected_attach_type: u32) -> io::Result<OwnedFd> {
    let mut code = body.to_vec();
    code.extend([0xb7, 0, 0, 0, 0, 0, 0, 0]);
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    let license = c"GPL";
    // prog_type 0, insn_cnt 4, insns 8, license 16, expected_attach_type 68
    let attr = Attr::new()
        .u32(0, kind)
        .u32(4, (code.len() / 8) as u32)
        .u64(8, code.as_ptr() as u64)
        .u64(16, license.as_ptr() as u64)
        .u32(68, expected_attach_type);
    // SAFETY: the code and the license live until the call returns; the kernel only reads them.
    unsafe { attr.call(BPF_PROG_LOAD) }
}

/// Tries the bpf system call, by creating a map of one word.
pub(super) fn syscall() -> io::Result<()> {
    map(BPF_MAP_TYPE_ARRAY, 4, 8, 1).map(drop)
}

/// Tries the ring buffer, Linux 5.8.
pub(super) fn ring_buffer() -> io::Result<()> {
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    map(BPF_MAP_TYPE_RINGBUF, 0, 0, u32::try_from(page).unwrap_or(4096)).map(drop)
}

/// Tries to load a program for uprobes.
pub(super) fn uprobe_program() -> io::Result<()> {
    program(BPF_PROG_TYPE_KPROBE, &[], 0).map(drop)
}

/// Tries bpf_get_attach_cookie in a program for uprobes, Linux 5.15.
pub(super) fn cookies() -> io::Result<()> {
    let id = BPF_FUNC_GET_ATTACH_COOKIE.to_le_bytes();
    program(BPF_PROG_TYPE_KPROBE, &[0x85, 0, 0, 0, id[0], id[1], id[2], id[3]], 0).map(drop)
}

/// Tries the link for many uprobes, Linux 6.6. With a path that is not a regular file the attempt fails with
/// EBADF once the kernel examines the file (libbpf probes for it in the same way).
pub(super) fn uprobe_multi() -> io::Result<()> {
    let program = program(BPF_PROG_TYPE_KPROBE, &[], BPF_TRACE_UPROBE_MULTI)?;
    let path = c"/";
    let offset = 0u64;
    // prog_fd 0, target_fd 4, attach_type 8; uprobe_multi: path 16, offsets 24, cnt 48
    let attr = Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(4, u32::MAX)
        .u32(8, BPF_TRACE_UPROBE_MULTI)
        .u64(16, path.as_ptr() as u64)
        .u64(24, &raw const offset as u64)
        .u32(48, 1);
    // SAFETY: the path and the offset live until the call returns; the kernel only reads them.
    match unsafe { attr.call(BPF_LINK_CREATE) } {
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(e) => Err(e),
        // Should not happen: the kernel would have placed a probe in a directory.
        Ok(_) => Ok(()),
    }
}

/// Tries a map whose values user space can map, as the recorder's rings need.
pub(super) fn mapped_ring() -> io::Result<()> {
    // map_type 0, key_size 4, value_size 8, max_entries 12, map_flags 16
    let attr = Attr::new().u32(0, BPF_MAP_TYPE_ARRAY).u32(4, 4).u32(8, 8).u32(12, 1).u32(16, BPF_F_MMAPABLE);
    // SAFETY: no addresses; BPF_MAP_CREATE returns a descriptor.
    unsafe { attr.call(BPF_MAP_CREATE) }.map(drop)
}

/// Tries raw tracepoints, as the scheduler's events need: attaches an empty program to one of them for a
/// moment.
pub(super) fn raw_tracepoint() -> io::Result<()> {
    let program = program(BPF_PROG_TYPE_RAW_TRACEPOINT, &[], 0)?;
    let name = c"sched_process_exit";
    // name 0, prog_fd 8
    let attr = Attr::new().u64(0, name.as_ptr() as u64).u32(8, program.as_raw_fd() as u32);
    // SAFETY: the name lives until the call returns; the kernel only reads it; a descriptor is returned.
    unsafe { attr.call(BPF_RAW_TRACEPOINT_OPEN) }.map(drop)
}

/// Tries sampling: opens a disabled clock on the first CPU.
pub(super) fn sampling() -> io::Result<()> {
    // perf_event_attr: type 0, size 4, config 8, sample_period 16, flags 40 (bit 0: disabled).
    // https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/perf_event.h#L389
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    const SIZE: u32 = 128;
    let attr = Attr::new().u32(0, PERF_TYPE_SOFTWARE).u32(4, SIZE).u64(8, PERF_COUNT_SW_CPU_CLOCK);
    let attr = attr.u64(16, 1_000_000_000).u64(40, 1);
    let (all, first, no_group, close_on_exec) = (-1, 0, -1, 8);
    // SAFETY: the attributes have the size that they state, and live until the call returns.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attr.0.as_ptr(), all, first, no_group, close_on_exec)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned, and we alone own it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
    Ok(())
}

/// Tries to hold an exec with fanotify: places the mark on /dev/null, which is never executed.
pub(super) fn hold_exec() -> io::Result<()> {
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: no addresses.
    let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned, and we alone own it.
    let group = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open, and the path is a NUL-terminated constant.
    let result = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_ADD,
            libc::FAN_OPEN_EXEC_PERM,
            libc::AT_FDCWD,
            c"/dev/null".as_ptr(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
