//! Tests of the call tree with events worked out by hand. They use only the heads of records.

use super::*;

/// Runs the events of one goroutine, given as kind, function and distance from the top of the stack; times
/// count up.
fn run(events: &[(u8, u32, u32)]) -> Vec<Change<()>> {
    let mut tree = Tree::default();
    let mut changes = Vec::new();
    for (time_ns, &(kind, function, depth)) in (100..).zip(events) {
        let hit = Hit { time_ns, goid: 7, tgid: 1, tid: 2, function, depth, kind, ..Hit::default() };
        tree.push(&hit, (), &mut changes);
    }
    changes
}

fn entered(depth: usize) -> Change<()> {
    Change::Entered { depth }
}

fn returned(function: u32, depth: usize, began: u64) -> Change<()> {
    Change::Returned { function, depth, began: Some((began, ())) }
}

const IN: u8 = kind::ENTRY;
const OUT: u8 = kind::EXIT;

#[test]
fn calls_nest() {
    let changes =
        run(&[(IN, 1, 100), (IN, 2, 200), (OUT, 2, 200), (IN, 3, 200), (OUT, 3, 200), (OUT, 1, 100)]);
    let wanted =
        [entered(0), entered(1), returned(2, 1, 101), entered(1), returned(3, 1, 103), returned(1, 0, 100)];
    assert_eq!(changes, wanted);
}

#[test]
fn recursion_is_told_apart_by_the_stack() {
    let changes =
        run(&[(IN, 1, 100), (IN, 1, 200), (IN, 1, 300), (OUT, 1, 300), (OUT, 1, 200), (OUT, 1, 100)]);
    let wanted =
        [entered(0), entered(1), entered(2), returned(1, 2, 102), returned(1, 1, 101), returned(1, 0, 100)];
    assert_eq!(changes, wanted);
}

#[test]
fn without_exits_the_depth_follows_from_the_stack() {
    let changes = run(&[(IN, 1, 100), (IN, 2, 200), (IN, 3, 200), (IN, 4, 150), (IN, 5, 90)]);
    let depths: Vec<usize> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Entered { depth } => Some(*depth),
            _ => None,
        })
        .collect();
    assert_eq!(depths, [0, 1, 1, 1, 0]);
}

#[test]
fn a_recovered_panic_ends_the_calls_below() {
    let changes = run(&[(IN, 1, 100), (IN, 2, 200), (IN, 3, 300), (kind::RECOVERY, 0, 150), (OUT, 1, 100)]);
    let unwound = |function, depth, began| Change::Unwound { function, depth, began: (began, ()) };
    assert_eq!(
        changes,
        [entered(0), entered(1), entered(2), unwound(3, 2, 102), unwound(2, 1, 101), returned(1, 0, 100)]
    );
}

#[test]
fn the_end_of_a_goroutine_ends_all() {
    let changes = run(&[(IN, 1, 100), (kind::GONE, 0, 0), (IN, 1, 300)]);
    assert_eq!(
        changes,
        [entered(0), Change::Unwound { function: 1, depth: 0, began: (100, ()) }, entered(0)]
    );
}

#[test]
fn an_exit_whose_entry_was_not_seen_has_no_beginning() {
    let changes = run(&[(OUT, 1, 100), (IN, 2, 200), (OUT, 3, 200), (OUT, 2, 200)]);
    let unseen = |function, depth| Change::Returned { function, depth, began: None };
    assert_eq!(changes, [unseen(1, 0), entered(0), unseen(3, 1), returned(2, 0, 101)]);
}

#[test]
fn a_function_that_goes_on_as_another_ends_first() {
    let changes = run(&[(IN, 1, 100), (OUT, 1, 100), (IN, 2, 100), (OUT, 2, 100)]);
    assert_eq!(changes, [entered(0), returned(1, 0, 100), entered(0), returned(2, 0, 102)]);
}

#[test]
fn a_recovery_to_an_unknown_place_ends_nothing() {
    assert_eq!(run(&[(IN, 1, 100), (kind::RECOVERY, 0, 0)]), [entered(0)]);
}

#[test]
fn goroutines_and_system_stacks_are_apart() {
    let mut tree = Tree::default();
    let mut changes = Vec::new();
    for (goid, flags) in [(7, 0), (8, 0), (7, flag::SYSTEM_STACK), (0, flag::NO_GOROUTINE)] {
        let hit = Hit { goid, flags, depth: 100, kind: kind::ENTRY, ..Hit::default() };
        tree.push(&hit, (), &mut changes);
    }
    assert_eq!(changes, [entered(0), entered(0), entered(0), entered(0)]);
}

#[test]
fn memory_is_bounded() {
    let mut tree = Tree::default();
    let mut changes = Vec::new();
    for goid in 1..=3 * MAX_STACKS as u64 {
        let hit = Hit { time_ns: goid, goid, depth: 100, kind: kind::ENTRY, ..Hit::default() };
        changes.clear();
        tree.push(&hit, (), &mut changes);
    }
    assert!(tree.calls.len() <= MAX_STACKS);
}
