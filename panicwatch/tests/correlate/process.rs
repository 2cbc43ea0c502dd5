//! A scripted process: the records that its panics produce, and the incidents that they must become.

use std::collections::BTreeMap;

use panicwatch::{
    capture::Program,
    event::{Body, Capture, Event, Point, ProcessEvent},
    incident::Outcome,
    memory::Snapshot,
};
use panicwatch_common::{
    Regs,
    event::{Head, kind},
    reg,
};

pub(crate) const PID: u32 = 4711;
pub(crate) const HI: u64 = 0xc000_0800_0000;

/// A goroutine as Go's runtime has it: the stack addresses of its panics, oldest first.
#[derive(Default)]
pub(crate) struct Goroutine {
    listed: Vec<Listed>,
}

#[derive(Clone, Copy)]
pub(crate) struct Listed {
    at: u64,
    start_sp: u64,
    goexit: bool,
}

/// Produces the events of a scripted process, and records the incidents that they must become.
pub(crate) struct Process<'a> {
    program: &'a Program,
    pub(crate) goroutines: BTreeMap<u64, Goroutine>,
    pub(crate) events: Vec<Event>,
    now: u64,
    /// Number and outcome of the incident, by the time of each raise.
    pub(crate) truth: BTreeMap<u64, (usize, Outcome)>,
    pub(crate) incidents: usize,
}

impl<'a> Process<'a> {
    pub(crate) fn new(program: &'a Program) -> Self {
        let (goroutines, events, truth) = Default::default();
        Self { program, goroutines, events, now: 1000, truth, incidents: 0 }
    }

    pub(crate) fn g(goid: u64) -> u64 {
        0xc000_0000_0000 + goid * 0x1000
    }

    pub(crate) fn head(&mut self, goid: u64, kind: u32, sp: u64) -> Head {
        self.now += 1000;
        let g = Self::g(goid);
        let (tgid, tid, time_ns) = (PID, PID + goid as u32, self.now);
        Head { kind, time_ns, tgid, tid, sp, g, goid, stack_hi: HI, ..Head::default() }
    }

    pub(crate) fn top(&self, goid: u64) -> Option<Listed> {
        self.goroutines.get(&goid)?.listed.last().copied()
    }

    pub(crate) fn capture(&mut self, goid: u64, kind: u32, sp: u64) -> Event {
        let head = self.head(goid, kind, sp);
        let layout = self.program.bin.layout();
        let mut memory = Snapshot::new();
        let mut g = vec![0; 512];
        let top = self.top(goid).map_or(0, |top| top.at);
        for (field, word) in [(layout.g.panic, top), (layout.g.stack_hi, HI)] {
            g[usize::from(field)..][..8].copy_from_slice(&word.to_le_bytes());
        }
        memory.add(head.g, g);
        let goroutine = self.goroutines.entry(goid).or_default();
        for listed in &goroutine.listed {
            memory.add(listed.at, panic_bytes(self.program, listed, goroutine.below(listed)));
        }
        let m = vec![0; 512];
        memory.add(0x5000_0000, m);
        let capture =
            Capture { regs: Regs::default(), m_addr: 0x5000_0000, p_addr: 0, stack_addr: sp, stack_end: HI };
        Event { head, body: Body::Capture(Box::new(capture)), memory, lost_memory: 0 }
    }

    pub(crate) fn point(&mut self, goid: u64, kind: u32, args: [u64; 6], sp: u64) {
        let head = self.head(goid, kind, sp);
        let mut memory = Snapshot::new();
        let mut panic_addr = 0;
        if let Some(top) = self.top(goid) {
            panic_addr = top.at;
            memory.add(top.at, panic_bytes(self.program, &top, self.goroutines[&goid].below(&top)));
        }
        let body = Body::Point(Box::new(Point { args, panic_addr, defer_addr: 0 }));
        self.events.push(Event { head, body, memory, lost_memory: 0 });
    }

    /// gopanic is called by a function whose stack pointer is `start_sp`; returns the time of the raise.
    pub(crate) fn raise(&mut self, goid: u64, start_sp: u64) -> u64 {
        let event = self.capture(goid, kind::PANIC, start_sp - 8);
        let at = start_sp - 8 - 0x40;
        self.events.push(event);
        self.goroutines.entry(goid).or_default().listed.push(Listed { at, start_sp, goexit: false });
        self.now
    }

    /// The newest panic's deferred call begins; its stack pointer is in gopanic's frame.
    pub(crate) fn begin(&mut self, goid: u64) {
        self.point(goid, kind::DEFER_BEGIN, [1, 2, 0, 0, 0, 0], 0);
    }

    pub(crate) fn end(&mut self, goid: u64, recovered: bool) {
        self.point(goid, kind::DEFER_END, [recovered.into(), 0, 0, 0, 0, 0], 0);
    }

    /// recover() catches the panic, the deferred call returns, and execution continues in the frame at `sp`:
    /// every panic raised below ends.
    pub(crate) fn recover(&mut self, goid: u64, sp: u64) {
        self.point(goid, kind::RECOVER, [0; 6], 0);
        self.end(goid, true);
        self.recovery(goid, sp);
    }

    pub(crate) fn recovery(&mut self, goid: u64, sp: u64) {
        let g = self.goroutines.entry(goid).or_default();
        // The runtime compares gopanic's own stack pointer, which is below its caller's.
        let stays = |listed: &Listed| listed.goexit || listed.start_sp > sp;
        let keep = g.listed.iter().rposition(stays).map_or(0, |last| last + 1);
        if !self.program.bin.version().release.recovers_to_panic_sp() {
            g.listed.truncate(keep);
            self.point(goid, kind::RECOVERY, [0; 6], 0);
        } else {
            self.point(goid, kind::RECOVERY, [0; 6], 0);
            // `_panic.sp` of the newest panic is the frame in which execution continues.
            let sp_field = u64::from(self.program.bin.layout().panic.sp);
            if let (Some(top), Some(event)) = (self.top(goid), self.events.last_mut()) {
                let mut memory = Snapshot::new();
                memory.add(top.at + sp_field, sp.to_le_bytes());
                for (at, bytes) in event.memory.segments() {
                    memory.add(at, bytes);
                }
                event.memory = memory;
            }
            self.goroutines.entry(goid).or_default().listed.truncate(keep);
        }
    }

    pub(crate) fn goexit(&mut self, goid: u64, start_sp: u64) {
        self.point(goid, kind::GOEXIT, [0; 6], start_sp - 8);
        let at = start_sp - 8 - 0x40;
        self.goroutines.entry(goid).or_default().listed.push(Listed { at, start_sp, goexit: true });
    }

    pub(crate) fn exit(&mut self, goid: u64, status: u64) {
        self.point(goid, kind::EXIT, [status, 0, 0, 0, 0, 0], 0);
    }

    pub(crate) fn throw(&mut self, goid: u64) {
        let mut event = self.capture(goid, kind::THROW, HI - 0x2000);
        event.head.site = panicwatch_common::binary::site::IS_FATAL;
        self.events.push(event);
    }

    pub(crate) fn die(&mut self, goid: u64, throwing: u32) {
        let mut event = self.capture(goid, kind::DIE, HI - 0x2000);
        let mut memory = Snapshot::new();
        memory.add(0x5000_0000 + u64::from(self.program.bin.layout().m.throwing), throwing.to_le_bytes());
        for (at, bytes) in event.memory.segments() {
            memory.add(at, bytes);
        }
        event.memory = memory;
        if let Body::Capture(capture) = &mut event.body {
            capture.regs.words[reg::RAX] = event.head.g;
        }
        self.events.push(event);
    }

    pub(crate) fn gone(&mut self, kind: u32, status: Option<u32>) {
        let mut head = self.head(0, kind, 0);
        (head.g, head.goid, head.stack_hi) = (0, 0, 0);
        let body = Body::Process(ProcessEvent { wait_status: status, args: None, env: None });
        self.events.push(Event { head, body, memory: Snapshot::new(), lost_memory: 0 });
    }

    /// Records that these raises belong to one incident with this outcome.
    pub(crate) fn was(&mut self, raises: &[u64], outcome: Outcome) {
        for raise in raises {
            self.truth.insert(*raise, (self.incidents, outcome));
        }
        self.incidents += 1;
    }
}

impl Goroutine {
    fn below(&self, of: &Listed) -> u64 {
        let at = self.listed.iter().position(|listed| listed.at == of.at).expect("it is listed");
        at.checked_sub(1).map_or(0, |older| self.listed[older].at)
    }
}

pub(crate) fn panic_bytes(program: &Program, listed: &Listed, link: u64) -> Vec<u8> {
    let layout = program.bin.layout().panic;
    let mut bytes = vec![0; 112];
    bytes[usize::from(layout.link)..][..8].copy_from_slice(&link.to_le_bytes());
    bytes[usize::from(layout.goexit)] = listed.goexit.into();
    bytes
}
