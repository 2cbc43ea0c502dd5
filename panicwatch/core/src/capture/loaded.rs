//! A watched binary as the correlator needs it, and one event seen through it.

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

/// Places whose check is remembered: a program that panics often does so in few.
const MAX_CHECKS: usize = 4096;
/// Page size that load addresses are multiples of.
const PAGE: u64 = 4096;

/// A Go binary with its probe plan.
#[derive(Debug)]
pub struct Program {
    /// Its tables.
    pub bin: GoBinary,
    /// Where the probes are.
    pub plan: ProbePlan,
    /// As it was opened.
    pub path: PathBuf,
    /// What raises at an address, as far as it was asked.
    checks: Mutex<HashMap<u64, Option<String>>>,
    /// Number of the question that was asked last.
    asked: AtomicU64,
    /// Size of gopanic's frame.
    gopanic_frame: OnceLock<Option<u64>>,
}

/// Questions asked so far, of all programs.
static ASKED: AtomicU64 = AtomicU64::new(0);

impl Program {
    /// A binary, its plan, and the name it was opened by.
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

    /// Grows with every question: the program with the least was not asked for longest.
    pub fn last_asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Forgets what can be found out again.
    pub fn forget(&self) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = HashMap::new();
    }

    /// What raises at the link-time address `pc` and what it compares, in words; `None` when the code does not tell.
    pub fn check(&self, pc: u64) -> Option<String> {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.len() >= MAX_CHECKS {
            checks.clear();
        }
        let find = || raises::raised_by(&self.bin, pc).ok().map(|raised| raised.words);
        checks.entry(pc).or_insert_with(find).clone()
    }

    /// Bytes of gopanic's frame below its return address: that is where its `_panic` lies.
    pub(crate) fn gopanic_frame(&self) -> Option<u64> {
        let find = || self.bin.function("runtime.gopanic").and_then(|func| func.frame_size());
        *self.gopanic_frame.get_or_init(find)
    }

    /// How far the process of this event has the binary above its link-time addresses: the probe that fired says so.
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

    /// The frames at run-time address `pc` of a process that has the binary `bias` above its link-time addresses, innermost
    /// first; empty outside Go code. `exact`: it is an instruction, not a return address.
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

    /// Where a panic was raised that was counted only: the innermost frame outside the runtime, as far as the two
    /// addresses that were kept tell.
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

    /// `event` seen through this binary.
    pub fn view<'a>(&'a self, event: &'a Event) -> View<'a> {
        self.asked.store(ASKED.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        View { event, program: self, bias: self.bias(&event.head) }
    }
}

/// One event of one binary: addresses mean something.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The event.
    pub event: &'a Event,
    /// The binary.
    pub program: &'a Program,
    /// Run-time address minus link-time address.
    pub bias: u64,
}

impl<'a> View<'a> {
    /// What was captured, then what never changes.
    pub fn memory(&self) -> Layered<&'a Snapshot, ReadOnlyMemory<'a>> {
        Layered { first: &self.event.memory, second: self.program.bin.read_only_memory(self.bias) }
    }

    /// For decoding types.
    pub fn types(&self) -> TypeContext {
        TypeContext::of(&self.program.bin, self.bias)
    }

    /// The goroutine's g: a 64-bit field.
    pub fn g(&self, field: u16) -> Option<u64> {
        self.word(self.event.head.g, field)
    }

    /// A 64-bit field of the struct at `base`.
    pub fn word(&self, base: u64, field: u16) -> Option<u64> {
        if base == 0 {
            return None;
        }
        self.memory().u64(base.checked_add(u64::from(field))?)
    }

    /// A byte-sized field.
    pub fn byte(&self, base: u64, field: u16) -> Option<u8> {
        if base == 0 {
            return None;
        }
        self.memory().u8(base.checked_add(u64::from(field))?)
    }

    /// The frames at run-time address `pc`, innermost first; empty outside Go code.
    pub fn frames(&self, pc: u64, exact: bool) -> Vec<Frame> {
        self.program.frames(self.bias, pc, exact)
    }

    /// The innermost frame at a return address.
    pub fn caller(&self, pc: u64) -> Option<Frame> {
        (pc != 0).then(|| self.frames(pc, false).into_iter().next())?
    }

    /// A function by its entry, with the line of its declaration where the tables have it.
    pub fn function(&self, entry: u64) -> Option<Frame> {
        (entry != 0).then(|| self.frames(entry, true).pop())?
    }
}
