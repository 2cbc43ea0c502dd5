//! The three ways a Go program dies by its own runtime: of a panic, a throw (or fatal error), a signal.

use panicwatch_common::{binary::site, event::kind, reg};

use super::{
    build::{
        Context, add_panic, blank, describe_goroutine, fatal_state, go_string, lack, seal, set_defer_depth,
    },
    goroutine::{self, Stacks},
    program::{Program, View},
    signals,
    state::{Dying, OpenPanic},
};
use crate::{
    event::{Body, Event},
    incident::{Capture, Incident, Kind, State},
    value::{Decoded, Decoder, Eface},
};

fn regs(event: &Event, index: usize) -> u64 {
    match &event.body {
        Body::Capture(capture) => capture.regs.words[index],
        _ => 0,
    }
}

/// The stack that dopanic_m was asked to print, or the goroutine's own when that one is the system's.
fn dying_stack(view: &View<'_>, context: &Context, throwing: bool) -> Stacks {
    let visibility = goroutine::visibility(&context.info, throwing);
    let gp = regs(view.event, reg::RAX);
    if view.event.head.g == 0 {
        return Stacks::default(); // A deadlock: nobody's stack.
    }
    if gp != view.event.head.g || goroutine::in_syscall(view) {
        return goroutine::saved_stack(view, visibility);
    }
    let (pc, sp) = (regs(view.event, reg::RBX), regs(view.event, reg::RCX));
    goroutine::stack_at(view, pc, sp, false, visibility)
}

/// `_panic`s as Go prints them, oldest first: the place and the value of each.
fn resolved_values(view: &View<'_>) -> Vec<(u64, Eface)> {
    let layout = view.program.bin.layout();
    let mut chain = Vec::new();
    let mut at = view.g(layout.g.panic).unwrap_or(0);
    while at != 0 && chain.len() < 64 {
        if view.byte(at, layout.panic.goexit) != Some(1) {
            let type_word = view.word(at, layout.panic.arg).unwrap_or(0);
            let data_word = view.word(at, layout.panic.arg + 8).unwrap_or(0);
            chain.push((view.event.head.stack_hi.wrapping_sub(at), Eface { type_word, data_word }));
        }
        at = view.word(at, layout.panic.link).unwrap_or(0);
    }
    chain.reverse();
    chain
}

/// Died of a panic nobody recovered.
pub(super) fn fatal_panic(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    let fatal = dying.die?;
    let first = dying.panics.first().map_or(&fatal, |panic| &panic.raise);
    let mut incident = blank(context, program, first);
    incident.capture = cost(&dying.panics, &fatal, None);
    let depth = dying.panics.last().map(|panic| goroutine::defer_depth(&program.view(&panic.raise)));
    let view = program.view(&fatal);
    let values = resolved_values(&view);
    let count = dying.panics.len();
    let memory = view.memory();
    let types = view.types();
    if values.len() != count && count > 0 {
        let reason = format!("Go's list has {} panics, {count} were seen raised", values.len());
        incident.missing.push(lack("panics", reason));
    }
    if count == 0 {
        // Raised beyond the rate at which panics are captured: what Go is about to print is known all the same.
        let first = values.first().map(|(_, value)| Decoder::new(&memory, &types).decode(*value));
        incident.message = first.and_then(|decoded| decoded.message);
        incident
            .missing
            .push(lack("panics", "they were raised beyond --max-captures: counted, not captured"));
        if incident.message.is_none() {
            incident.missing.push(lack("message", "only the raise, which was not captured, could tell"));
        }
    }
    let mut before: Option<Decoded> = None;
    for (i, panic) in dying.panics.into_iter().enumerate() {
        // From the end: the newest of both lists are the same panic.
        let value =
            (values.len() + i).checked_sub(count).and_then(|at| values.get(at)).map(|(_, value)| *value);
        let state = fatal_state(&panic, i + 1 == count);
        let last = std::cell::RefCell::new(None);
        let resolve = |raised: &Decoded| {
            let resolver = Decoder::new(&memory, &types);
            let decoded = match value {
                Some(value) => resolver.resolved(raised, value),
                None => raised.clone(),
            };
            // The runtime resolves the oldest of neighbours with the same value only.
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
        add_panic(&mut incident, panic, state, Some(&resolve), program);
        before = last.into_inner();
    }
    let stacks = dying_stack(&view, context, false);
    describe_goroutine(&mut incident, &view, &stacks);
    set_defer_depth(&mut incident, depth);
    Some(seal(incident))
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

/// What is printed for a panic's value whose methods nobody calls.
fn unresolved(view: &View<'_>) -> Option<String> {
    let eface = Eface { type_word: regs(view.event, reg::RAX), data_word: regs(view.event, reg::RBX) };
    Decoder::new(&view.memory(), &view.types()).unresolved(eface)
}

/// Died of runtime.throw or runtime.fatal.
pub(super) fn throw(dying: Dying, context: &Context, program: &Program) -> Option<Incident> {
    let thrown = dying.throw?;
    let mut incident = blank(context, program, &thrown);
    let is_fatal = thrown.head.site & site::IS_FATAL != 0;
    incident.kind = if is_fatal { Kind::FatalError } else { Kind::Throw };
    let view = program.view(&thrown);
    incident.capture = cost(&dying.panics, &thrown, dying.die.as_ref());
    for panic in dying.panics {
        let state = if panic.recover.is_some() { State::Repanicked } else { State::Running };
        let printed = unresolved(&program.view(&panic.raise)).filter(|_| is_fatal);
        add_panic(&mut incident, panic, state, None, program);
        // From 1.26 on Go prints the panics under way before the fatal error, calling no methods.
        // https://github.com/golang/go/blob/go1.26.6/src/runtime/panic.go (printPreFatalDeferPanic)
        if program.bin.version().minor >= 26
            && let (Some(printed), Some(panic)) = (printed, incident.panics.last_mut())
        {
            panic.value.printed = Some(printed);
        }
    }
    // Not that of a panic under way, which add_panic has set.
    let (text_at, text_len) = (regs(&thrown, reg::RAX), regs(&thrown, reg::RBX));
    let text = go_string(&view.memory(), text_at, text_len);
    incident.missing.retain(|missing| missing.what != "message");
    match text.as_ref().map(|text| text.len() as u64) {
        None => incident.missing.push(lack("message", "its text was not in memory that could be read")),
        Some(known) if known < text_len => {
            let reason = format!("it is cut: the first {known} bytes of {text_len} were captured");
            incident.missing.push(lack("message", reason));
        }
        Some(_) => {}
    }
    incident.message = text.map(|text| String::from_utf8_lossy(&text).into_owned());
    let stack_event = dying.die.as_ref().unwrap_or(&thrown);
    let view = program.view(stack_event);
    let stacks = match &dying.die {
        Some(_) => dying_stack(&view, context, !is_fatal),
        None => Stacks {
            incomplete: Some("the process died before Go walked the stack".into()),
            ..Stacks::default()
        },
    };
    describe_goroutine(&mut incident, &view, &stacks);
    set_defer_depth(&mut incident, None);
    Some(seal(incident))
}

/// Whether Go shows the thread's goroutine: when the signal interrupted it, or C code that it called.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go#L780>
fn is_blamed(view: &View<'_>) -> bool {
    let Body::Capture(capture) = &view.event.body else { return false };
    let gp = match view.event.head.kind {
        kind::SIGNAL => regs(view.event, reg::RDI),
        _ => regs(view.event, reg::RCX),
    };
    gp == view.event.head.g || view.byte(capture.m_addr, view.program.bin.layout().m.incgo) == Some(1)
}

/// Died of a signal.
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
    describe_goroutine(&mut incident, &view, &stacks);
    set_defer_depth(&mut incident, None);
    Some(seal(incident))
}
