//! Programs of `panicwatch trace` for entries, exits and unwinding of calls. They are loaded only for that
//! command.
//!
//! Programs that may run millions of times a second do as little as possible: identify the goroutine, count,
//! write one small record. Arguments, results and callers have separate programs ([`full`]).

pub(crate) mod fetch;
pub(crate) mod full;
pub(crate) mod maps;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::bpf_get_attach_cookie,
    },
    macros::uprobe,
    programs::ProbeContext,
};
use panicwatch_common::{
    go::{G_GOID_WORDS, G_PANIC},
    trace::{Counts, Hit, NO_OFFSET, ON_STACK_CHECK, SPARE_SLOTS, TraceConfig, flag, kind},
};

use self::maps::{TRACE_CONFIG, TRACE_COUNTS, TRACE_HEADS, TRACE_RING, TRACE_SLOTS};
use crate::{
    atomic::{increment, next},
    context::{RFLAGS_CF, RFLAGS_ZF},
    maps::{NO_WAKEUP, watched},
    pt_regs, read,
};

/// The two words of a g that can be its goid, and the number of words up to the second.
const GOID: usize = G_GOID_WORDS[0];
const LATER_GOID: usize = G_GOID_WORDS[1];
const G_WORDS: usize = LATER_GOID + 1;

/// A hit of a traced site.
pub(crate) struct Traced {
    regs: *const u64,
    pub(crate) config: &'static TraceConfig,
    pub(crate) function: u32,
    /// Address at which the return address is stored.
    pub(crate) frame: u64,
    id: u64,
}

impl Traced {
    /// Returns `None` when the hit is not to be traced: the process is not watched, or the function's
    /// prologue will run again.
    #[inline(always)]
    pub(crate) fn new(ctx: &ProbeContext) -> Option<Traced> {
        let config = TRACE_CONFIG.get(0)?;
        let id = bpf_get_current_pid_tgid();
        let tgid = (id >> 32) as u32;
        if tgid != config.tgid && config.all == 0 && watched(tgid).is_none() {
            return None;
        }
        // SAFETY: the context is this program's; the helper only reads it.
        let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
        let mut traced =
            Traced { regs: ctx.regs as *const u64, config, function: cookie as u32, frame: 0, id };
        if (cookie >> 32) & ON_STACK_CHECK != 0 && traced.reg(pt_regs::RFLAGS) & (RFLAGS_CF | RFLAGS_ZF) != 0
        {
            return None;
        }
        traced.frame = traced.reg(pt_regs::RSP) + (cookie >> 40);
        Some(traced)
    }

    /// Returns a register, by its index in pt_regs.
    #[inline(always)]
    pub(crate) fn reg(&self, index: usize) -> u64 {
        // SAFETY: pt_regs has 21 words and every index in `pt_regs` is below that.
        unsafe { core::ptr::read_volatile(self.regs.add(index)) }
    }

    /// Returns the record of this hit; `None` if the session traces only another goroutine.
    #[inline(always)]
    pub(crate) fn hit(&self, kind: u8) -> Option<Hit> {
        let g = self.reg(pt_regs::R14);
        // Code that was called from C or runs before there is a goroutine can have anything in R14. A value
        // is accepted only if it is a g on whose stack we are: `runtime.g` begins with stack.lo and stack.hi.
        // One read fetches all three words, because the helper call costs more than the bytes.
        let words = read::head_of_g::<G_WORDS>(g);
        let (lo, hi) = words.as_ref().map_or((0, 0), |words| (words[0], words[1]));
        let mut hit = Hit {
            // SAFETY: no preconditions.
            time_ns: unsafe { bpf_ktime_get_ns() },
            goid: 0,
            tgid: (self.id >> 32) as u32,
            tid: self.id as u32,
            function: self.function,
            // Grows from caller to callee, like the depth on a goroutine's stack.
            depth: !(self.frame as u32),
            kind,
            flags: flag::NO_GOROUTINE,
            reserved: 0,
            reserved_too: 0,
        };
        if let Some(words) = &words
            && self.frame >= lo
            && self.frame < hi
        {
            let at = self.config.g_goid as usize;
            hit.goid = if at == 8 * GOID {
                words[GOID]
            } else if at == 8 * LATER_GOID {
                words[LATER_GOID]
            } else {
                read::word(g + at as u64).unwrap_or(0)
            };
            hit.depth = (hi - self.frame) as u32;
            hit.flags = 0;
            if hit.goid == 0 {
                hit.goid = g;
                hit.flags = flag::SYSTEM_STACK;
            }
        }
        if self.config.goid != 0 && self.config.goid != hit.goid {
            return None;
        }
        Some(hit)
    }

    /// Adds one to the counter that `which` selects.
    #[inline(always)]
    pub(crate) fn count(&self, which: fn(*mut Counts) -> *mut u64) {
        if let Some(counts) = TRACE_COUNTS.get_ptr_mut(self.function) {
            increment(which(counts));
        }
    }

    /// Sends a record to user space; if the ring is full, counts it in `lost`.
    #[inline(always)]
    pub(crate) fn emit(&self, hit: Hit, lost: fn(*mut Counts) -> *mut u64) {
        let stored = match self.config.slot_mask {
            // The session has data: all records go through the kernel's ring buffer, which preserves their
            // order.
            0 => TRACE_RING.output::<Hit>(hit, NO_WAKEUP).is_ok(),
            mask => Self::store(hit, mask).is_some(),
        };
        if !stored {
            self.count(lost);
        }
    }

    /// Stores a record in this CPU's ring, without a ring buffer helper and without memory that another CPU
    /// writes. Returns `None` if the ring is full.
    #[inline(always)]
    fn store(hit: Hit, mask: u32) -> Option<()> {
        // SAFETY: no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let head = TRACE_HEADS.get_ptr_mut(cpu)?;
        // SAFETY: the head is a map value; both words are written by others.
        let (begun, taken) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*head).begun),
                core::ptr::read_volatile(&raw const (*head).taken),
            )
        };
        if begun.wrapping_sub(taken) + SPARE_SLOTS > mask as u64 {
            return None;
        }
        // SAFETY: as above.
        let n = next(unsafe { &raw mut (*head).begun });
        let slot = TRACE_SLOTS.get_ptr_mut(cpu * (mask + 1) + (n as u32 & mask))?;
        // SAFETY: the slot is a map value of this type; the order of the volatile writes is what the reader
        // relies on.
        unsafe {
            core::ptr::write_volatile(&raw mut (*slot).hit, hit);
            core::ptr::write_volatile(&raw mut (*slot).seq, n + 1);
        }
        Some(())
    }
}

/// Selects a counter; the pointers are to a map value.
pub(crate) mod counter {
    use panicwatch_common::trace::Counts;

    macro_rules! counters { ($($field:ident)*) => { $(
        pub(crate) fn $field(counts: *mut Counts) -> *mut u64 {
            // SAFETY: this only computes an address.
            unsafe { &raw mut (*counts).$field }
        }
    )* } }
    counters! { entries exits lost_entries lost_exits }
}

/// Program at the entry of a function.
#[uprobe]
pub(crate) fn trace_entry(ctx: ProbeContext) -> u32 {
    let Some(traced) = Traced::new(&ctx) else { return 0 };
    if traced.config.count_only != 0 && traced.config.goid == 0 {
        traced.count(counter::entries);
    } else if let Some(hit) = traced.hit(kind::ENTRY) {
        traced.count(counter::entries);
        if traced.config.count_only == 0 {
            traced.emit(hit, counter::lost_entries);
        }
    }
    0
}

/// Program at an exit: on a `ret`, or on a jump that leaves the function for good.
#[uprobe]
pub(crate) fn trace_exit(ctx: ProbeContext) -> u32 {
    if let Some(traced) = Traced::new(&ctx)
        && let Some(hit) = traced.hit(kind::EXIT)
    {
        traced.count(counter::exits);
        traced.emit(hit, counter::lost_exits);
    }
    0
}

/// `runtime.recovery`, on g0. RAX = the goroutine, which continues in the frame that deferred the call that
/// recovered.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1100>
#[uprobe]
pub(crate) fn trace_recovery(ctx: ProbeContext) -> u32 {
    if let Some(traced) = Traced::new(&ctx) {
        let gp = traced.reg(pt_regs::RAX);
        let config = traced.config;
        let sp = if config.panic_sp == NO_OFFSET {
            read::word(gp + config.g_sigcode0 as u64)
        } else {
            read::word(gp + G_PANIC).and_then(|panic| read::word(panic + config.panic_sp as u64))
        };
        of_another(&traced, gp, kind::RECOVERY, sp.unwrap_or(0));
    }
    0
}

/// `runtime.goexit0`, on g0; RAX = the goroutine that has ended.
#[uprobe]
pub(crate) fn trace_gone(ctx: ProbeContext) -> u32 {
    if let Some(traced) = Traced::new(&ctx) {
        of_another(&traced, traced.reg(pt_regs::RAX), kind::GONE, 0);
    }
    0
}

/// Sends a record about goroutine `gp`, which is not the current one. A `depth` of 0 means that `sp` is
/// unknown.
#[inline(always)]
fn of_another(traced: &Traced, gp: u64, kind: u8, sp: u64) {
    let goid = read::word(gp + traced.config.g_goid as u64).unwrap_or(0);
    let [lo, hi] = read::words(gp).unwrap_or([0; 2]);
    if goid == 0 || (traced.config.goid != 0 && traced.config.goid != goid) {
        return;
    }
    let hit = Hit {
        // SAFETY: no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        goid,
        tgid: (traced.id >> 32) as u32,
        tid: traced.id as u32,
        function: traced.function,
        depth: if sp >= lo && sp < hi { (hi - sp) as u32 } else { 0 },
        kind,
        flags: 0,
        reserved: 0,
        reserved_too: 0,
    };
    traced.count(counter::entries);
    traced.emit(hit, counter::lost_entries);
}
