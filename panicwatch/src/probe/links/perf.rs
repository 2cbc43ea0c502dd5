//! Uprobes as perf events (before Linux 6.6): one event and one link per site.
//!
//! aya can create them, too, but only in the process that loaded the program, and these are created in the
//! helper.
//! <https://github.com/torvalds/linux/blob/v6.1/kernel/events/core.c> (perf_uprobe_event_init)

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_cmd, perf_event_attr};

use crate::probe::multi::{bpf, zeroed};

/// `BPF_PERF_EVENT`.
const BPF_PERF_EVENT: u32 = 41;
const PMU_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Returns the type number of the kernel's uprobe PMU.
pub(super) fn pmu() -> io::Result<u32> {
    fs::read_to_string(PMU_TYPE)?
        .trim()
        .parse()
        .map_err(|_| io::Error::other(format!("{PMU_TYPE} has no number")))
}

/// Attaches `program` at one file offset of `path`, with a cookie, for every process. Dropping the link
/// detaches.
pub(super) fn attach(
    pmu: u32,
    program: &OwnedFd,
    path: &CStr,
    offset: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let event = open(pmu, path, offset)?;
    let mut attr = zeroed();
    // SAFETY: LINK_CREATE reads this member of the union.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.__bindgen_anon_2.target_fd = event.as_fd().as_raw_fd() as u32;
    link.attach_type = BPF_PERF_EVENT;
    link.__bindgen_anon_3.perf_event.bpf_cookie = cookie;
    // The link holds a reference to the event.
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn open(pmu: u32, path: &CStr, offset: u64) -> io::Result<OwnedFd> {
    // SAFETY: perf_event_attr is a plain C struct; all zeroes is its documented empty value.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.type_ = pmu;
    attr.__bindgen_anon_3.config1 = path.as_ptr() as u64;
    attr.__bindgen_anon_4.config2 = offset;
    // An event opened for one CPU fires for every process, on every CPU.
    let (all, first, no_group, close_on_exec) = (-1, 0, -1, 8);
    // SAFETY: the attributes are as large as their size field states, and outlive the call, as does the path.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, all, first, no_group, close_on_exec)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
