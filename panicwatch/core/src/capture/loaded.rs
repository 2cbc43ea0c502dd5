//! A watched binary for the correlator, and the view of an event through it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use panicwatch_common::{counted::Place, event::Head};

use crate::{
    capture::event::Event,
    go::{
        gobin::{GoBinary, ReadOnlyMemory},
        gotype::TypeContext,
        memory::{Layered, Memory, Snapshot},
        raises,
    },
    incident::{
        Addr, Frame,
        frame_class::{self, Class},
    },
    plan::{ProbePlan, Site},
};

/// Maximum number of cached checks: a program that panics often usually does so at few addresses.
const MAX_CHECKS: usize = 4096;
/// Page size in bytes; load addresses are multiples of it.
const PAGE: u64 = 4096;

/// A Go binary with its probe plan.
#[derive(Debug)]
pub struct Program {
    /// Tables of the binary.
    pub bin: GoBinary,
    /// Probe sites, and what stands in the way of others.
    pub plan: ProbePlan,
    /// Path by which it was opened.
    pub path: PathBuf,
    /// Cache of what raises at an address.
    checks: Mutex<HashMap<u64, Option<String>>>,
    /// Sequence number of the last use.
    asked: AtomicU64,
    /// Size of gopanic's frame in bytes, computed on first use.
    gopanic_frame: OnceLock<Option<u64>>,
}

/// Sequence number of uses over all programs.
static ASKED: AtomicU64 = AtomicU64::new(0);

impl Program {
    /// Builds a program from a binary, its probe plan, and the path by which it was opened.
    pub fn new(bin: GoBinary, plan: ProbePlan, path: PathBuf) -> Self {
        Self {
            bin,
            plan,
            path,
            checks: Mutex::default(),
            asked: AtomicU64::new(0),
            gopanic_frame: OnceLock::new(),
        }
    }

    /// Returns the sequence number of the last use: the program with the lowest one is the least recently
    /// used.
    pub fn last_asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Drops cached data that can be recomputed.
    pub fn forget(&self) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = HashMap::new();
    }

    /// Returns a sentence on what raises at the link-time address `pc` and what it compares; `None` when the
    /// code does not determine it.
    pub fn check(&self, pc: u64) -> Option<String> {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.len() >= MAX_CHECKS {
            checks.clear();
        }
        let find = || raises::raised_by(&self.bin, pc).ok().map(|raised| raised.words);
        checks.entry(pc).or_insert_with(find).clone()
    }

    /// Returns the size in bytes of gopanic's frame below its return address; the frame contains its
    /// `_panic`.
    pub(crate) fn gopanic_frame(&self) -> Option<u64> {
        let find = || self.bin.function("runtime.gopanic").and_then(|func| func.frame_size());
        *self.gopanic_frame.get_or_init(find)
    }

    /// Returns the binary's load bias in the process of this event, derived from the address of the probe
    /// that fired.
    fn bias(&self, head: &Head) -> u64 {
        self.bias_by(head.ip, |site| site.flags == head.site)
    }

    fn bias_by(&self, ip: u64, likely: impl Fn(&Site) -> bool) -> u64 {
        if !self.bin.is_pie() {
            return 0;
        }
        let here = |all: bool| {
            let sites = self.plan.sites.iter().filter(|site| all || likely(site));
            sites.map(|site| ip.wrapping_sub(site.address)).find(|bias| bias % PAGE == 0)
        };
        here(false).or_else(|| here(true)).unwrap_or(0)
    }

    /// Returns the frames at run-time address `pc` of a process with load bias `bias`, innermost first; empty
    /// outside Go code. `exact`: `pc` is an instruction, not a return address.
    pub fn frames(&self, bias: u64, pc: u64, exact: bool) -> Vec<Frame> {
        let link = pc.wrapping_sub(bias);
        let frames = self.bin.frames(link, exact);
        frames
            .into_iter()
            .map(|frame| Frame {
                function: frame.function.into_owned(),
                file: frame.file.map(|file| file.into_owned()),
                line: frame.line,
                pc: Addr(pc),
                offset: link.wrapping_sub(frame.entry),
                inlined: frame.inlined,
            })
            .collect()
    }

    /// Returns where a panic that was only counted was raised: the innermost frame outside the runtime, as
    /// far as the two recorded addresses determine it.
    pub fn raised_at(&self, place: Place) -> Option<Frame> {
        if place.pc == 0 {
            return None;
        }
        let bias = self.bias_by(place.ip, |site| site.program == "gopanic");
        let mut frames = self.frames(bias, place.pc, false);
        frames.extend(self.frames(bias, place.caller, false));
        let user = frames.iter().find(|frame| frame_class::of_frame(frame, None) != Class::Runtime);
        user.or_else(|| frames.first()).cloned()
    }

    /// Returns a view of `event` through this binary.
    pub fn view<'a>(&'a self, event: &'a Event) -> View<'a> {
        self.asked.store(ASKED.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        View { event, program: self, bias: self.bias(&event.head) }
    }
}

/// One event with its binary, which gives its addresses meaning.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The event whose memory and registers are seen.
    pub event: &'a Event,
    /// The binary of the event's process.
    pub program: &'a Program,
    /// Load bias: run-time address minus link-time address.
    pub bias: u64,
}

impl<'a> View<'a> {
    /// Returns the captured memory, backed by the binary's constant memory.
    pub fn memory(&self) -> Layered<&'a Snapshot, ReadOnlyMemory<'a>> {
        Layered { first: &self.event.memory, second: self.program.bin.read_only_memory(self.bias) }
    }

    /// Returns the context for decoding types.
    pub fn types(&self) -> TypeContext {
        TypeContext::of(&self.program.bin, self.bias)
    }

    /// Returns a 64-bit field of the goroutine's g.
    pub fn g(&self, field: u16) -> Option<u64> {
        self.word(self.event.head.g, field)
    }

    /// Returns a 64-bit field of the struct at `base`.
    pub fn word(&self, base: u64, field: u16) -> Option<u64> {
        if base == 0 {
            return None;
        }
        self.memory().u64(base.checked_add(u64::from(field))?)
    }

    /// Returns a byte-sized field of the struct at `base`.
    pub fn byte(&self, base: u64, field: u16) -> Option<u8> {
        if base == 0 {
            return None;
        }
        self.memory().u8(base.checked_add(u64::from(field))?)
    }

    /// Returns the frames at run-time address `pc`, innermost first; empty outside Go code.
    pub fn frames(&self, pc: u64, exact: bool) -> Vec<Frame> {
        self.program.frames(self.bias, pc, exact)
    }

    /// Returns the innermost frame at a return address.
    pub fn caller(&self, pc: u64) -> Option<Frame> {
        (pc != 0).then(|| self.frames(pc, false).into_iter().next())?
    }

    /// Returns the frame of a function, given its entry, with the line of its declaration if the tables have
    /// it.
    pub fn function(&self, entry: u64) -> Option<Frame> {
        (entry != 0).then(|| self.frames(entry, true).pop())?
    }
}
