//! Tests the live suite's comparisons themselves: the parser of Go's output and the comparison with an
//! incident.
//!
//! The modules are those of `tests/live`; here they run without privileges, Go or panicwatch. The live
//! suite's `oracle` group does the same with everything that the real releases print.

mod compare;
mod go_text;
mod lanes;
mod samples;
mod timeline;

use go_text::{Account, Note};
use panicwatch::{
    go::release::Release,
    incident::{Exit, Kind},
};

use compare::{Expect, recovered, runs, sanity, synthetic, synthetic_recovered};

fn parse(text: &str) -> Account {
    Account::parse(text).expect("an account")
}

fn expect(kind: Kind, release: Release) -> Expect {
    Expect { kind, release, nothing_recovered: false, exit: Exit { code: Some(2), signal: None } }
}

#[test]
fn chain_with_notes_and_indented_newlines() {
    let account = parse(samples::CHAIN);
    let lines: Vec<_> = account.chain.iter().map(|l| (l.printed.as_str(), l.note, l.indented)).collect();
    let want = [
        ("two\n\tlines", Note::Recovered, false),
        ("main.T(\"x\")", Note::Repanicked, true),
        ("last", Note::None, true),
    ];
    assert_eq!(lines, want);
    assert_eq!(account.before, "program's own line\n");
    assert_eq!(compare::message(&account, Release::new(24)).as_deref(), Some("two\nlines"));
}

#[test]
fn raw_newlines_of_old_releases_belong_to_the_value() {
    let account =
        parse("panic: a\n\tb\n\n\n\ngoroutine 1 [running]:\nmain.main()\n\t/m.go:3 +0x1d\nexit status 2\n");
    assert_eq!(account.chain[0].printed, "a\n\tb\n\n");
    assert_eq!(account.exit_status, Some(2));
}

#[test]
fn goroutine_header_in_every_form() {
    let header = |line: &str| {
        let g = go_text::parse_stack(&format!("{line}\nmain.f()\n\t/f.go:1 +0x1\n")).expect(line);
        (g.id, g.status, g.minutes, g.locked, g.labels.into_iter().collect::<Vec<_>>())
    };
    let plain = |id, status: &str| (id, status.to_owned(), None, false, vec![]);
    assert_eq!(header("goroutine 1 [running]:"), plain(1, "running"));
    assert_eq!(
        header("goroutine 7 gp=0xc000002380 m=nil [select (no cases)]:"),
        plain(7, "select (no cases)")
    );
    assert_eq!(header("goroutine 7 gp=0xc0 m=0 mp=0x63 [idle (scan)]:"), plain(7, "idle"));
    let (_, status, minutes, locked, _) = header("goroutine 9 [chan receive, 12 minutes, locked to thread]:");
    assert_eq!((status.as_str(), minutes, locked), ("chan receive", Some(12), true));
    let labels = vec![("k".to_owned(), "a \"b\", c".to_owned()), ("n".to_owned(), "1".to_owned())];
    assert_eq!(header(r#"goroutine 3 [running labels:{"k": "a \"b\", c", "n": "1"}]:"#).4, labels);
    assert_eq!(header(r#"goroutine 3 [running] {k: "a \"b\", c", n: 1}:"#).4, labels);
    assert_eq!(go_text::parse_stack("goroutine leak: 3 [x]:\n"), None);
}

#[test]
fn frames_creator_and_elision() {
    let account = parse(samples::DEEP);
    let subject = account.subject().expect("a goroutine");
    assert_eq!(subject.elided, Some((2, Some(4951))));
    assert_eq!(subject.frames.len(), 3);
    assert_eq!(subject.frames[0].function, "main.(*T[...]).down");
    assert_eq!((subject.frames[0].offset, subject.frames[0].inlined), (None, true));
    assert_eq!((subject.frames[1].line, subject.frames[1].offset), (14, Some(0x1b)));
    assert_eq!(subject.frames[2].file, "/a dir/main.go");
    let creator = subject.created_by.as_ref().expect("a creator");
    assert_eq!((creator.frame.function.as_str(), creator.parent), ("main.main", Some(1)));
    assert_eq!(subject.ancestors[0].0, 1);
}

#[test]
fn throw_names_the_goroutine_only_when_it_was_running() {
    let overflow = parse(samples::THROW);
    assert_eq!(overflow.runtime_stack.as_ref().map(Vec::len), Some(1));
    assert_eq!(overflow.subject().map(|g| g.id), Some(1));
    assert_eq!(overflow.subject().and_then(|g| g.frames[0].pc), Some(0x52764b));
    assert!(overflow.before.starts_with("runtime: goroutine stack exceeds"));
    assert!(parse(samples::DEADLOCK).subject().is_none());
}

#[test]
fn goroutines_that_die_together_print_one_after_the_other() {
    let text = format!("{}{}", samples::DEEP, samples::FAULT);
    let accounts = Account::all(&text);
    assert_eq!(accounts, [parse(samples::DEEP), parse(samples::FAULT)]);
}

#[test]
fn death_by_signal() {
    let account = parse(samples::SIGNAL);
    let death = account.death.as_ref().expect("a death");
    assert_eq!(
        (death.name.as_str(), death.pc, death.code, death.addr),
        ("SIGSEGV", Some(0x4f5d58), Some(0), Some(0x5479))
    );
    assert!(death.in_cgo);
    assert_eq!(account.registers.get("rip"), Some(&0x4f5d58));
    assert_eq!(
        compare::message(&account, Release::new(24)).as_deref(),
        Some("SIGSEGV: segmentation violation")
    );
}

#[test]
fn a_fault_keeps_its_signal_line() {
    let signal = parse(samples::FAULT).signal.expect("a signal line");
    assert_eq!((signal.name.as_str(), signal.code, signal.addr, signal.pc), ("SIGSEGV", 1, 0, 0x48d0a6));
}

#[test]
fn every_damage_is_noticed_and_the_truth_accepted() {
    let cases = [
        (samples::CHAIN, Kind::Panic),
        (samples::DEEP, Kind::Panic),
        (samples::FAULT, Kind::Panic),
        (samples::THROW, Kind::Throw),
        (samples::DEADLOCK, Kind::FatalError),
        (samples::SIGNAL, Kind::Signal),
    ];
    for (text, kind) in cases {
        let (account, expect) = (parse(text), expect(kind, Release::new(25)));
        let good = synthetic::incident(&account, &expect);
        assert_eq!(compare::fatal(&account, &good, &expect), Vec::<String>::new());
        let damaged = synthetic::damaged(&good);
        assert!(damaged.len() > 8, "{text}");
        for (name, bad) in damaged {
            assert_ne!(compare::fatal(&account, &bad, &expect), Vec::<String>::new(), "{name} in {text}");
        }
    }
}

#[test]
fn one_line_may_stand_for_two_panics_of_the_same_value() {
    let account =
        parse("panic: v [recovered, repanicked]\n\ngoroutine 1 [running]:\nmain.main()\n\t/m.go:3 +0x1d\n");
    let mut misled = expect(Kind::Panic, Release::new(25));
    misled.nothing_recovered = true;
    let told = synthetic::incident(&account, &expect(Kind::Panic, Release::new(25)));
    let happened = synthetic::incident(&account, &misled);
    assert_eq!((told.panics.len(), happened.panics.len()), (2, 2));
    assert!(compare::fatal(&account, &happened, &misled).is_empty());
    assert!(
        !compare::fatal(&account, &told, &misled).is_empty(),
        "nothing was recovered, whatever Go 1.25 prints"
    );
    assert!(!compare::fatal(&account, &happened, &expect(Kind::Panic, Release::new(25))).is_empty());
}

#[test]
fn recovered_panics_are_held_to_what_the_program_saw() {
    let truth: recovered::Truth = serde_json::from_str(samples::TRUTH).expect("a truth");
    assert_eq!(truth.goroutine(), Some(1));
    let good = synthetic_recovered::incident(&truth, Release::new(24));
    assert_eq!(recovered::compare(&truth, &good, Release::new(24)), Vec::<String>::new());
    for (name, bad) in synthetic_recovered::damaged(&good) {
        assert_ne!(recovered::compare(&truth, &bad, Release::new(24)), Vec::<String>::new(), "{name}");
    }
    let mut wrapped = good.clone();
    let defer = wrapped.panics[0].defers.last_mut().and_then(|d| d.function.as_mut()).expect("a defer");
    defer.function = "main.helper.deferwrap1".to_owned();
    assert_eq!(
        recovered::compare(&truth, &wrapped, Release::new(24)),
        Vec::<String>::new(),
        "the wrapper of defer f(x)"
    );
}

#[test]
fn every_incident_names_its_process_and_keeps_time() {
    let line = vec!["/bin/x".to_owned(), "a".to_owned()];
    let mut good = synthetic::incident(&parse(samples::FAULT), &expect(Kind::Panic, Release::new(24)));
    good.id = "0".repeat(26);
    good.time = "2024-01-01T00:00:00.000000001Z".to_owned();
    (good.start_ns, good.end_ns, good.panics[0].raised_ns) = (5, Some(9), 5);
    good.fingerprint = "f".to_owned();
    good.process.exe = Some(line[0].clone());
    good.process.args = Some(line.clone());
    good.process.pid = 1;
    good.process.build_id = Some("b".to_owned());
    assert_eq!(sanity::check(&good, &line), Vec::<String>::new());
    let damages: [fn(&mut panicwatch::incident::Incident); 8] = [
        |i| i.process.exe = None,
        |i| i.process.args = None,
        |i| i.process.pid = 0,
        |i| i.id.clear(),
        |i| i.time = "yesterday".to_owned(),
        |i| i.end_ns = Some(4),
        |i| i.panics[0].raised_ns = 6,
        |i| i.exit = None,
    ];
    for damage in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        assert_ne!(sanity::check(&bad, &line), Vec::<String>::new());
    }
}

#[test]
fn two_runs_may_differ_in_addresses_and_ids_alone() {
    let run =
        |stderr: &str| runs::Output { stdout: String::new(), stderr: stderr.into(), status: 2, signal: None };
    let same = |a: &str, b: &str| runs::compare(&run(a), &run(b), false).is_empty();
    assert_eq!(run("").signal, None);
    assert!(same("panic: (main.T) 0xc0001\n", "panic: (main.T) 0xc0002\n"));
    assert!(same("goroutine 7 said 0x1f\n", "goroutine 12 said 0x2a\n"));
    assert!(!same("panic: a\n", "panic: b\n"));
    assert!(!same(samples::DEEP, &samples::DEEP.replace("main.go:14", "main.go:15")));
    assert!(!same("", "panicwatch: a word of its own\n"));
}

#[test]
fn damaged_text_never_stops_the_reader() {
    for text in [samples::CHAIN, samples::DEEP, samples::THROW, samples::SIGNAL, samples::FAULT] {
        for end in 0..text.len() {
            drop(text.get(..end).map(Account::parse));
            drop(text.get(end..).map(Account::parse));
        }
    }
}
