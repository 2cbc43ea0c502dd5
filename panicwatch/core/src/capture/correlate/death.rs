//! The three ways in which the runtime ends a Go program: by a panic, a throw (or fatal error), or a signal.

use panicwatch_common::{
    binary::site,
    event::{CHAIN, flag, kind},
    go::INTERFACE_DATA,
    reg,
};

use super::{
    build::{
        Context, add_panic, blank, describe_goroutine, fatal_state, go_string, lack, lacks_memory,
        lacks_panics, seal, set_defer_depth,
    },
    goroutine::{self, Stacks},
    signals,
    state::{Dying, Ended, OpenPanic},
    were_lost,
};
use crate::{
    capture::{
        Program, View,
        event::{Body, Event},
    },
    go::{
        memory::Memory,
        value::{Decoded, Decoder, Eface},
    },
    incident::{Capture, Incident, Kind, State},
};

fn regs(event: &Event, index: usize) -> u64 {
    match &event.body {
        Body::Capture(capture) => capture.regs.words[index],
        _ => 0,
    }
}

/// Returns the stack that dopanic_m was asked to print, or the goroutine's own stack if that one is a system
/// stack.
fn dying_stack(view: &View<'_>, context: &Context, throwing: bool) -> Stacks {
    let visibility = goroutine::visibility(&context.info, throwing);
    let gp = regs(view.event, reg::RAX);
    if view.event.head.g == 0 {
        return Stacks { elided: Some(0), ..Stacks::default() }; // A deadlock: no goroutine's stack.
    }
    if gp != view.event.head.g || goroutine::in_syscall(view) {
        return goroutine::saved_stack(view, visibility);
    }
    let (pc, sp) = (regs(view.event, reg::RBX), regs(view.event, reg::RCX));
    goroutine::stack_at(view, pc, sp, false, visibility)
}

/// Go's own list of the goroutine's panics when it died.
struct Listed {
    /// Oldest first: distance of each `_panic` from the top of the stack, and its resolved value.
    values: Vec<(u64, Eface)>,
    /// Whether there were older ones that were not captured.
    cut: bool,
}

fn listed(view: &View<'_>) -> Listed {
    let layout = view.program.bin.layout();
    let mut values = Vec::new();
    let mut at = view.g(layout.g.panic).unwrap_or(0);
    let mut steps = 0;
    while at != 0 && steps < CHAIN {
        steps += 1;
        let Some(link) = view.word(at, layout.panic.link) else { break };
        if view.byte(at, layout.panic.goexit) != Some(1) {
            let type_word = view.word(at, layout.panic.arg).unwrap_or(0);
            let data_word = view.word(at, layout.panic.arg + INTERFACE_DATA as u16).unwrap_or(0);
            values.push((view.event.head.stack_hi.wrapping_sub(at), Eface { type_word, data_word }));
        }
        at = link;
    }
    values.reverse();
    Listed { values, cut: at != 0 }
}

/// Returns why the raises of panics in Go's list were not seen.
fn unseen(fatal: &Event, lost: u32) -> String {
    let (counted, some) = (flag::COUNTED_ONLY, flag::SOME_COUNTED);
    match fatal.head.flags {
        _ if lost > 0 => were_lost(lost),
        flags if flags & counted != 0 => "raised beyond --max-captures: counted, not captured".to_owned(),
        flags if flags & some != 0 => {
            "raised before the probes were attached, or beyond --max-captures".to_owned()
        }
        _ => "raised before the probes were attached".to_owned(),
    }
}

/// Records in `missing` which panics of Go's list are not in the document.
fn lacks_listed(incident: &mut Incident, ended: &Ended, listed: &Listed, fatal: &Event) {
    let seen = ended.panics.len() + ended.left_out;
    // A goroutine without open panics has no record of how many were lost before.
    let lost = if seen == 0 { fatal.head.lost } else { ended.lost() };
    let is_seen = |at: u64| ended.panics.iter().any(|panic| panic.place.holds(at));
    let missed = listed.values.iter().filter(|(at, _)| !is_seen(*at)).count().saturating_sub(ended.left_out);
    let reason = match (seen, missed) {
        (0, _) => unseen(fatal, lost),
        _ if lost > 0 => were_lost(lost),
        (_, 0) => return,
        (_, missed) => format!("left out {missed} of the chain's panics: {}", unseen(fatal, lost)),
    };
    incident.missing.push(lack("panics", reason));
}

/// Sets the message, which is that of the oldest panic: if that panic is not in the document, Go's list has
/// its value.
fn message_of_list(incident: &mut Incident, ended: &Ended, listed: &Listed, view: &View<'_>) {
    let oldest = listed.values.first().filter(|_| !listed.cut);
    let is_oldest = |first: &OpenPanic| oldest.is_none_or(|(at, _)| first.place.holds(*at));
    if ended.panics.first().is_some_and(is_oldest) {
        return;
    }
    let (memory, types) = (view.memory(), view.types());
    let decoded = oldest.map(|(_, value)| Decoder::new(&memory, &types).decode(*value));
    incident.missing.retain(|missing| missing.what != "message");
    incident.message = decoded.and_then(|decoded| decoded.message);
    if incident.message.is_none() {
        incident.missing.push(lack("message", "it is known only from the raise, which was not captured"));
    }
}

/// Builds the incident of a panic that was not recovered.
pub(super) fn fatal_panic(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    let fatal = dying.die?;
    let ended = dying.ended;
    let first = ended.panics.first().map_or(&fatal, |panic| &panic.raise);
    let mut incident = blank(context, program, first);
    incident.capture = cost(&ended.panics, &fatal, None);
    let depth = ended.panics.last().map(|panic| goroutine::defer_depth(&program.view(&panic.raise)));
    let view = program.view(&fatal);
    let listed = listed(&view);
    lacks_panics(&mut incident, &ended);
    lacks_listed(&mut incident, &ended, &listed, &fatal);
    add_dead(&mut incident, &ended, &listed, &view);
    message_of_list(&mut incident, &ended, &listed, &view);
    let stacks = dying_stack(&view, context, false);
    describe_goroutine(&mut incident, &view, &program.view(first), &stacks);
    set_defer_depth(&mut incident, depth);
    Some(seal(incident))
}

/// Adds the panics of a chain that killed the process, with their values as resolved by the runtime.
fn add_dead(incident: &mut Incident, ended: &Ended, listed: &Listed, view: &View<'_>) {
    let (memory, types) = (view.memory(), view.types());
    let mut before: Option<Decoded> = None;
    for (i, panic) in ended.panics.iter().enumerate() {
        let value = listed.values.iter().find(|(at, _)| panic.place.holds(*at)).map(|(_, value)| *value);
        let state = fatal_state(panic, i + 1 == ended.panics.len());
        let last = std::cell::RefCell::new(None);
        let resolve = |raised: &Decoded| {
            let resolver = Decoder::new(&memory, &types);
            let decoded = match value {
                Some(value) => resolver.resolved(raised, value),
                None => raised.clone(),
            };
            // Of neighbours with the same value the runtime resolves only the oldest.
            let decoded = match &before {
                Some(older)
                    if decoded.value.printed.is_none()
                        && older.value.type_name == decoded.value.type_name =>
                {
                    older.clone()
                }
                _ => decoded,
            };
            *last.borrow_mut() = Some(decoded.clone());
            decoded
        };
        add_panic(incident, panic.clone(), state, Some(&resolve), view.program);
        before = last.into_inner();
    }
}

fn cost(panics: &[OpenPanic], first: &Event, die: Option<&Event>) -> Capture {
    let raised = panics.iter().map(|panic| panic.raise.head.cost_ns);
    let others = || [Some(first), die].into_iter().flatten();
    let copied = panics.iter().map(|panic| &panic.raise).chain(others()).map(|event| event.memory.len());
    Capture {
        delay_ns: panics.last().map(|panic| panic.raise.head.cost_ns).or(Some(first.head.cost_ns)),
        cost_ns: Some(raised.chain(others().map(|event| event.head.cost_ns)).sum()),
        bytes: Some(copied.sum()),
    }
}

/// Returns what is printed for a panic's value when its methods are not called.
fn unresolved(view: &View<'_>) -> Option<String> {
    let eface = Eface { type_word: regs(view.event, reg::RAX), data_word: regs(view.event, reg::RBX) };
    Decoder::new(&view.memory(), &view.types()).unresolved(eface)
}

/// Returns `m.throwing` of the dying thread: 0 for a panic, 1 for runtime.fatal, 2 for runtime.throw.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go> (throwType)
fn throwing(view: &View<'_>) -> Option<u32> {
    let Body::Capture(capture) = &view.event.body else { return None };
    let field = u64::from(view.program.bin.layout().m.throwing);
    (capture.m_addr != 0).then(|| view.memory().u32(capture.m_addr.wrapping_add(field)))?
}

/// Reports whether the process dies of a throw whose own record is missing.
pub(super) fn is_throwing(dying: &Dying, program: &Program) -> bool {
    let die = dying.die.as_ref();
    die.is_some_and(|die| throwing(&program.view(die)).is_some_and(|throwing| throwing != 0))
}

fn throw_kind(thrown: Option<&Event>, die: Option<&View<'_>>) -> Kind {
    let is_fatal = match thrown {
        Some(thrown) => thrown.head.site & site::IS_FATAL != 0,
        None => die.and_then(throwing) == Some(1),
    };
    if is_fatal { Kind::FatalError } else { Kind::Throw }
}

/// Builds the incident of a runtime.throw or runtime.fatal.
pub(super) fn throw(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    let (thrown, die) = (dying.throw, dying.die);
    let first = thrown.as_ref().or(die.as_ref())?;
    let mut incident = blank(context, program, first);
    incident.kind = throw_kind(thrown.as_ref(), die.as_ref().map(|die| program.view(die)).as_ref());
    let is_fatal = incident.kind == Kind::FatalError;
    incident.capture = cost(&dying.ended.panics, first, die.as_ref().filter(|_| thrown.is_some()));
    lacks_panics(&mut incident, &dying.ended);
    if dying.ended.lost() > 0 {
        incident.missing.push(lack("panics", were_lost(dying.ended.lost())));
    }
    for panic in dying.ended.panics {
        let state = if panic.recover.is_some() { State::Repanicked } else { State::Running };
        let printed = unresolved(&program.view(&panic.raise)).filter(|_| is_fatal);
        add_panic(&mut incident, panic, state, None, program);
        if program.bin.version().release.fatal_error_prints_panics()
            && let (Some(printed), Some(panic)) = (printed, incident.panics.last_mut())
        {
            panic.value.printed = Some(printed);
        }
    }
    // The message is not that of a panic in progress, which add_panic has set.
    let said = thrown.as_ref().map(|thrown| (regs(thrown, reg::RAX), regs(thrown, reg::RBX), thrown));
    let text = said.and_then(|(at, len, thrown)| go_string(&program.view(thrown).memory(), at, len));
    incident.missing.retain(|missing| missing.what != "message");
    let lacks = match (&text, said) {
        (Some(text), Some((_, len, _))) if (text.len() as u64) < len => {
            Some(format!("truncated: the first {} of {len} bytes were captured", text.len()))
        }
        (Some(_), _) => None,
        (None, Some(_)) => Some("its text is in memory that could not be read".into()),
        (None, None) => Some("the record of the throw, which has its text, was lost".into()),
    };
    incident.missing.extend(lacks.map(|reason: String| lack("message", reason)));
    if let Some(thrown) = &thrown {
        lacks_memory(&mut incident, "message", thrown);
    }
    incident.message = text.map(|text| String::from_utf8_lossy(&text).into_owned());
    let view = program.view(die.as_ref().unwrap_or(first));
    let stacks = match &die {
        Some(_) => dying_stack(&view, context, !is_fatal),
        None => Stacks {
            elided: Some(0),
            incomplete: vec!["the process died before Go unwound the stack".into()],
            ..Stacks::default()
        },
    };
    describe_goroutine(&mut incident, &view, &view, &stacks);
    set_defer_depth(&mut incident, None);
    Some(seal(incident))
}

/// Reports whether Go shows the thread's goroutine: if the signal interrupted it, or C code that it called.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go#L780>
fn is_blamed(view: &View<'_>) -> bool {
    let Body::Capture(capture) = &view.event.body else { return false };
    let gp = match view.event.head.kind {
        kind::SIGNAL => regs(view.event, reg::RDI),
        _ => regs(view.event, reg::RCX),
    };
    gp == view.event.head.g || view.byte(capture.m_addr, view.program.bin.layout().m.incgo) == Some(1)
}

/// Builds the incident of a fatal signal.
pub(super) fn signal(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    let event = dying.signal?;
    let mut incident = blank(context, program, &event);
    incident.kind = Kind::Signal;
    let view = program.view(&event);
    incident.message = Some(signals::headline(regs(&event, reg::RAX) as u32));
    incident.capture = cost(&[], &event, None);
    let visibility = goroutine::visibility(&context.info, true);
    let interrupted = signals::interrupted(&view);
    let stacks = match interrupted {
        _ if event.head.g == 0 || !is_blamed(&view) => {
            incident.missing.push(lack("goroutine", "the signal hit a thread that ran no goroutine"));
            return Some(seal(incident));
        }
        _ if goroutine::in_syscall(&view) => goroutine::saved_stack(&view, visibility),
        Some(regs) => {
            goroutine::stack_at(&view, regs.words[reg::RIP], regs.words[reg::RSP], true, visibility)
        }
        None => goroutine::saved_stack(&view, visibility),
    };
    describe_goroutine(&mut incident, &view, &view, &stacks);
    set_defer_depth(&mut incident, None);
    Some(seal(incident))
}
