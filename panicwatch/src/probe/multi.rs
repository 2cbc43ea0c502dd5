//! uprobe_multi links (Linux 6.6 and later): all sites of a program in one system call, detached at once.
//!
//! aya 0.14 does not support them, so this module loads and links the programs with bpf(2). To be deleted
//! when an aya release that supports them builds with our Rust version.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/bpf_trace.c#L3360>

use std::{
    collections::{BTreeMap, HashSet},
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use aya_obj::{
    btf::BtfFeatures,
    generated::{bpf_attr, bpf_cmd},
};

use super::error::ProbeError;

/// `BPF_TRACE_UPROBE_MULTI`.
const UPROBE_MULTI: u32 = 48;
/// `BPF_PROG_TYPE_KPROBE`.
const PROG_TYPE_KPROBE: u32 = 2;
/// `BPF_PROG_TYPE_TRACING`.
const PROG_TYPE_TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`.
const TRACE_RAW_TP: u32 = 23;
const LOG_BYTES: usize = 1 << 20;

/// Calls bpf(2) with a command that returns a new descriptor.
pub(super) fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is valid for its size, and the pointers in it outlive the call (they are the caller's
    // locals).
    let fd = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a successful PROG_LOAD, BTF_LOAD or LINK_CREATE returns a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns zeroed attributes.
pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain C structs; all zeroes is its documented empty value.
    unsafe { std::mem::zeroed() }
}

/// Kind of attachment that a program is loaded for.
#[derive(Debug, Clone, Copy)]
enum For {
    /// Uprobes by uprobe_multi links.
    Uprobes,
    /// Uprobes by perf events.
    PerfEvents,
    /// BTF tracepoint with this type ID in the kernel's BTF.
    Tracepoint(u32),
}

/// Loads the uprobe programs `names` of `object`; `maps` has the descriptors of their maps by name.
pub(super) fn load(
    object: &[u8],
    maps: &BTreeMap<String, RawFd>,
    names: &[&'static str],
) -> Result<BTreeMap<&'static str, OwnedFd>, ProbeError> {
    let names: Vec<_> = names.iter().map(|name| (*name, For::Uprobes)).collect();
    load_all(object, maps, &names)
}

/// Loads the programs of BTF tracepoints; `names` has each program's name and the type ID of its tracepoint
/// in the kernel's BTF. aya could load them, but would parse the kernel's whole BTF again for it, which takes
/// 20 MB.
pub(super) fn load_tracepoints(
    object: &[u8],
    maps: &BTreeMap<String, RawFd>,
    names: &[(&'static str, u32)],
) -> Result<BTreeMap<&'static str, OwnedFd>, ProbeError> {
    let names: Vec<_> = names.iter().map(|(name, id)| (*name, For::Tracepoint(*id))).collect();
    load_all(object, maps, &names)
}

fn load_all(
    object: &[u8],
    maps: &BTreeMap<String, RawFd>,
    names: &[(&'static str, For)],
) -> Result<BTreeMap<&'static str, OwnedFd>, ProbeError> {
    let parse = |error: &dyn std::fmt::Display| ProbeError::Parse(error.to_string());
    let mut object = aya_obj::Object::parse(object).map_err(|e| parse(&e))?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let definitions = object.maps.clone();
    let known =
        definitions.iter().filter_map(|(name, map)| maps.get(name).map(|fd| (name.as_str(), *fd, map)));
    object.relocate_maps(known, &text).map_err(|e| parse(&e))?;
    object.relocate_calls(&text).map_err(|e| parse(&e))?;
    let types = &types(&mut object);
    let mut functions = Vec::new();
    for &(name, purpose) in names {
        let program = object.programs.get(name).ok_or(ProbeError::Object(name))?;
        let function = object.functions.get(&program.function_key()).ok_or(ProbeError::Object(name))?;
        functions.push((name, purpose, function));
    }
    // Verification is most of panicwatch's start-up time, and the kernel verifies programs in parallel.
    std::thread::scope(|scope| {
        let threads: Vec<_> = functions
            .into_iter()
            .map(|(name, purpose, function)| {
                (name, scope.spawn(move || load_one(name, purpose, function, types.as_ref())))
            })
            .collect();
        let load = |(name, thread): (_, std::thread::ScopedJoinHandle<'_, _>)| {
            let fd: Result<OwnedFd, ProbeError> = thread.join().unwrap_or(Err(ProbeError::Object(name)));
            fd.map(|fd| (name, fd))
        };
        threads.into_iter().map(load).collect()
    })
}

/// Loads the object's BTF into the kernel. With it, the verifier knows which functions are global, and
/// verifies each of those alone, once; without it, it verifies them on every path to every call, which is
/// most of its work.
/// <https://docs.kernel.org/bpf/verifier.html>,
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/verifier.c> (do_check_subprogs)
fn types(object: &mut aya_obj::Object) -> Option<OwnedFd> {
    // All kernels with uprobe_multi links have all of these BTF features.
    let known = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let bytes = object.fixup_and_sanitize_btf(&known).ok()??.to_bytes();
    let mut attr = zeroed();
    // SAFETY: BTF_LOAD reads this member of the union.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).ok()
}

fn load_one(
    name: &str,
    purpose: For,
    function: &aya_obj::Function,
    types: Option<&OwnedFd>,
) -> Result<OwnedFd, ProbeError> {
    let instructions = &function.instructions;
    let functions = function.func_info.func_info_bytes();
    let types = types.map(|types| (types, functions.as_slice(), function.func_info_rec_size));
    // The log is requested only after a rejection: writing it costs more than verification.
    try_load(purpose, instructions, types, &mut []).or_else(|_| {
        let mut log = vec![0; LOG_BYTES];
        try_load(purpose, instructions, types, &mut log).map_err(|error| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            let tail = &log[end.saturating_sub(2000)..end];
            ProbeError::Verifier {
                name: name.to_owned(),
                error,
                log: String::from_utf8_lossy(tail).into_owned(),
            }
        })
    })
}

/// BTF of the object, the func_info entries of a program, and the size of one entry.
type Types<'a> = (&'a OwnedFd, &'a [u8], usize);

fn try_load(
    purpose: For,
    instructions: &[aya_obj::generated::bpf_insn],
    types: Option<Types<'_>>,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: PROG_LOAD reads this member of the union, and every bit pattern of it is valid.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    match purpose {
        For::Uprobes => {
            load.prog_type = PROG_TYPE_KPROBE;
            load.expected_attach_type = UPROBE_MULTI;
        }
        For::PerfEvents => load.prog_type = PROG_TYPE_KPROBE,
        For::Tracepoint(id) => {
            load.prog_type = PROG_TYPE_TRACING;
            load.expected_attach_type = TRACE_RAW_TP;
            load.attach_btf_id = id;
        }
    }
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    if let Some((types, functions, size)) = types.filter(|(_, functions, _)| !functions.is_empty()) {
        load.prog_btf_fd = types.as_raw_fd() as u32;
        load.func_info = functions.as_ptr() as u64;
        load.func_info_cnt = (functions.len() / size.max(1)) as u32;
        load.func_info_rec_size = size as u32;
    }
    if !log.is_empty() {
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
        load.log_level = 1;
    }
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches `program` at the file offsets of `path`, each with its cookie, for every process. This process
/// holds the link; dropping it detaches, unless the thread has been killed, and that is why `links` attaches
/// the probes in programs.
pub(super) fn attach(program: &OwnedFd, path: &CStr, sites: &[(u64, u64)]) -> io::Result<OwnedFd> {
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = sites.iter().copied().unzip();
    let mut attr = zeroed();
    // SAFETY: LINK_CREATE reads this member of the union.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.attach_type = UPROBE_MULTI;
    // SAFETY: with this attach type, LINK_CREATE reads this member of the inner union.
    let multi = unsafe { &mut link.__bindgen_anon_3.uprobe_multi };
    multi.path = path.as_ptr() as u64;
    multi.offsets = offsets.as_ptr() as u64;
    multi.cookies = cookies.as_ptr() as u64;
    multi.cnt = offsets.len() as u32;
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches `program` to the BTF tracepoint that it was loaded for. Dropping the descriptor detaches.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c> (bpf_raw_tracepoint_open)
pub(super) fn attach_tracepoint(program: &OwnedFd) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: RAW_TRACEPOINT_OPEN reads this member of the union; the name is null because the program was
    // loaded for one tracepoint.
    let open = unsafe { &mut attr.raw_tracepoint };
    open.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Reports whether this kernel has uprobe_multi links. Nothing is attached: like libbpf, it passes a
/// directory, which kernels with these links reject with EBADF; kernels before 6.6 reject the attach type
/// with EINVAL.
pub(super) fn supported() -> bool {
    let Ok(program) = empty_program() else { return false };
    attach(&program, c"/", &[(0, 0)]).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Loads a no-op program for uprobe_multi links.
pub(super) fn empty_program() -> io::Result<OwnedFd> {
    empty(For::Uprobes)
}

/// Loads a no-op program for perf events.
pub(super) fn empty_uprobe_program() -> io::Result<OwnedFd> {
    empty(For::PerfEvents)
}

fn empty(purpose: For) -> io::Result<OwnedFd> {
    use aya_obj::generated::bpf_insn;
    // mov r0, 0; exit
    let mov = bpf_insn { code: 0xb7, ..bpf_insn_zero() };
    let exit = bpf_insn { code: 0x95, ..bpf_insn_zero() };
    try_load(purpose, &[mov, exit], None, &mut [])
}

fn bpf_insn_zero() -> aya_obj::generated::bpf_insn {
    // SAFETY: bpf_insn is a plain C struct for which all zeroes is valid.
    unsafe { std::mem::zeroed() }
}
