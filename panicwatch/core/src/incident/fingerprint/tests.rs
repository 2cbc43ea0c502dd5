//! The rule of the fingerprint, case by case.

use proptest::prelude::*;

use super::*;
use crate::incident::{Addr, Outcome, State};

fn sample(json: &str) -> Incident {
    serde_json::from_str(json).expect("a sample incident")
}

fn recovered() -> Incident {
    sample(include_str!("../../../../tests/incidents/recovered.json"))
}

fn chain() -> Incident {
    sample(include_str!("../../../../tests/incidents/repanicked_chain.json"))
}

fn overflow() -> Incident {
    sample(include_str!("../../../../tests/incidents/stack_overflow.json"))
}

#[test]
fn basis_is_what_the_code_decides() {
    assert_eq!(
        basis(&recovered()),
        [
            "program example.com/shop",
            "kind panic",
            "class runtime.boundsError index out of range",
            "in example.com/shop/cart.(*Cart).At",
            "in main.item",
            "in main.guard.func",
        ]
    );
    assert!(fingerprint(&recovered()).strip_prefix(PREFIX).is_some_and(|hex| hex.len() == 16));
}

/// The kernel appends " (deleted)" to the path once the file has been replaced.
#[test]
fn a_replaced_executable_is_the_same_program() {
    let mut incident = recovered();
    incident.process.module = None;
    incident.process.exe = Some("/opt/shop".into());
    let before = fingerprint(&incident);
    incident.process.exe = Some("/opt/shop (deleted)".into());
    assert_eq!(before, fingerprint(&incident));
}

#[test]
fn a_value_that_is_fixed_for_all_time() {
    // Stored incidents are grouped by fingerprint: if this value changes, PREFIX must change.
    assert_eq!(fingerprint(&recovered()), "pw1:02c0812eb4cb2bf5");
}

#[test]
fn no_function_takes_part_where_the_stack_ends_in_gopanic() {
    let mut cut = recovered();
    cut.stack = vec![Frame { function: "panic".into(), ..Frame::default() }];
    assert_eq!(basis(&cut), basis(&recovered())[..3]);
    assert_ne!(fingerprint(&cut), fingerprint(&recovered()));
}

#[test]
fn a_chain_is_named_after_its_first_raise_however_it_ends() {
    let fatal = chain();
    assert_eq!(
        basis(&fatal)[2..],
        ["class *fmt.wrapError", "in main.commit", "in main.process", "in main.worker"]
    );
    let mut caught = fatal.clone();
    caught.stack.drain(..2);
    caught.panics.truncate(1);
    caught.panics[0].state = State::Recovered;
    (caught.outcome, caught.exit) = (Outcome::Recovered, None);
    assert_eq!(fingerprint(&caught), fingerprint(&fatal));
}

#[test]
fn depth_of_recursion_is_chance() {
    let one = overflow();
    assert_eq!(basis(&one)[2..], ["class stack overflow", "in main.sum"]);
    let mut other = one.clone();
    other.stack.drain(1..40);
    other.stack[0].function = "main.leaf".into();
    assert_eq!(fingerprint(&one), fingerprint(&other));
}

#[test]
fn a_library_is_named_by_what_was_called() {
    let mut a = recovered();
    let frame = |f: &str| Frame { function: f.into(), ..Frame::default() };
    a.stack = ["regexp/syntax.(*parser).parse", "regexp/syntax.Parse", "regexp.MustCompile", "main.f"]
        .map(frame)
        .into();
    assert_eq!(basis(&a)[3..], ["in regexp.MustCompile", "in main.f"]);
    let mut newer_go = a.clone();
    newer_go.stack.remove(0);
    assert_eq!(fingerprint(&a), fingerprint(&newer_go));
}

#[test]
fn classes_of_runtime_errors() {
    for (text, want) in [
        ("runtime error: index out of range [5] with length 3", "index out of range"),
        ("runtime error: slice bounds out of range [:7] with capacity 4", "slice bounds out of range"),
        ("runtime error: integer divide by zero", "integer divide by zero"),
        ("runtime error: hash of unhashable type []int", "hash of unhashable type"),
        ("runtime error: makeslice: len out of range", "makeslice: len out of range"),
        ("interface conversion: interface {} is string, not int", "interface conversion to int"),
        ("interface conversion: main.T is not main.I: missing method M", "interface conversion to main.I"),
        ("interface conversion: interface is nil, not main.I", "interface conversion to main.I"),
        (
            "interface conversion: x is a.T, not a.T (types from different scopes)",
            "interface conversion to a.T",
        ),
        (
            "cannot convert slice with length 2 to array or pointer to array with length 4",
            "cannot convert slice with length N to array or pointer to array with length N",
        ),
    ] {
        assert_eq!(runtime_error_class(text), want);
    }
}

#[test]
fn classes_of_messages() {
    for (text, want) in [
        ("concurrent map writes", "concurrent map writes"),
        ("panic while printing panic value: order 5", "panic while printing panic value"),
        ("unexpected signal 0xb at -12 in int64", "unexpected signal N at N in int64"),
        ("first\nsecond", "first"),
    ] {
        assert_eq!(message_class(text), want);
    }
}

#[test]
fn names_without_the_compilers_numbers() {
    for (name, want) in [
        ("main.main", Some("main.main")),
        ("main.f.func1", Some("main.f.func")),
        ("main.f.func1.2", Some("main.f.func")),
        ("main.main.f.func3", Some("main.f.func")),
        ("main.(*T).M.func1", Some("main.(*T).M.func")),
        ("main.main.(*T).M.func1", Some("main.(*T).M.func")),
        ("main.f-range1", Some("main.f")),
        ("main.f.func1-range2", Some("main.f.func")),
        ("main.F[...]", Some("main.F")),
        ("main.(*L[go.shape.int]).Push", Some("main.(*L).Push")),
        ("main.F[example.com/a/b.T].func1", Some("main.F.func")),
        ("main.init.0", Some("main.init")),
        ("main.init.1.func2", Some("main.init.func")),
        ("main.glob..func1", Some("main.init.func")),
        ("main.init.func1", Some("main.init.func")),
        ("main.f.gowrap1", None),
        ("main.f.deferwrap12", None),
        ("main.func1", Some("main.func1")),
        ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml%2ev3.Unmarshal")),
        ("a/vendor/github.com/x/y.F", Some("github.com/x/y.F")),
        ("panic", Some("panic")),
        ("", Some("")),
    ] {
        assert_eq!(function_name(name).as_deref(), want, "{name}");
    }
    assert_eq!(generic_free("[]main.T[int]"), "[]main.T");
    assert_eq!(generic_free("map[string]*[4]int"), "map[string]*[4]int");
}

proptest! {
    #[test]
    fn lines_addresses_and_hosts_do_not_matter(
        line in any::<u32>(), shift in any::<u32>(), pid in any::<u32>(), time in any::<u64>(), length in any::<u32>(),
    ) {
        let before = recovered();
        let mut after = before.clone();
        for frame in &mut after.stack {
            frame.line = Some(line);
            frame.file = frame.file.as_deref().map(|f| f.replace("/src/shop", "/home/ci/build"));
            frame.pc = Addr(frame.pc.0 ^ u64::from(shift));
            frame.offset = u64::from(shift);
            frame.inlined = !frame.inlined;
        }
        after.panics[0].value.text = Some(format!("runtime error: index out of range [{length}] with length 1"));
        (after.process.pid, after.start_ns, after.id) = (pid, time, "other".into());
        after.process.exe = Some("/opt/shop-v2".into());
        after.process.go_version = Some("go1.27.3".into());
        prop_assert_eq!(fingerprint(&before), fingerprint(&after));
    }

    #[test]
    fn another_raising_function_matters(name in "[a-z]{1,8}") {
        let before = recovered();
        let mut after = before.clone();
        after.stack[0].function = format!("example.com/shop/cart.X{name}");
        prop_assert_ne!(fingerprint(&before), fingerprint(&after));
    }

    #[test]
    fn any_name_ends(name in any::<String>(), text in any::<String>()) {
        let _ = (function_name(&name), runtime_error_class(&text), message_class(&text));
    }
}
