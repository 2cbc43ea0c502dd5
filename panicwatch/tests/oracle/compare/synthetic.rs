//! An incident derived from Go's own text, and the same incident with damage: the comparison is meaningful
//! only if it accepts the first and rejects each of the others.

use panicwatch::incident::{
    Addr, Capture, Exit, Frame, Goroutine, Incident, Kind, Outcome, Panic, Process, Recover, SCHEMA, Signal,
    State, Value,
};

use super::{Expect, message, signal_number};
use crate::go_text::{Account, FrameText, Note};

/// Returns the incident that a perfect observer would have written about this death.
pub(crate) fn incident(account: &Account, expect: &Expect) -> Incident {
    let subject = account.subject();
    let mut incident = Incident {
        schema: SCHEMA.to_owned(),
        id: String::new(),
        time: String::new(),
        start_ns: 0,
        end_ns: None,
        kind: expect.kind,
        outcome: Outcome::Fatal,
        exit: Some(expect.exit),
        message: message(account, expect.release),
        process: Process { go_version: Some(format!("{}.1", expect.release)), ..Process::default() },
        host: None,
        goroutine: None,
        panics: panics(account, expect),
        stack: subject.map(|g| g.frames.iter().map(frame).collect()).unwrap_or_default(),
        stack_elided: Some(subject.and_then(|g| g.elided?.1).unwrap_or(0)),
        ancestry: Vec::new(),
        init: None,
        timeline: None,
        capture: Capture::default(),
        fingerprint: String::new(),
        missing: Vec::new(),
    };
    incident.goroutine = subject.map(|g| Goroutine {
        id: g.id,
        status: Some(g.status.clone()),
        locked_to_thread: Some(g.locked),
        labels: g.labels.clone(),
        parent_id: g.created_by.as_ref().and_then(|c| c.parent),
        created_by: g.created_by.as_ref().map(|c| frame(&c.frame)),
        ..Goroutine::default()
    });
    incident
}

fn panics(account: &Account, expect: &Expect) -> Vec<Panic> {
    let mut panics = Vec::new();
    let last_state = if expect.kind == Kind::Panic { State::Fatal } else { State::Running };
    for line in &account.chain {
        let recovered = line.note != Note::None && !expect.nothing_recovered;
        panics.push(panic(&line.printed, if recovered { State::Repanicked } else { last_state }, expect));
        if line.note == Note::Repanicked {
            panics.push(panic(&line.printed, last_state, expect));
        }
    }
    if let (Some(last), Some(signal)) = (panics.last_mut(), &account.signal) {
        last.signal = Some(Signal {
            number: signal_number(&signal.name).unwrap_or(0),
            name: signal.name.clone(),
            code: Some(signal.code as i64),
            addr: Some(Addr(signal.addr)),
            pc: Some(Addr(signal.pc)),
        });
    }
    panics
}

fn panic(printed: &str, state: State, expect: &Expect) -> Panic {
    let text =
        if expect.release.indents_messages() { printed.replace("\n\t", "\n") } else { printed.to_owned() };
    Panic {
        value: Value { text: Some(text), printed: Some(printed.to_owned()), ..Value::default() },
        runtime_error: false,
        goexit: false,
        state,
        raised_ns: 0,
        site: None,
        signal: None,
        registers: Default::default(),
        instructions: Vec::new(),
        check: None,
        defers: Vec::new(),
        recover: (state == State::Repanicked).then_some(Recover { by: None, ns_after_raise: 1 }),
    }
}

fn frame(text: &FrameText) -> Frame {
    Frame {
        function: text.function.clone(),
        file: Some(text.file.clone()),
        line: Some(text.line),
        pc: Addr(text.pc.unwrap_or(0)),
        offset: text.offset.unwrap_or(0),
        inlined: text.inlined,
    }
}

/// Returns the incident with one field wrong, for each field that can be wrong.
pub(crate) fn damaged(good: &Incident) -> Vec<(&'static str, Incident)> {
    let mut out = Vec::new();
    let mut damage = |name, change: &dyn Fn(&mut Incident)| {
        let mut bad = good.clone();
        change(&mut bad);
        if bad != *good {
            out.push((name, bad));
        }
    };
    damage("schema", &|i| i.schema.push('x'));
    damage("kind", &|i| i.kind = if i.kind == Kind::Panic { Kind::Throw } else { Kind::Panic });
    damage("outcome", &|i| i.outcome = Outcome::Recovered);
    damage("message text", &|i| i.message.iter_mut().for_each(|m| m.push('!')));
    damage("message lost", &|i| i.message = None);
    damage("exit code", &|i| i.exit = Some(Exit { code: Some(77), signal: None }));
    damage("exit lost", &|i| i.exit = None);
    damage("go version", &|i| i.process.go_version = Some("go1.3".into()));
    goroutine_damage(&mut damage);
    stack_damage(&mut damage);
    chain_damage(&mut damage);
    out
}

type Damage<'a> = dyn FnMut(&'static str, &dyn Fn(&mut Incident)) + 'a;

fn goroutine_damage(damage: &mut Damage<'_>) {
    let mut on = |name, change: fn(&mut Goroutine)| {
        damage(name, &|i| i.goroutine.iter_mut().for_each(change));
    };
    on("goroutine id", |g| g.id += 1);
    on("goroutine status", |g| g.status = Some("dead".into()));
    on("parent id", |g| g.parent_id = g.created_by.as_ref().map(|_| 999));
    on("creator's function", |g| g.created_by.iter_mut().for_each(|f| f.function.push('x')));
    on("creator's file", |g| g.created_by.iter_mut().for_each(|f| f.file = None));
    on("creator's line", |g| g.created_by.iter_mut().for_each(|f| f.line = f.line.map(|l| l + 1)));
    on("creator's offset", |g| g.created_by.iter_mut().for_each(|f| f.offset += 1));
    on("creator lost", |g| g.created_by = None);
    on("creator invented", |g| {
        g.created_by.get_or_insert(Frame { function: "main.nobody".into(), ..Frame::default() });
    });
    damage("goroutine lost", &|i| i.goroutine = None);
    damage("goroutine invented", &|i| {
        i.goroutine.get_or_insert(Goroutine { id: 1, ..Goroutine::default() });
    });
}

fn stack_damage(damage: &mut Damage<'_>) {
    let mut on = |name, change: fn(&mut Vec<Frame>)| damage(name, &|i| change(&mut i.stack));
    on("innermost frame lost", |s| drop((!s.is_empty()).then(|| s.remove(0))));
    on("outermost frame lost", |s| drop(s.pop()));
    on("frame twice", |s| s.extend(s.last().cloned()));
    on("frame order", |s| s.reverse());
    on("frame's function", |s| s.iter_mut().take(1).for_each(|f| f.function.push('x')));
    on("frame's file", |s| s.iter_mut().take(1).for_each(|f| f.file = Some("elsewhere.go".into())));
    on("frame's line", |s| s.iter_mut().take(1).for_each(|f| f.line = f.line.map(|l| l + 1)));
    on("frame's inlining", |s| s.iter_mut().take(1).for_each(|f| f.inlined = !f.inlined));
    on("frame's offset", |s| s.iter_mut().filter(|f| !f.inlined).take(1).for_each(|f| f.offset += 1));
    on("last frame's line", |s| s.last_mut().into_iter().for_each(|f| f.line = f.line.map(|l| l + 1)));
    damage("elided count", &|i| i.stack_elided = i.stack_elided.map(|n| n + u64::from(!i.stack.is_empty())));
}

fn chain_damage(damage: &mut Damage<'_>) {
    let mut on = |name, change: fn(&mut Vec<Panic>)| damage(name, &|i| change(&mut i.panics));
    on("first panic lost", |p| drop((!p.is_empty()).then(|| p.remove(0))));
    on("last panic lost", |p| drop(p.pop()));
    on("check of another kind", |p| {
        for panic in p.iter_mut().filter(|p| !p.goexit) {
            let divides = panic.value.printed.as_ref().is_some_and(|text| text.contains("divide by zero"));
            let other = if divides { "index out of range [%rax]" } else { "integer divide by zero" };
            panic.check = Some(format!("runtime.f raises \"{other}\""));
        }
    });
    on("chain order", |p| {
        if p.first().map(|f| &f.value) != p.last().map(|l| &l.value) {
            p.reverse();
        }
    });
    on("printed value", |p| {
        p.iter_mut().take(1).for_each(|p| p.value.printed.iter_mut().for_each(|v| v.push('x')))
    });
    on("printed value lost", |p| p.iter_mut().take(1).for_each(|p| p.value.printed = None));
    on("first state", |p| p.iter_mut().take(1).for_each(|p| p.state = State::Running));
    on("last state", |p| p.last_mut().into_iter().for_each(|p| p.state = State::Recovered));
    on("recover invented or lost", |p| {
        for p in p.iter_mut().take(1) {
            p.recover = match p.recover {
                Some(_) => None,
                None => Some(Recover { by: None, ns_after_raise: 1 }),
            };
        }
    });
    let mut signal = |name, change: fn(&mut Signal)| {
        damage(name, &|i| i.panics.iter_mut().filter_map(|p| p.signal.as_mut()).for_each(change));
    };
    signal("signal name", |s| s.name.push('X'));
    signal("signal number", |s| s.number += 1);
    signal("signal code", |s| s.code = None);
    signal("signal address", |s| s.addr = Some(Addr(1)));
    signal("signal pc", |s| s.pc = None);
    damage("signal lost", &|i| i.panics.iter_mut().for_each(|p| p.signal = None));
}
