//! The terminal report, compared with complete expected texts; `UPDATE_EXPECT=1 cargo test --test report`
//! rewrites them. tests/incidents/ contains the documents, modelled on real output of Go 1.24.

use expect_test::{expect, expect_file};
use panicwatch::{
    escape,
    incident::{Host, Incident, Outcome},
    render::{report, text::Style},
};
use unicode_width::UnicodeWidthStr as _;

const NAMES: [&str; 8] = [
    "recovered",
    "nil_dereference",
    "repanicked_chain",
    "deadlock",
    "hostile",
    "stack_overflow",
    "exited_in_init",
    "slow_read",
];

fn text(name: &str) -> String {
    let path = format!("{}/tests/incidents/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a sample")
}

fn incident(name: &str) -> Incident {
    serde_json::from_str(&text(name)).expect("an incident document")
}

fn plain(name: &str, width: usize) -> String {
    report::render(&incident(name), &Style::new(false, width))
}

#[test]
fn recovered_is_short() {
    expect![[r#"
        ━━ recovered  03:12:44.108Z  shop[4711]  goroutine 35
           panic: runtime error: index out of range [6] with length 3
           raised in example.com/shop/cart.(*Cart).At (cart.go:20)
           recovered after 4.70 µs by main.main.guard.func2.1 (main.go:20)  pw1:02c0812eb4cb2bf5
    "#]]
    .assert_eq(&plain("recovered", 100));
}

#[test]
fn recovered_in_60_columns() {
    expect![[r#"
        ━━ recovered  03:12:44.108Z  shop[4711]  goroutine 35
           panic: runtime error: index out of range [6] with length
             3
           raised in example.com/shop/cart.(*Cart).At (cart.go:20)
           recovered after 4.70 µs by main.main.guard.func2.1
             (main.go:20)  pw1:02c0812eb4cb2bf5
    "#]]
    .assert_eq(&plain("recovered", 60));
}

#[test]
fn the_host_is_named_below_the_process() {
    let mut incident = incident("nil_dereference");
    let without = report::full(&incident, &Style::new(false, 100));
    assert!(!without.contains("\n  host "), "{without}");
    let row = |incident: &Incident| {
        let text = report::full(incident, &Style::new(false, 100));
        let rows: Vec<String> =
            text.lines().filter(|line| line.starts_with("  host ")).map(str::to_owned).collect();
        assert_eq!(text.lines().count(), without.lines().count() + 1, "{text}");
        rows.concat()
    };
    let boot_id = "0b6f2a1c-4d5e-4f60-8a7b-9c0d1e2f3a4b".to_owned();
    incident.host = Some(Host { name: Some("web-3\u{1b}[31m".to_owned()), boot_id: Some(boot_id) });
    let shown = row(&incident);
    assert!(shown.starts_with("  host       web-3") && !shown.contains('\u{1b}'), "{shown}");
    assert!(shown.ends_with(", boot 0b6f2a1c-4d5e-4f60-8a7b-9c0d1e2f3a4b"), "{shown}");
    incident.host = Some(Host { name: None, boot_id: None });
    assert_eq!(row(&incident), "  host       name unknown");
}

#[test]
fn recovered_in_full() {
    let full = report::full(&incident("recovered"), &Style::new(false, 100));
    expect_file!["reports/recovered_full.txt"].assert_eq(&full);
}

#[test]
fn nil_dereference() {
    expect_file!["reports/nil_dereference.txt"].assert_eq(&plain("nil_dereference", 100));
}

#[test]
fn nil_dereference_in_60_columns() {
    expect_file!["reports/nil_dereference_60.txt"].assert_eq(&plain("nil_dereference", 60));
}

#[test]
fn nil_dereference_in_180_columns() {
    expect_file!["reports/nil_dereference_180.txt"].assert_eq(&plain("nil_dereference", 180));
}

#[test]
fn chain_with_a_panic_raised_anew() {
    expect_file!["reports/repanicked_chain.txt"].assert_eq(&plain("repanicked_chain", 100));
}

#[test]
fn chain_in_colour() {
    let style = Style::new(true, 100);
    let colour = report::render(&incident("repanicked_chain"), &style).replace('\x1b', "␛");
    expect_file!["reports/repanicked_chain_colour.txt"].assert_eq(&colour);
}

#[test]
fn deadlock_is_nobodys() {
    expect_file!["reports/deadlock.txt"].assert_eq(&plain("deadlock", 100));
}

#[test]
fn hostile_strings() {
    expect_file!["reports/hostile.txt"].assert_eq(&plain("hostile", 100));
}

#[test]
fn very_deep_stack() {
    expect_file!["reports/stack_overflow.txt"].assert_eq(&plain("stack_overflow", 100));
}

#[test]
fn exit_in_a_deferred_call_during_initialisation() {
    expect_file!["reports/exited_in_init.txt"].assert_eq(&plain("exited_in_init", 100));
}

#[test]
fn with_a_timeline() {
    expect_file!["reports/slow_read.txt"].assert_eq(&plain("slow_read", 100));
}

#[test]
fn with_a_timeline_in_60_columns() {
    expect_file!["reports/slow_read_60.txt"].assert_eq(&plain("slow_read", 60));
}

#[test]
fn a_timeline_in_colour() {
    let style = Style::new(true, 100);
    let colour = report::render(&incident("slow_read"), &style).replace('\x1b', "␛");
    let section = colour.split("Timeline, last").nth(1).expect("the section");
    expect_file!["reports/slow_read_colour.txt"]
        .assert_eq(section.split("Stack, innermost").next().expect("a part"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for name in NAMES {
        for width in [0, 40, 60, 80, 100, 200] {
            let style = Style::new(false, width);
            let all = [report::full(&incident(name), &style), report::compact(&incident(name), &style)];
            for line in all.iter().flat_map(|t| t.lines()) {
                assert!(line.width() <= style.width, "{name} at {width}: {line}");
            }
        }
    }
}

/// Replaces every string of the documents with text that imitates lines of the report.
#[test]
fn no_text_can_forge_a_line() {
    const EVIL: &str =
        "x\nincident forged\r\n▶ main.fake\u{2028}\x1b[2J\x1b]0;t\x07\u{202e}\n━━ PANIC, RECOVERED\n";
    const OURS: [&str; 15] = [
        "━━ ",
        "panic: ",
        "fatal error: ",
        "▶ ",
        "• ",
        "incident ",
        "What happened",
        "Stack, innermost first",
        "Instructions",
        "Registers at the raise",
        "Missing",
        "Ancestors of",
        "Timeline, last ",
        "0000-00-0",
        " ",
    ];
    for name in NAMES {
        let mut document: serde_json::Value = serde_json::from_str(&text(name)).expect("JSON");
        poison(&mut document, EVIL);
        let incident: Incident = serde_json::from_value(document).expect("still an incident");
        for width in [40, 60, 100] {
            let style = Style::new(false, width);
            for (kind, text) in
                [("full", report::full(&incident, &style)), ("compact", report::compact(&incident, &style))]
            {
                assert!(!text.contains(|c| c != '\n' && escape::is_unsafe(c)), "{name} {kind}:\n{text}");
                for line in text.lines().filter(|l| !l.is_empty()) {
                    let ours = OURS.iter().any(|o| line.starts_with(o))
                        || kind == "compact" && line.starts_with(r"x\n");
                    assert!(ours, "{name} {kind} at {width}: {line:?} in\n{text}");
                }
                let forged = |l: &str| l.starts_with("incident forged") || l.starts_with("▶ main.fake");
                assert!(!text.lines().any(forged), "{name} {kind}:\n{text}");
            }
        }
    }
}

/// Replaces every string that the watched program controls, that is, all but the enumerations and addresses.
fn poison(value: &mut serde_json::Value, evil: &str) {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(text) if !text.starts_with("0x") => *text = evil.to_owned(),
        Array(list) => list.iter_mut().for_each(|v| poison(v, evil)),
        Object(map) => {
            let keep = ["schema", "kind", "outcome", "state", "ended", "what"];
            map.iter_mut().filter(|(k, _)| !keep.contains(&k.as_str())).for_each(|(_, v)| poison(v, evil));
        }
        _ => {}
    }
}

#[test]
fn thousands_of_deferred_calls_stay_readable() {
    let mut incident = incident("repanicked_chain");
    let defer = incident.panics[1].defers[0].clone();
    incident.panics[1].defers = vec![defer; 50_000];
    let text = report::render(&incident, &Style::default());
    assert!(text.contains("… 49924 more, all in the incident document …"), "{text}");
    assert!(text.lines().count() < 300);
}

#[test]
fn huge_strings_are_cut_and_said() {
    let mut incident = incident("nil_dereference");
    incident.message = Some("A".repeat(50 << 20));
    incident.stack[0].function = format!("main.{}", "日".repeat(1 << 20));
    let text = report::render(&incident, &Style::default());
    assert!(text.len() < 20_000, "{}", text.len());
    assert!(text.contains("more lines"), "{text}");
}

#[test]
fn unknown_stays_unknown() {
    let mut incident = incident("nil_dereference");
    incident.outcome = Outcome::Unknown;
    (incident.message, incident.goroutine, incident.exit, incident.end_ns) = (None, None, None, None);
    incident.panics[0].value = Default::default();
    incident.panics[0].site = None;
    incident.stack.clear();
    expect_file!["reports/unknown.txt"].assert_eq(&report::render(&incident, &Style::default()));
}
