//! Plans the recorder's probe sites in Go's runtime: the phases of the garbage collector, and scheduling
//! events of goroutines.
//!
//! All on instructions that the kernel emulates: parking and readying goroutines are the most frequent
//! operations of a busy server.

use panicwatch_common::{binary::site, recorder::kind};

use super::{
    Body, Planner, Price, ProbePlan, Purpose, Site,
    trace::{Wanted as Trace, is_named, trace_plan},
};
use crate::{
    go::{
        gobin::{Arch, Func, GoBinary},
        pattern::Pattern,
    },
    recorder::Source,
};

/// A runtime function to probe, and the record that its probe writes.
struct Wanted {
    name: &'static str,
    program: &'static str,
    symbol: &'static str,
    lost: &'static str,
    kind: u32,
    flags: u32,
}

const fn gc(name: &'static str, symbol: &'static str, lost: &'static str, kind: u32) -> Wanted {
    Wanted { name, program: "gc", symbol, lost, kind, flags: 0 }
}

const fn turn(name: &'static str, symbol: &'static str, lost: &'static str, kind: u32, why: u32) -> Wanted {
    Wanted { name, program: "turn", symbol, lost, kind, flags: why << site::YIELD_SHIFT }
}

const GC: [Wanted; 5] = [
    gc("GC cycle starts", "runtime.gcBgMarkStartWorkers", "when GC cycles start", kind::GC_START),
    gc("GC mark ends", "runtime.gcMarkTermination", "when GC mark ends", kind::GC_MARK_DONE),
    gc("STW begins", "runtime.stopTheWorldWithSema", "when the world is stopped, and why", kind::STW_BEGIN),
    gc("STW ends", "runtime.startTheWorldWithSema", "when the world is started", kind::STW_END),
    gc("mark worker", "runtime.gcDrain", "which goroutines are mark workers", kind::GC_WORKER),
];

const GOROUTINES: [Wanted; 5] = [
    Wanted {
        name: "goroutine parks",
        program: "park",
        symbol: "runtime.gopark",
        lost: "wait reasons of goroutines",
        kind: kind::GO_PARK,
        flags: 0,
    },
    Wanted {
        name: "goroutine runnable",
        program: "ready",
        symbol: "runtime.ready",
        lost: "wake-ups of goroutines",
        kind: kind::GO_READY,
        flags: 0,
    },
    turn("goroutine runs", "runtime.execute", "when goroutines run", kind::GO_RUN, 0),
    turn("goroutine ends", "runtime.goexit0", "when goroutines end", kind::GO_END, 0),
    turn("goroutine stopped", "runtime.preemptPark", "stops for stack scans", kind::GO_YIELD, 3),
];

/// Goroutine yields since Go 1.22: BL is set if it was preempted.
const YIELDS: [Wanted; 1] = [Wanted {
    name: "goroutine descheduled",
    program: "turn",
    symbol: "runtime.goschedImpl",
    lost: "preemptions and calls of runtime.Gosched",
    kind: kind::GO_YIELD,
    flags: site::PREEMPTED_BL,
}];

/// Goroutine yields before Go 1.22.
const OLD_YIELDS: [Wanted; 2] = [
    turn("goroutine preempted", "runtime.gopreempt_m", "preemptions", kind::GO_YIELD, 1),
    turn("goroutine yields", "runtime.gosched_m", "calls of runtime.Gosched", kind::GO_YIELD, 2),
];

/// Plans the probes that `source` of the recorder needs in `bin`; `functions` are the patterns that the user
/// named.
pub fn recorder_plan(bin: &GoBinary, source: Source, functions: &[Pattern]) -> ProbePlan {
    let mut planner = Planner { bin, plan: ProbePlan::default() };
    if bin.arch() != Arch::Amd64 {
        return planner.plan;
    }
    match source {
        Source::Gc => planner.all(&GC),
        Source::Assist => {
            planner.all(&[gc("mark assist", "runtime.gcAssistAlloc", "mark assists", kind::GC_ASSIST)])
        }
        Source::Goroutine => {
            planner.all(&GOROUTINES);
            planner.all(if bin.version().release.gosched_takes_preempted() { &YIELDS } else { &OLD_YIELDS });
            planner.create();
        }
        Source::Function => planner.functions(functions),
        _ => {}
    }
    planner.plan
}

/// Plans the probe that reports which binary a process executes, at its start.
pub fn begin_plan(bin: &GoBinary) -> ProbePlan {
    let mut planner = Planner { bin, plan: ProbePlan::default() };
    if bin.arch() == Arch::Amd64 {
        planner.start(&Purpose {
            name: "process starts",
            program: "process_begins",
            symbol: "runtime.schedinit",
            lost: "the goroutines in the flight recorder's records",
            flags: 0,
        });
    }
    planner.plan
}

impl Planner<'_> {
    fn all(&mut self, wanted: &[Wanted]) {
        for one in wanted {
            let &Wanted { name, program, symbol, lost, .. } = one;
            let reason =
                one.kind == kind::STW_BEGIN && self.bin.version().release.has_stop_the_world_reason();
            let reason = if reason { site::HAS_REASON } else { 0 };
            let flags = one.flags | one.kind << site::KIND_SHIFT | reason;
            self.start(&Purpose { name, program, symbol, lost, flags });
        }
    }

    /// Plans the entries of the functions that the user named, if the kernel emulates them.
    fn functions(&mut self, patterns: &[Pattern]) {
        let select = |func: &Func<'_>| is_named(func, patterns);
        let purpose = Purpose {
            name: "function entered",
            program: "function",
            symbol: "",
            lost: "when it is entered",
            flags: kind::FUNCTION << site::KIND_SHIFT,
        };
        let found = trace_plan(self.bin, &select, Trace::default());
        let expensive =
            "the kernel would have to single-step at its entry, which costs too much for a flight recorder";
        for site in &found.sites {
            let function = &found.functions[site.function as usize];
            if site.price != Price::Emulated || site.below / 8 > site::BELOW_MASK {
                self.plan.refused.push((function.name.clone(), expensive));
                continue;
            }
            let on_check = if site.on_check { site::ON_STACK_CHECK } else { 0 };
            self.plan.sites.push(Site {
                name: purpose.name,
                program: purpose.program,
                symbol: function.symbol.clone(),
                address: site.address,
                offset: site.address - function.entry,
                file_offset: site.file_offset,
                bytes: site.bytes.clone(),
                instruction: String::new(),
                price: site.price,
                flags: purpose.flags | on_check | (site.below / 8) << site::BELOW_SHIFT,
                why: "the entry of a requested function",
            });
        }
        self.plan.refused.extend(found.refused);
    }

    /// Plans `runqput(pp, newg, true)` in newproc's closure: the new goroutine is complete and in RBX.
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go#L5007>
    fn create(&mut self) {
        let purpose = Purpose {
            name: "goroutine created",
            program: "create",
            symbol: "runtime.newproc.func1",
            lost: "when goroutines are created",
            flags: 0,
        };
        let body = match Body::decode(self.bin, purpose.symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&purpose, reason),
        };
        let target = self.bin.function("runtime.runqput").map(|f| f.entry());
        let call = body.index_of(|i| i.is_call_near() && Some(i.near_branch_target()) == target);
        match call {
            Some(at) => {
                let why = "the call that puts the new goroutine into the run queue: it is in RBX";
                self.place(&purpose, body.func, &body.code[at], 0, why);
            }
            None => self.leave_out(&purpose, "it does not call runqput as expected"),
        }
    }
}
