//! Tests of the runtime's own records: goroutines, the garbage collector, functions.

use super::scene::{G, PID, Scene, T, its, lines, track};
use crate::incident::timeline::TrackKind;
use panicwatch_common::recorder::kind;

#[test]
fn the_runtime_tells_when_goroutines_change() {
    let scene = Scene::new()
        .run(11_000, 0, T, G)
        .park(13_000, 0, T, G)
        .run(13_100, 0, T, 9)
        .ready(15_000, 0, T, G, 9)
        .park(15_500, 0, T, 9)
        .run(15_600, 0, T, G);
    assert_eq!(
        its(&scene),
        [
            "10000 runnable: waiting for a thread",
            "11000 running t101 c0",
            "13000 waiting: chan receive",
            "15000 runnable: made runnable, waiting for a thread",
            "15600 running t101 c0",
        ]
    );
    let summary = scene.build().summary;
    assert_eq!((summary.waiting_ns, summary.runnable_ns, summary.running_ns), (2_000, 1_600, 6_400));
    let woken = summary.woken.expect("it was woken");
    assert_eq!((woken.goroutine, woken.by_runtime), (Some(9), true));
    let last: Vec<_> = summary.last.iter().map(|l| l.words.as_str()).collect();
    assert_eq!(
        last,
        [
            "running on thread 101",
            "parked: chan receive, running again after 2.60 µs",
            "made runnable by goroutine 9",
        ]
    );
    let other = lines(track(&scene.build(), TrackKind::Goroutine, 9));
    assert_eq!(other[1..], ["13100 running t101 c0", "15500 waiting: chan receive"]);
}

#[test]
fn the_world_is_stopped() {
    let scene = Scene::new()
        .run(10_500, 0, T, G)
        .slot(12_000, (1, 102), kind::STW_BEGIN, 9, 1, [0; 3])
        .slot(12_100, (0, T), kind::GO_YIELD, G, 1, [0; 3])
        .slot(13_000, (1, 102), kind::STW_END, 9, 0, [0; 3])
        .run(13_200, 0, T, G);
    let timeline = scene.build();
    assert_eq!(
        lines(track(&timeline, TrackKind::Goroutine, G))[1..],
        [
            "10500 running t101 c0",
            "12100 stopped: GC mark termination",
            "13000 runnable: preempted by the Go scheduler",
            "13200 running t101 c0",
        ]
    );
    assert_eq!((timeline.summary.stopped_ns, timeline.summary.yields), (900, Some(1)));
    let gc = track(&timeline, TrackKind::Gc, 0);
    assert_eq!(
        lines(gc),
        [
            "10000 unknown: no GC records",
            "12000 stopped: GC mark termination",
            "13000 unknown: no GC records",
        ]
    );
    assert_eq!((gc.slices[0].from_ns, gc.slices[0].to_ns), (12_000, Some(13_000)));
}

#[test]
fn the_world_was_stopped_before_the_window() {
    let scene = Scene::new()
        .slot(11_000, (1, 102), kind::STW_END, 9, 0, [0; 3])
        .slot(12_000, (1, 102), kind::GC_WORKER, 9, 0, [0; 3])
        .slot(13_000, (1, 102), kind::GC_MARK_DONE, 9, 0, [0; 3])
        .slot(13_100, (1, 102), kind::STW_BEGIN, 9, 1, [0; 3])
        .slot(13_500, (1, 102), kind::STW_END, 9, 0, [0; 3]);
    assert_eq!(
        lines(track(&scene.build(), TrackKind::Gc, 0)),
        [
            "10000 stopped: reason not recorded",
            "11000 marking",
            "13000 marking: mark termination",
            "13100 stopped: GC mark termination",
            "13500 idle",
        ]
    );
}

#[test]
fn functions_nest_by_their_stack_pointers() {
    let scene = Scene::new()
        .function(11_000, (0, T), G, 0xa, 100)
        .function(12_000, (0, T), G, 0xb, 200)
        .function(13_000, (0, T), G, 0xc, 300)
        .function(14_000, (0, T), G, 0xb, 200)
        .function(15_000, (0, T), G, 0xd, 150);
    let timeline = scene.build();
    let slices: Vec<_> = track(&timeline, TrackKind::Goroutine, G)
        .slices
        .iter()
        .map(|s| (s.name.as_str(), s.depth, s.from_ns, s.to_ns, s.inferred))
        .collect();
    assert_eq!(
        slices,
        [
            ("main.fa", 0, 11_000, None, false),
            ("main.fb", 1, 12_000, Some(14_000), true),
            ("main.fc", 2, 13_000, Some(14_000), true),
            ("main.fb", 1, 14_000, Some(15_000), true),
            ("main.fd", 1, 15_000, None, false),
        ]
    );
}

#[test]
fn signals_faults_and_threads() {
    let scene = Scene::new()
        .slot(11_000, (0, T), kind::PAGE_FAULT, G, 4, [0x1000, 0x4000, 0])
        .slot(11_100, (0, T), kind::PAGE_FAULT, G, 4, [0x2000, 0x4000, 0])
        .slot(11_200, (0, T), kind::SIGNAL_SENT, 9, 23, [(u64::from(PID) << 32) | 103, 0, 0])
        .slot(11_300, (0, T), kind::SIGNAL_DELIVERED, G, 23, [0, 0x4000, 0])
        .slot(11_400, (0, 104), kind::THREAD_BEGIN, G, 0, [u64::from(T), 0, 0])
        .into(11_500, 1, 104, 0)
        .slot(12_000, (1, 104), kind::THREAD_END, 0, 0, [0; 3])
        .out(12_010, 1, 104, 0, 128, 0);
    let timeline = scene.build();
    let summary = &timeline.summary;
    assert_eq!((summary.page_faults, summary.signals[0].number, summary.signals[0].count), (Some(2), 23, 1));
    assert_eq!(summary.last[0].words, "page fault at 0x1000 (2 in a row)");
    assert_eq!(summary.last[1].words, "SIGURG (Go's preemption signal) delivered");
    assert_eq!(
        lines(track(&timeline, TrackKind::Thread, 104)),
        [
            "10000 ended",
            "11400 runnable: thread is new, waiting for a CPU",
            "11500 running c1",
            "12000 ended"
        ]
    );
    let process = lines(track(&timeline, TrackKind::Process, PID.into()));
    assert_eq!(process, ["10000 running: 1 thread", "11500 running: 2 threads", "12000 running: 1 thread"]);
}

#[test]
fn a_goroutine_is_created_parks_and_ends() {
    let scene = Scene::new()
        .run(10_500, 0, T, G)
        .slot(11_000, (0, T), kind::GO_CREATE, 12, 0, [0xa, 0x4000, G])
        .run(12_000, 1, 102, 12)
        .slot(13_000, (1, 102), kind::GO_END, 12, 0, [0; 3]);
    let timeline = scene.build();
    assert_eq!(
        lines(track(&timeline, TrackKind::Goroutine, 12)),
        ["10000 ended", "11000 runnable: new, waiting for a thread", "12000 running t102 c1", "13000 ended"]
    );
    assert_eq!(timeline.summary.last[1].words, "created goroutine 12");
    assert!(timeline.summary.last.iter().all(|l| !l.words.contains("main.fa")), "12 runs it, not 7");
}

#[test]
fn who_stops_the_world_is_not_held_by_it() {
    let scene = Scene::new()
        .run(10_500, 0, T, G)
        .slot(12_000, (0, T), kind::STW_BEGIN, G, 1, [0; 3])
        .preempted(12_100, 0, T, G, 55)
        .into(13_000, 0, T, 55)
        .slot(13_200, (0, T), kind::STW_END, G, 0, [0; 3]);
    let timeline = scene.build();
    assert_eq!((timeline.summary.stopped_ns, timeline.summary.runnable_ns), (0, 900));
}
