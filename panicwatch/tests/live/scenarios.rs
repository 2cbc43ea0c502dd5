//! The Go runtime's own crash programs, as data: how each one ends, and since which release it exists.
//!
//! testprog: <https://github.com/golang/go/tree/go1.24.11/src/runtime/testdata/testprog>

use panicwatch::incident::{
    Kind::{self, FatalError, Panic, Signal, Throw},
    Outcome,
    State::{self, Aborted, Recovered, Repanicked},
};

/// A recovered (or abandoned) incident that the scenario must produce besides its death: text and state of
/// each panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lesser {
    /// Text and state of each panic of the chain, oldest first.
    pub(crate) chain: &'static [(&'static str, State)],
    /// Outcomes that are accepted.
    pub(crate) outcome: &'static [Outcome],
}

/// One crash program and its expected end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// argv[1]: selects the crash.
    pub(crate) name: &'static str,
    /// Directory under runtime/testdata.
    pub(crate) program: &'static str,
    /// First minor release that has it.
    pub(crate) since: u16,
    /// Last minor release in which it ends like this.
    pub(crate) until: u16,
    /// Kind of the death; `None` if the program survives.
    pub(crate) kind: Option<Kind>,
    /// Exit status as a shell shows it.
    pub(crate) status: i32,
    /// Expected lesser incidents, in order.
    pub(crate) lesser: &'static [Lesser],
    /// Maximum number of attempts until the expected end; more than one for programs with data races.
    pub(crate) attempts: u32,
    /// Whether the location of the crash is random: the stack may differ between two runs.
    pub(crate) anywhere: bool,
    /// Whether the scenario runs on other releases than the newest only in the full matrix.
    pub(crate) full_only: bool,
    /// Build flags of the program.
    pub(crate) flags: &'static [&'static str],
    /// Environment variables added for the run.
    pub(crate) env: &'static [(&'static str, &'static str)],
}

const BASE: Scenario = Scenario {
    name: "",
    program: "testprog",
    since: 19,
    until: u16::MAX,
    kind: None,
    status: 2,
    lesser: &[],
    attempts: 1,
    anywhere: false,
    full_only: false,
    flags: &[],
    env: &[],
};

const fn dies(kind: Kind, name: &'static str) -> Scenario {
    Scenario { name, kind: Some(kind), ..BASE }
}

/// A panic with one more kind of value; the fixture `values` covers these on every release as well.
const fn kind_of_value(name: &'static str) -> Scenario {
    Scenario { full_only: true, ..dies(Panic, name) }
}

const fn cgo(kind: Kind, name: &'static str) -> Scenario {
    Scenario { program: "testprogcgo", ..dies(kind, name) }
}

const fn checkptr(name: &'static str) -> Scenario {
    Scenario { flags: &["-gcflags=all=-d=checkptr=1"], full_only: true, ..dies(Throw, name) }
}

const fn lesser(scenario: Scenario, lesser: &'static [Lesser]) -> Scenario {
    Scenario { lesser, ..scenario }
}

const fn since(since: u16, scenario: Scenario) -> Scenario {
    Scenario { since, ..scenario }
}

const fn only(minor: u16, scenario: Scenario) -> Scenario {
    Scenario { since: minor, until: minor, ..scenario }
}

/// testprog is built without a module, and so with the defaults of old releases; synctest rejects one of
/// them.
const fn synctest(name: &'static str) -> Scenario {
    Scenario { since: 25, env: &[("GODEBUG", "asynctimerchan=0")], ..dies(FatalError, name) }
}

const fn racy(scenario: Scenario) -> Scenario {
    Scenario { attempts: 100, anywhere: true, ..scenario }
}

const fn anywhere(scenario: Scenario) -> Scenario {
    Scenario { anywhere: true, ..scenario }
}

const fn recovered(chain: &'static [(&'static str, State)]) -> Lesser {
    Lesser { chain, outcome: &[Outcome::Recovered] }
}

/// Recovered during a Goexit: the panic is recovered, but the goroutine still ends.
const fn recovered_in_goexit(chain: &'static [(&'static str, State)]) -> Lesser {
    Lesser { chain, outcome: &[Outcome::Recovered, Outcome::Goexit] }
}

const NIL: &str = "runtime error: invalid memory address or nil pointer dereference";
const NIL_RECOVERED: Lesser = recovered(&[(NIL, Recovered)]);

impl Scenario {
    /// Returns the name used in test names.
    pub(crate) fn label(&self) -> String {
        let program = if self.program == BASE.program { String::new() } else { format!("{}/", self.program) };
        let env: String = self.env.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("{program}{}{env}", self.name)
    }
}

/// Every scenario that ends in a panic, fatal error, throw, deadlock, fatal signal or Goexit crash.
pub(crate) const SCENARIOS: &[Scenario] = &[
    dies(Panic, "StringPanic"),
    Scenario { env: &[("GOTRACEBACK", "none")], ..dies(Panic, "StringPanic") },
    Scenario { env: &[("GOTRACEBACK", "all")], ..dies(Panic, "StringPanic") },
    Scenario { env: &[("GOTRACEBACK", "system")], ..dies(Panic, "StringPanic") },
    Scenario { env: &[("GOTRACEBACK", "crash")], status: 128 + 6, ..dies(Panic, "StringPanic") },
    dies(Panic, "panicCustomBool"),
    dies(Panic, "panicCustomInt"),
    kind_of_value("panicCustomInt8"),
    kind_of_value("panicCustomInt16"),
    kind_of_value("panicCustomInt32"),
    kind_of_value("panicCustomInt64"),
    kind_of_value("panicCustomUint"),
    kind_of_value("panicCustomUint8"),
    kind_of_value("panicCustomUint16"),
    kind_of_value("panicCustomUint32"),
    kind_of_value("panicCustomUint64"),
    kind_of_value("panicCustomUintptr"),
    kind_of_value("panicCustomFloat32"),
    dies(Panic, "panicCustomFloat64"),
    kind_of_value("panicCustomComplex64"),
    dies(Panic, "panicCustomComplex128"),
    dies(Panic, "panicCustomString"),
    dies(Throw, "ErrorPanic"),
    dies(Throw, "StringerPanic"),
    dies(Throw, "DoubleErrorPanic"),
    dies(Throw, "DoubleStringerPanic"),
    dies(Throw, "CircularPanic"),
    dies(Throw, "PanicLoop"),
    dies(Panic, "DoublePanic"),
    since(26, dies(Panic, "DoublePanicWithSameValue")),
    dies(Panic, "PanicTraceback"),
    lesser(dies(Panic, "RecursivePanic"), &[recovered(&[("bad", Repanicked), ("wrap: bad", Recovered)])]),
    lesser(
        dies(Panic, "RecursivePanic2"),
        &[recovered(&[("first panic", Recovered)]), recovered(&[("second panic", Recovered)])],
    ),
    lesser(dies(Panic, "RecursivePanic3"), &[recovered(&[("second panic", Recovered)])]),
    dies(Panic, "RecursivePanic4"),
    lesser(
        dies(Panic, "RecursivePanic5"),
        &[recovered(&[("first panic", Repanicked), ("second panic", Recovered)])],
    ),
    since(25, dies(Panic, "RepanickedPanic")),
    since(25, dies(Panic, "RepanickedMiddlePanic")),
    since(25, dies(Panic, "RepanickedPanicSandwich")),
    since(26, dies(FatalError, "panicDeferFatal")),
    since(26, dies(FatalError, "panicDoublieDeferFatal")),
    dies(Panic, "NilPanic"),
    since(21, dies(Panic, "panicOnNilAndEleSizeIsZero")),
    dies(Panic, "stringconcat"),
    dies(Panic, "GoschedInPanic"),
    dies(Panic, "SyscallInPanic"),
    dies(Panic, "MainGoroutineID"),
    dies(Panic, "NoHelperGoroutines"),
    Scenario { attempts: 4, ..dies(Panic, "PanicRace") },
    dies(FatalError, "GoNil"),
    dies(Panic, "PanicAfterGoexit"),
    lesser(dies(FatalError, "RecoveredPanicAfterGoexit"), &[recovered_in_goexit(&[("hello", Recovered)])]),
    lesser(
        dies(FatalError, "RecoverBeforePanicAfterGoexit"),
        &[recovered_in_goexit(&[("hello", Recovered)])],
    ),
    lesser(
        dies(FatalError, "RecoverBeforePanicAfterGoexit2"),
        &[recovered_in_goexit(&[("hello", Recovered)])],
    ),
    lesser(
        dies(FatalError, "GoexitInPanic"),
        &[Lesser { chain: &[("hello", Aborted)], outcome: &[Outcome::Goexit] }],
    ),
    dies(FatalError, "GoexitDeadlock"),
    dies(FatalError, "GoexitExit"),
    dies(FatalError, "SimpleDeadlock"),
    dies(FatalError, "LockedDeadlock"),
    dies(FatalError, "LockedDeadlock2"),
    dies(FatalError, "InitDeadlock"),
    racy(dies(FatalError, "concurrentMapWrites")),
    racy(dies(FatalError, "concurrentMapReadWrite")),
    racy(dies(FatalError, "concurrentMapIterateWrite")),
    dies(Throw, "StackOverflow"),
    anywhere(dies(Throw, "ThreadExhaustion")),
    anywhere(dies(Throw, "GCZombie")),
    anywhere(dies(Throw, "BadTraceback")),
    since(21, anywhere(dies(Signal, "Segv"))),
    since(21, anywhere(dies(Signal, "TgkillSegv"))),
    // INT $3 in its two-byte form: in a process with uprobes the kernel takes it for a breakpoint just
    // removed and restarts one byte back, so the program dies a few bytes further on.
    // https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c (handle_swbp)
    anywhere(dies(Signal, "Abort")),
    dies(Signal, "Breakpoint"),
    synctest("SynctestCond/signal/no_bubble"),
    synctest("SynctestCond/broadcast/no_bubble"),
    synctest("SynctestCond/signal/other_bubble"),
    synctest("SynctestCond/broadcast/other_bubble"),
    checkptr("CheckPtrAlignmentPtr"),
    checkptr("CheckPtrArithmetic"),
    checkptr("CheckPtrArithmetic2"),
    checkptr("CheckPtrSize"),
    checkptr("CheckPtrSmall"),
    Scenario {
        status: 0,
        lesser: &[NIL_RECOVERED, NIL_RECOVERED, NIL_RECOVERED, NIL_RECOVERED],
        name: "Crash",
        ..BASE
    },
    cgo(Panic, "CgoExternalThreadPanic"),
    cgo(Panic, "CgoPanicDeadlock"),
    cgo(Panic, "CgoCatchPanic"),
    cgo(Panic, "PanicCallback"),
    since(21, cgo(Signal, "TracebackSigpanic")),
    only(19, cgo(Throw, "TracebackSigpanic")),
    since(21, cgo(Signal, "CrashTraceback")),
    only(19, cgo(Throw, "CrashTraceback")),
    anywhere(cgo(Signal, "SegvInCgo")),
    since(21, anywhere(cgo(Signal, "TgkillSegvInCgo"))),
    since(24, cgo(Throw, "CgoToGoCallGoexit")),
];
