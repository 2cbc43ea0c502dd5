//! First step of every uprobe program: whether to report the hit, its registers, and its goroutine.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_get_attach_cookie},
    programs::ProbeContext,
};
use panicwatch_common::{
    Regs,
    binary::{Binary, row, site},
    event::Head,
    go::{G_M, G_STACK_HI},
    reason::Reason,
    reg,
};

use crate::{
    diagnostics,
    loss::lost_so_far,
    maps::{BINARIES, HITS, WATCHED, failed, watch},
    read,
};

pub(crate) const RFLAGS_CF: u64 = 1;
pub(crate) const RFLAGS_ZF: u64 = 1 << 6;

/// A probe hit that is to be reported.
pub(crate) struct Hit {
    regs: *const u64,
    pub(crate) binary: &'static Binary,
    pub(crate) site: u32,
    pub(crate) binary_index: u32,
}

/// Index in the kernel's pt_regs of each register of [`Regs`].
const PT_REGS: [usize; panicwatch_common::REGS] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 19];

impl Hit {
    /// Returns `None` when the hit is not to be reported: the process is not watched, or the function's
    /// prologue will run again.
    #[inline(always)]
    pub(crate) fn new(ctx: &ProbeContext) -> Option<Hit> {
        // SAFETY: the context is this program's; the helper only reads it.
        let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
        let (binary_index, site) = (cookie as u32, (cookie >> 32) as u32);
        let Some(binary) = BINARIES.get(binary_index) else {
            failed(Reason::NoBinary);
            // SAFETY: pt_regs has 21 words and the index is below that.
            let ip = unsafe { core::ptr::read_volatile((ctx.regs as *const u64).add(PT_REGS[reg::RIP])) };
            diagnostics::no_binary(ip, binary_index as u64);
            return None;
        };
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        // Not an Option: the compiler may spill the payload of None, which is not set, and the verifier
        // rejects that. SAFETY: the value is copied at once.
        let bound = unsafe { WATCHED.get(&tgid) }.map_or(row::ABSENT, |row| *row);
        match bound {
            row::ABSENT if binary.watch_all == 0 => return None,
            row::ABSENT | row::UNKNOWN => {}
            // A file that is reached through two mounts of an image has the probes of both rows; the first
            // row that was hit is the process's.
            // https://github.com/torvalds/linux/blob/v6.12/kernel/trace/bpf_trace.c (d_real_inode)
            row if row != binary_index + 1 => return None,
            _ => {}
        }
        if let Some(hits) = HITS.get_ptr_mut(binary_index) {
            // SAFETY: the pointer is to this CPU's slot of a map value of this type.
            unsafe { *hits += 1 };
        }
        // Store the row of this process. With `watch_all` this also adds the process, so that its exit is
        // reported.
        if bound != binary_index + 1 && !watch(tgid, binary_index + 1) {
            failed(Reason::WatchedFull);
            diagnostics::watched_full(binary_index as u64);
        }
        let hit = Hit { regs: ctx.regs as *const u64, binary, site, binary_index };
        if site & site::ON_STACK_CHECK != 0 && hit.reg(reg::RFLAGS) & (RFLAGS_CF | RFLAGS_ZF) != 0 {
            return None;
        }
        Some(hit)
    }

    /// Fills in the fields of a head that are known immediately. `head` is in a ring reservation.
    ///
    /// A program keeps everything that it needs between its steps in the reservation, not on its stack. The
    /// verifier treats such memory as unknown, so all paths through one step converge before the next; with
    /// values on the stack, the number of paths would multiply.
    #[inline(always)]
    pub(crate) fn begin(&self, head: *mut Head, kind: u32, len: usize) {
        let id = bpf_get_current_pid_tgid();
        // SAFETY: no preconditions.
        let time_ns = unsafe { bpf_ktime_get_ns() };
        let filled = Head {
            kind,
            len: len as u32,
            time_ns,
            tgid: (id >> 32) as u32,
            tid: id as u32,
            binary: self.binary_index,
            site: self.site,
            ip: self.reg(reg::RIP),
            sp: self.reg(reg::RSP),
            ..Head::default()
        };
        // SAFETY: the caller's reservation holds a Head.
        unsafe { core::ptr::write_volatile(head, filled) };
    }

    /// Returns a register, by its index in [`panicwatch_common::REG_NAMES`].
    #[inline(always)]
    pub(crate) fn reg(&self, index: usize) -> u64 {
        // SAFETY: pt_regs has 21 words and every index in PT_REGS is below that.
        unsafe { core::ptr::read_volatile(self.regs.add(PT_REGS[index])) }
    }

    /// Copies all general-purpose registers.
    #[inline(always)]
    pub(crate) fn copy_regs(&self, to: *mut Regs) {
        // SAFETY: the caller's reservation holds Regs.
        let words: *mut u64 = unsafe { (&raw mut (*to).words).cast() };
        // SAFETY: the indices are below REGS.
        macro_rules! each { ($($i:literal)*) => { $(unsafe { *words.add($i) = self.reg($i) };)* } }
        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17);
    }

    /// Returns the current g of code that runs on the user's goroutine: R14 (Go's internal ABI on amd64).
    #[inline(always)]
    pub(crate) fn user_g(&self) -> u64 {
        self.reg(reg::R14)
    }

    /// Returns the goroutine of code that may run on g0 or gsignal: g.m.curg, which is g itself on a user
    /// stack; 0 when there is none.
    #[inline(always)]
    pub(crate) fn current_g(&self) -> u64 {
        let m = read::word(self.reg(reg::R14) + G_M).unwrap_or(0);
        if m != 0 { read::word(m + self.binary.m_curg as u64).unwrap_or(0) } else { 0 }
    }

    /// Fills in the fields of a head that describe the goroutine whose g is at `g`.
    #[inline(always)]
    pub(crate) fn goroutine(&self, head: *mut Head, g: u64) {
        if g == 0 {
            return;
        }
        let Some(hi) = read::word(g + G_STACK_HI) else {
            failed(Reason::NoGoroutine);
            diagnostics::no_goroutine(self.reg(reg::RIP), g);
            return;
        };
        let goid = read::word(g + self.binary.g_goid as u64).unwrap_or(0);
        // SAFETY: the caller's reservation holds a Head.
        unsafe {
            core::ptr::write_volatile(&raw mut (*head).g, g);
            core::ptr::write_volatile(&raw mut (*head).stack_hi, hi);
            core::ptr::write_volatile(&raw mut (*head).goid, goid);
            core::ptr::write_volatile(&raw mut (*head).lost, lost_so_far(goid) as u32);
            core::ptr::write_volatile(&raw mut (*head).flags, self.flags(g));
        }
    }
}

/// Reads a field of a head, volatile because an earlier step may have changed it.
macro_rules! get {
    ($head:expr, $field:ident) => {
        // SAFETY: every head is in a reservation that is not submitted or discarded before the program ends.
        unsafe { core::ptr::read_volatile(&raw const (*$head).$field) }
    };
}
pub(crate) use get;
