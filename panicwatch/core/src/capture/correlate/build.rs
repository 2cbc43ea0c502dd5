//! Builds the incident document from what was seen. The only module that fills in [`Incident`].

use panicwatch_common::event::{flag, kind};

use super::{
    Random,
    chain::MAX_CHAIN,
    death,
    goroutine::{self, Stacks},
    signals,
    state::{Dying, Ended, OpenPanic},
};
use crate::{
    capture::{
        Program, View,
        event::{Body, Event},
    },
    clock::Clock,
    go::{
        disasm, inittasks,
        memory::{Memory, prefix},
        value::{Decoded, Decoder, Eface},
    },
    incident::{
        Addr, Capture, DeferEnd, Exit, Frame, Incident, Init, Instruction, Kind, Missing, Outcome, Panic,
        Process, SCHEMA, State,
        fingerprint::fingerprint,
        frame_class::{self, Class},
    },
};

/// Numbers of instructions shown before (`BEFORE`) and after (`AFTER`) the raising one.
const BEFORE: usize = 5;
const AFTER: usize = 3;

/// What is known of an incident besides its panics.
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) info: Process,
    pub(super) outcome: Outcome,
    /// When it ended; `None` if that was not seen.
    pub(super) end_ns: Option<u64>,
    pub(super) exit: Option<Exit>,
    /// Why the outcome is unknown; `None` if it is known.
    pub(super) reason: Option<String>,
}

/// Completes the process description with the binary's build info.
fn process(context: &Context, program: &Program, pid: u32) -> Process {
    let info = program.bin.build_info();
    let known = &context.info;
    let main = info.main.as_ref();
    Process {
        pid,
        exe: known.exe.clone().or_else(|| Some(program.path.display().to_string())),
        go_version: Some(program.bin.version().raw.clone()),
        module: info.module_path().map(str::to_owned),
        module_version: main.map(|m| m.version.clone()).filter(|version| !version.is_empty()),
        vcs_revision: info.setting("vcs.revision").map(str::to_owned),
        build_id: program.bin.gnu_build_id().or_else(|| program.bin.go_build_id()),
        ..known.clone()
    }
}

/// Returns an incident without panics, to be completed by the other functions.
pub(super) fn blank(context: &Context, program: &Program, first: &Event) -> Incident {
    let start_ns = first.head.time_ns;
    let process = process(context, program, first.head.tgid);
    let mut missing = Vec::new();
    for (absent, what) in [
        (process.args.is_none(), "process.args"),
        (process.env.is_none(), "process.env"),
        (process.start_time.is_none(), "process.start_time"),
    ] {
        if absent {
            missing.push(lack(what, "the process exited before it could be read"));
        }
    }
    if let Some(reason) = &context.reason {
        missing.push(lack("outcome", reason.clone()));
        if context.end_ns.is_none() {
            missing.push(lack("end_ns", reason.clone()));
        }
    }
    Incident {
        schema: SCHEMA.to_owned(),
        id: ulid(context, start_ns),
        time: context.clock.rfc3339(start_ns),
        start_ns,
        end_ns: context.end_ns,
        kind: Kind::Panic,
        outcome: context.outcome,
        exit: context.exit,
        message: None,
        process,
        host: None,
        goroutine: None,
        panics: Vec::new(),
        stack: Vec::new(),
        stack_elided: Some(0),
        ancestry: Vec::new(),
        init: None,
        timeline: None,
        capture: Capture::default(),
        fingerprint: String::new(),
        missing,
    }
}

fn ulid(context: &Context, time_ns: u64) -> String {
    let random = (context.random)() & ((1 << 80) - 1);
    ulid::Ulid::from_parts(context.clock.unix_ms(time_ns), random).to_string()
}

/// Returns an entry of `missing`.
pub(super) fn lack(what: impl Into<String>, reason: impl Into<String>) -> Missing {
    Missing { what: what.into(), reason: reason.into() }
}

/// Builds the incident of panics of one goroutine that ended together without killing the process.
pub(super) fn panics(ended: Ended, context: &Context, program: &Program) -> Incident {
    let Some(first) = ended.panics.first() else { unreachable!("an incident has at least one panic") };
    let mut incident = blank(context, program, &first.raise);
    let count = ended.panics.len();
    let (raise, capture) = (ended.panics[count - 1].raise.clone(), cost(&ended.panics));
    let first = first.raise.clone();
    lacks_panics(&mut incident, &ended);
    for (i, panic) in ended.panics.into_iter().enumerate() {
        let state = state(&panic, i + 1 == count, context.outcome);
        add_panic(&mut incident, panic, state, None, program);
    }
    let view = program.view(&raise);
    incident.capture = capture;
    describe_goroutine(&mut incident, &view, &program.view(&first), &raised_stack(&view, &context.info));
    set_defer_depth(&mut incident, Some(goroutine::defer_depth(&view)));
    seal(incident)
}

/// Records in `missing` how many panics of a chain were omitted, and which are kept.
pub(super) fn lacks_panics(incident: &mut Incident, ended: &Ended) {
    if ended.left_out > 0 {
        let (left_out, kept) = (ended.left_out, MAX_CHAIN / 2);
        let reason = format!(
            "left out {left_out} of the chain's panics: the {kept} oldest and the {kept} newest are kept"
        );
        incident.missing.push(lack("panics", reason));
    }
}

fn state(panic: &OpenPanic, newest: bool, outcome: Outcome) -> State {
    match outcome {
        Outcome::Recovered if newest => State::Recovered,
        _ if panic.recover.is_some() && !newest => State::Repanicked,
        Outcome::Recovered | Outcome::Goexit => State::Aborted,
        _ => State::Running,
    }
}

fn cost(panics: &[OpenPanic]) -> Capture {
    let raises = || panics.iter().map(|panic| panic.raise.head.cost_ns);
    let bytes = panics.iter().map(|panic| panic.raise.memory.len()).sum();
    Capture { delay_ns: raises().next_back(), cost_ns: Some(raises().sum()), bytes: Some(bytes) }
}

/// Walks the stack at the raise.
fn raised_stack(view: &View<'_>, info: &Process) -> Stacks {
    goroutine::stack_at(
        view,
        view.event.head.ip,
        view.event.head.sp,
        true,
        goroutine::visibility(info, false),
    )
}

/// For example in a deadlock, which the scheduler detects when all goroutines wait.
const NO_GOROUTINE: &str = "the thread ran no goroutine at that moment";

/// Fills in goroutine, stack, ancestry and init from `view`, and the goroutine's labels from `first`, the
/// view of its first panic, if any.
pub(super) fn describe_goroutine(
    incident: &mut Incident,
    view: &View<'_>,
    first: &View<'_>,
    stacks: &Stacks,
) {
    goroutine::describe(incident, view, stacks.visibility);
    goroutine::set_labels(incident, first);
    incident.stack = stacks.shown.clone();
    incident.stack_elided = stacks.elided;
    // What a raise lacks is stated with its panic.
    if view.event.head.kind != kind::PANIC {
        lacks_memory(incident, "stack", view.event);
    }
    if incident.goroutine.is_none() {
        incident.missing.push(lack("goroutine", NO_GOROUTINE));
    }
    for reason in &stacks.incomplete {
        incident.missing.push(lack("stack", reason.clone()));
    }
    if stacks.elided.is_none() {
        incident.missing.push(lack("stack_elided", "the number of elided frames is unknown"));
    }
    if stacks.incomplete.is_empty() && incident.goroutine.is_none() && incident.stack.is_empty() {
        incident.missing.push(lack("stack", NO_GOROUTINE));
    }
    incident.init = init(&stacks.all);
}

/// Sets the number of deferred calls pending at the raise; `None` where nothing was raised.
pub(super) fn set_defer_depth(incident: &mut Incident, depth: Option<Result<u64, String>>) {
    let Some(goroutine) = &mut incident.goroutine else { return };
    let reason = match depth {
        Some(Ok(depth)) => {
            goroutine.defer_depth = Some(depth);
            return;
        }
        Some(Err(reason)) => reason,
        None => "pending deferred calls are counted only when a panic is raised".to_owned(),
    };
    incident.missing.push(lack("goroutine.defer_depth", reason));
}

/// Returns the package being initialized on this stack: the function that doInit calls belongs to it.
fn init(all: &[Frame]) -> Option<Init> {
    let at = all.iter().position(|f| matches!(f.function.as_str(), "runtime.doInit1" | "runtime.doInit"))?;
    let package = all[..at].last().map(|f| inittasks::package_of(&f.function));
    let inits = all[..at].iter().filter(|f| f.function.contains(".init"));
    let mut chain: Vec<String> = all[at..].iter().map(|f| f.function.clone()).rev().collect();
    chain.extend(inits.map(|f| f.function.clone()).rev());
    Some(Init { package, chain })
}

/// Completes a document: computes its fingerprint.
pub(super) fn seal(mut incident: Incident) -> Incident {
    incident.fingerprint = fingerprint(&incident);
    incident
}

/// Converts a value as decoded at the raise to the value as resolved by the runtime.
pub(super) type Resolve<'a> = dyn Fn(&Decoded) -> Decoded + 'a;

/// Adds one panic; `resolved` applies the text to which the runtime resolved its value before the process
/// died.
pub(super) fn add_panic(
    incident: &mut Incident,
    panic: OpenPanic,
    state: State,
    resolved: Option<&Resolve<'_>>,
    program: &Program,
) {
    let path = format!("panics[{}]", incident.panics.len());
    let view = program.view(&panic.raise);
    let regs = match &panic.raise.body {
        Body::Capture(capture) => capture.regs,
        _ => return,
    };
    let decoded = decode_value(&view, incident, resolved);
    incident.missing.extend(decoded.missing_under(&format!("{path}.value")));
    if incident.panics.is_empty() {
        incident.message = decoded.message.clone();
        if decoded.message.is_none() || decoded.missing.iter().any(|missing| missing.what == "text") {
            incident.missing.push(lack("message", format!("see {path}.value")));
        }
    }
    let fault = panic.signal.as_ref().map(|event| program.view(event));
    let stack = raised_stack(&view, &incident.process);
    let site = site(&stack);
    let fault_pc = fault.as_ref().and_then(signals::pc);
    let instructions = match site.as_ref().map(|site| instructions(&view, site.pc.0, fault_pc)) {
        Some(Ok(found)) => found,
        Some(Err(reason)) => {
            incident.missing.push(lack(format!("{path}.instructions"), reason));
            Vec::new()
        }
        None => {
            let reason = stack.incomplete.first().map_or("the stack could not be unwound", String::as_str);
            incident.missing.push(lack(format!("{path}.site"), reason));
            Vec::new()
        }
    };
    let check = site.as_ref().and_then(|site| program.check(site.pc.0.wrapping_sub(view.bias)));
    lacks_memory(incident, &path, &panic.raise);
    lacks_calls(incident, &path, &panic, state);
    incident.panics.push(Panic {
        value: decoded.value,
        runtime_error: decoded.runtime_error,
        goexit: false,
        state,
        raised_ns: panic.raise.head.time_ns,
        site,
        signal: fault.as_ref().and_then(signals::signal),
        registers: fault.as_ref().and_then(signals::registers).unwrap_or_else(|| signals::named(&regs)),
        instructions,
        check,
        defers: panic.defers,
        recover: panic.recover,
    });
}

/// Why memory is missing behind the time limit of a capture.
const OUT_OF_TIME: &str =
    "the capture reached its time limit (max_capture_time); the memory it would have copied next is missing";

/// Adds why a capture does not have all the memory it was to copy.
pub(super) fn lacks_memory(incident: &mut Incident, what: &str, event: &Event) {
    if event.lost_memory > 0 {
        let reason = format!("{} memory records were lost: the event ring was full", event.lost_memory);
        incident.missing.push(lack(what, reason));
    }
    if event.head.flags & flag::OUT_OF_TIME != 0 {
        incident.missing.push(lack(what, OUT_OF_TIME));
    }
}

/// Records in `missing` what is unknown of a panic's deferred calls and of its recovery.
fn lacks_calls(incident: &mut Incident, path: &str, panic: &OpenPanic, state: State) {
    for (i, defer) in panic.defers.iter().enumerate() {
        let mut add =
            |field, reason| incident.missing.push(lack(format!("{path}.defers[{i}].{field}"), reason));
        if defer.function.is_none() && !defer.nil {
            add("function", "its code address could not be read, or is in none of the program's functions");
        }
        if defer.registered_by.is_none() {
            add("registered_by", "the address of its defer statement could not be read");
        }
        if defer.end_ns.is_none() && defer.ended.is_some() {
            add("end_ns", "the record of its end was lost");
        }
    }
    if state == State::Recovered && panic.recover.is_none() {
        incident.missing.push(lack(format!("{path}.recover"), "the call to recover was not seen"));
    }
}

/// Returns the raise site of this stack: the innermost frame outside the runtime, or in a stack of only
/// runtime frames, the first after gopanic. `None` if a walk met a gap or ended before it left the runtime.
fn site(stack: &Stacks) -> Option<Frame> {
    let is_runtime = |frame: &Frame| frame_class::of_frame(frame, None) == Class::Runtime;
    let known = &stack.all[..stack.contiguous.min(stack.all.len())];
    let of_runtime = || {
        let mut behind = known.iter().skip_while(|frame| frame_class::is_gopanic(&frame.function));
        stack.incomplete.is_empty().then(|| behind.next())?
    };
    known.iter().find(|frame| !is_runtime(frame)).or_else(of_runtime).cloned()
}

/// Decodes the panic's argument as passed to gopanic.
fn decode_value(view: &View<'_>, incident: &Incident, resolved: Option<&Resolve<'_>>) -> Decoded {
    let Body::Capture(capture) = &view.event.body else { return Decoded::default() };
    let reg = |index: usize| capture.regs.words[index];
    let eface =
        Eface { type_word: reg(panicwatch_common::reg::RAX), data_word: reg(panicwatch_common::reg::RBX) };
    let (memory, context) = (view.memory(), view.types());
    let decoder = Decoder::new(&memory, &context);
    let decoded = if eface.type_word == 0 {
        decoder.nil_argument(panicnil(view.program, incident))
    } else {
        decoder.decode(eface)
    };
    match resolved {
        Some(resolve) => resolve(&decoded),
        None => decoded,
    }
}

/// Returns GODEBUG panicnil, from the environment or the build's default; `None` when the environment is
/// unknown.
fn panicnil(program: &Program, incident: &Incident) -> Option<bool> {
    let setting = |text: &str| {
        text.split(',').rev().find_map(|item| item.trim().strip_prefix("panicnil=").map(|v| v == "1"))
    };
    let env = incident.process.env.as_ref()?;
    if let Some(set) = env.get("GODEBUG").and_then(|text| setting(text)) {
        return Some(set);
    }
    let build = program.bin.build_info();
    Some(build.setting("DefaultGODEBUG").and_then(setting).unwrap_or(false))
}

/// Returns the instructions around the raising one.
fn instructions(view: &View<'_>, pc: u64, fault_pc: Option<u64>) -> Result<Vec<Instruction>, String> {
    let bin = &view.program.bin;
    let link = pc.wrapping_sub(view.bias);
    let func = bin.find_func(link).ok_or("no function at this address")?;
    let bytes = bin.code(func.entry(), func.end()).ok_or("the code is not in the file")?;
    let code = disasm::Code { entry: func.entry().wrapping_add(view.bias), bytes };
    let raise = match fault_pc {
        Some(fault) if fault == pc => disasm::Raise::At(pc),
        _ => disasm::Raise::CallReturningTo(pc),
    };
    let name = |addr: u64| bin.place_name(addr.wrapping_sub(view.bias));
    disasm::around(code, raise, BEFORE, AFTER, &name).map_err(|error| error.to_string())
}

/// Builds the incident of a death.
pub(super) fn death(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    if dying.throw.is_some() || death::is_throwing(&dying, program) {
        death::throw(dying, context, program)
    } else if dying.die.is_some() {
        death::fatal_panic(dying, context, program)
    } else {
        death::signal(dying, context, program)
    }
}

/// Returns the state of a panic in a chain that killed the process: all but the newest were either recovered
/// or replaced by a later panic.
pub(super) fn fatal_state(panic: &OpenPanic, newest: bool) -> State {
    if newest {
        State::Fatal
    } else if panic.recover.is_some() || panic.defers.iter().any(|d| d.ended == Some(DeferEnd::Recovered)) {
        State::Repanicked
    } else {
        State::Aborted
    }
}

/// Converts an address for the document.
pub(super) fn addr(word: u64) -> Addr {
    Addr(word)
}

/// Maximum number of bytes read of a text.
const MAX_TEXT: usize = 4 << 20;

/// Returns the `len` bytes of text at `ptr`, as far as they were captured; `None` when not even the first one
/// was.
pub(super) fn go_string(memory: &dyn Memory, ptr: u64, len: u64) -> Option<Vec<u8>> {
    let known = prefix(memory, ptr, len, MAX_TEXT);
    (len == 0 || !known.is_empty()).then_some(known)
}
