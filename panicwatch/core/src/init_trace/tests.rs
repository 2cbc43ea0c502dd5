//! Event tables, and the text of hand-written documents.

use expect_test::expect;
use panicwatch_common::{
    binary::site,
    event::{Head, kind},
};

use super::*;
use crate::{
    capture::event::{Body, Event, Point, ProcessEvent},
    go::memory::Snapshot,
    render::text::Style,
};

const PID: u32 = 7;

fn event(pid: u32, time_ns: u64, kind: u32, site: u32, body: Body) -> Event {
    let head = Head { kind, time_ns, tgid: pid, tid: pid, site, ..Head::default() };
    Event { head, body, memory: Snapshot::new(), lost_memory: 0 }
}

fn point(args: [u64; 6]) -> Body {
    Body::Point(Box::new(Point { args, panic_addr: 0, defer_addr: 0 }))
}

fn step(time_ns: u64, flag: u32) -> Event {
    event(PID, time_ns, kind::INIT_STEP, flag, point([0; 6]))
}

/// Event of the loop over the functions of `task`.
fn task(time_ns: u64, task: u64, index: u64, calls: bool) -> Event {
    event(PID, time_ns, kind::INIT_TASK, 0, point([task, index, calls.into(), 0, 0, 0]))
}

fn process(pid: u32, time_ns: u64, kind: u32, wait_status: Option<u32>) -> Event {
    event(pid, time_ns, kind, 0, Body::Process(ProcessEvent { wait_status, args: None, env: None }))
}

/// Passes all events; only the last one may end the collection.
fn collect(events: &[Event]) -> Option<Collected> {
    let mut collector = Collector::new();
    for (i, event) in events.iter().enumerate() {
        let ends = collector.push(event);
        assert!(!ends || i + 1 == events.len(), "event {i} ended it");
    }
    collector.take()
}

/// Number, start, end.
type Times = (u64, u64, Option<u64>);

/// Returns the times of the tasks and of their functions.
fn runs(collected: &Collected) -> Vec<(Times, Vec<Times>)> {
    let functions = |run: &TaskRun| run.functions.iter().map(|f| (f.index, f.start_ns, f.end_ns)).collect();
    collected.tasks.iter().map(|run| ((run.task, run.start_ns, run.end_ns), functions(run))).collect()
}

#[test]
fn packages_one_after_the_other() {
    let collected = collect(&[
        process(PID, 1, kind::EXEC, None),
        step(2, site::STEP_RT0),
        step(9, site::STEP_RUNTIME_MAIN | site::ON_STACK_CHECK),
        task(10, 0x100, 0, true),
        task(12, 0x100, 1, true),
        task(15, 0x100, 2, false),
        task(20, 0x200, 0, true),
        task(21, 0x200, 1, false),
        step(30, site::STEP_MAIN),
    ])
    .expect("a trace");
    assert_eq!(collected.exec_ns, Some(1));
    assert_eq!(collected.end, End::MainReached);
    assert_eq!(
        collected.steps,
        [(site::STEP_RT0, 2), (site::STEP_RUNTIME_MAIN, 9), (site::STEP_MAIN, 30)],
        "other flags of the site say nothing about the step"
    );
    assert_eq!(
        runs(&collected),
        [
            ((0x100, 10, Some(15)), vec![(0, 10, Some(12)), (1, 12, Some(15))]),
            ((0x200, 20, Some(21)), vec![(0, 20, Some(21))]),
        ]
    );
}

#[test]
fn a_plugin_s_packages_are_initialised_within_another_s() {
    let collected = collect(&[
        task(1, 0x100, 0, true),
        task(2, 0x900, 0, true),
        task(3, 0x900, 1, false),
        task(4, 0x100, 1, false),
    ])
    .expect("a trace");
    assert_eq!(
        runs(&collected),
        [((0x100, 1, Some(4)), vec![(0, 1, Some(4))]), ((0x900, 2, Some(3)), vec![(0, 2, Some(3))])]
    );
}

#[test]
fn events_that_were_lost_invent_nothing() {
    // Missing: the end of the first task, and all of the second except its end.
    let collected = collect(&[task(1, 0x100, 0, true), task(3, 0x200, 1, false), task(5, 0x300, 2, true)])
        .expect("a trace");
    assert_eq!(
        runs(&collected),
        [((0x100, 1, None), vec![(0, 1, None)]), ((0x300, 5, None), vec![(2, 5, None)])]
    );
    assert_eq!(collected.end, End::Lost);
}

#[test]
fn lost_records_are_counted_for_the_traced_process() {
    let mut collector = Collector::new();
    collector.lost(PID, 5);
    collector.push(&task(1, 0x100, 0, true));
    assert_eq!(collector.pid(), Some(PID));
    collector.lost(PID, 2);
    collector.lost(PID, 1);
    collector.lost(PID + 1, 9);
    assert_eq!(collector.take().expect("a trace").lost, 2);
}

#[test]
fn it_ends_with_the_process_or_its_image() {
    let begin = || vec![step(1, site::STEP_RT0), task(2, 0x100, 0, true)];
    for (last, end) in [
        (process(PID, 3, kind::PROCESS_EXIT, Some(9)), End::ProcessEnded(Some(9))),
        (process(PID, 3, kind::EXEC, None), End::Executed),
    ] {
        let mut events = begin();
        events.push(process(8, 2, kind::PROCESS_EXIT, Some(0)));
        events.push(process(8, 2, kind::EXEC, None));
        events.push(last);
        let collected = collect(&events).expect("a trace");
        assert_eq!((collected.end, collected.end_ns), (end, Some(3)));
    }
}

#[test]
fn only_the_first_go_process_counts() {
    let other = |time, flag| event(8, time, kind::INIT_STEP, flag, point([0; 6]));
    let collected = collect(&[
        process(6, 1, kind::EXEC, None),
        process(PID, 2, kind::EXEC, None),
        step(3, site::STEP_RT0),
        process(8, 4, kind::EXEC, None),
        other(5, site::STEP_RT0),
        other(6, site::STEP_MAIN),
        step(7, site::STEP_MAIN),
    ])
    .expect("a trace");
    assert_eq!((collected.first.head.tgid, collected.exec_ns), (PID, Some(2)));
    assert_eq!(collected.steps, [(site::STEP_RT0, 3), (site::STEP_MAIN, 7)]);
    assert!(
        collect(&[process(6, 1, kind::EXEC, None), process(6, 2, kind::PROCESS_EXIT, Some(0))]).is_none()
    );
}

fn function(name: &str, line: u32, start_ns: u64, duration_ns: Option<u64>) -> Function {
    let (function, file) = (Some(name.to_owned()), Some("/src/x/x.go".to_owned()));
    Function { function, file, line: Some(line), start_ns, duration_ns }
}

fn package(name: &str, start_ns: u64, duration_ns: Option<u64>, depth: Option<u32>) -> Package {
    let functions = vec![function(&format!("{name}.init"), 3, start_ns, duration_ns)];
    let package = Some(name.to_owned());
    Package { package, start_ns, duration_ns, depth, imports: vec![], runtime: name == "runtime", functions }
}

fn document() -> InitTrace {
    let at = |what: &str, time_ns| Step { what: what.to_owned(), time_ns };
    InitTrace {
        schema: SCHEMA,
        program: Program { pid: 42, exe: "/srv/app".into(), go_version: "go1.24.11".into() },
        exec_ns: Some(900_000),
        chain: vec![
            at("runtime.rt0_go", 1_000_000),
            at("runtime.schedinit", 1_100_000),
            at("runtime.main", 1_400_000),
            at("main.init", 7_000_000),
            at("main.main", 9_000_000),
        ],
        packages: vec![
            package("runtime", 1_500_000, Some(50_400), None),
            package("example.com/slow", 1_600_000, Some(5_000_000), Some(1)),
            package("vendor/\x1b[31m", 6_700_000, Some(900), None),
            package("main", 7_000_000, Some(1_900_000), Some(0)),
        ],
        total_ns: Some(8_000_000),
        depth_source: DepthSource::Calls,
        stopped: None,
        missing: vec![],
    }
}

#[test]
fn the_tree() {
    expect![[r#"
        ━━ INITIALIZATION of app[42] go1.24.11 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
        main.main began 8.00 ms after rt0_go; 4 packages took 6.95 ms, mostly
        example.com/slow 5.00 ms, main 1.90 ms

            at, ms   took, ms           depth
            -0.100                             exec: program loaded
             0.000                             runtime.rt0_go
             0.100                             ├─ runtime.schedinit
             0.400                             ├─ runtime.main
             0.500      0.050               -  │  ├─ runtime
             0.600      5.000  ████████     1  │  ├─ example.com/slow
             0.600      5.000                  │  │  └─ slow.init  x.go:3
             5.700      0.000               ?  │  ├─ vendor/\x1b[31m
             6.000      1.900  ███          0  │  └─ main
             6.000      1.900                  │     └─ main.init  x.go:3
             8.000                             └─ main.main

        depth: fewest imports from package main that calls in the code prove; ?:
          unknown; -: initialized by the runtime for itself
    "#]]
    .assert_eq(&text::render(&document(), false, &Style::new(false, 80)));
}

#[test]
fn the_slowest_first() {
    expect![[r#"
        ━━ INITIALIZATION of app[42] go1.24.11 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
        main.main began 8.00 ms after rt0_go; 4 packages took 6.95 ms, mostly
        example.com/slow 5.00 ms, main 1.90 ms

            at, ms   took, ms           depth
             0.600      5.000  ████████     1  example.com/slow
             0.600      5.000                  └─ slow.init  /src/x/x.go:3
             6.000      1.900  ███          0  main
             6.000      1.900                  └─ main.init  /src/x/x.go:3
             0.500      0.050               -  runtime
             5.700      0.000               ?  vendor/\x1b[31m

        depth: fewest imports from package main that calls in the code prove; ?:
          unknown; -: initialized by the runtime for itself
    "#]]
    .assert_eq(&text::render(&document(), true, &Style::new(false, 80)));
}

#[test]
fn where_it_stopped() {
    let mut trace = document();
    trace.chain.truncate(3);
    trace.total_ns = None;
    trace.packages.truncate(2);
    trace.packages[1].duration_ns = None;
    trace.packages[1].functions[0].duration_ns = None;
    trace.stopped = Some(Stopped {
        how: How::Died,
        code: Some(2),
        time_ns: Some(2_000_000),
        at: "example.com/slow.init".into(),
        package: Some("example.com/slow".into()),
        function: Some("example.com/slow.init".into()),
        variable: Some("example.com/slow.Size".into()),
        file: Some("/src/x/x.go".into()),
        line: Some(9),
        message: Some("no\x07 luck".into()),
        incident: None,
    });
    expect![[r#"
        ━━ INITIALIZATION of app[42] go1.24.11 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
        main.main was not reached; 2 packages took 50.4 µs, mostly runtime 50.4 µs

            at, ms   took, ms           depth
            -0.100                             exec: program loaded
             0.000                             runtime.rt0_go
             0.100                             ├─ runtime.schedinit
             0.400                             ├─ runtime.main
             0.500      0.050  ████████     -  │  ├─ runtime
             0.600          ✗               1  │  └─ example.com/slow
             0.600          ✗                  │     └─ slow.init  x.go:3

        STOPPED before main.main: the program died with status 2, 1.00 ms after rt0_go
          package    example.com/slow
          variable   example.com/slow.Size
          function   example.com/slow.init
          at         /src/x/x.go:9
          message    no\x07 luck

        depth: fewest imports from package main that calls in the code prove; -:
          initialized by the runtime for itself
    "#]]
    .assert_eq(&text::render(&trace, false, &Style::new(false, 80)));
    assert_eq!(
        trace.slowest()[0].package.as_deref(),
        Some("example.com/slow"),
        "what did not end comes first"
    );
}

#[test]
fn colours_only_where_they_are_wanted_and_no_foreign_ones() {
    let plain = text::render(&document(), false, &Style::new(false, 80));
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = text::render(&document(), false, &Style::new(true, 80));
    assert!(coloured.contains("\x1b[") && !coloured.contains("\x1b[31m"), "{coloured}");
}

#[test]
fn hostile_times_do_no_harm() {
    let mut trace = document();
    trace.packages[1].duration_ns = Some(u64::MAX);
    trace.packages[2].start_ns = u64::MAX;
    trace.packages[3].start_ns = 0;
    for slowest in [false, true] {
        assert!(text::render(&trace, slowest, &Style::new(false, 40)).ends_with('\n'));
    }
    assert!(!perfetto::encode(&trace, Some(i128::MAX)).is_empty());
}
