//! Tests of single situations, with the expected states.

use super::scene::{FROM, FUTEX, G, RAISE, READ, SLEEPS, Scene, T, its, lines, track};
use crate::incident::timeline::{Doing, TrackKind};
use panicwatch_common::recorder::kind;

#[test]
fn nothing_was_recorded_but_the_raise() {
    // No record shows the thread being switched in since the window began, so it was running from the
    // beginning.
    assert_eq!(its(&Scene::new()), ["10000 running t101 inferred", "20000 running t101"]);
    let mut nobody = Scene::new();
    (nobody.goroutine, nobody.thread) = (None, None);
    let timeline = nobody.build();
    assert_eq!(timeline.summary.unknown_ns, 10_000);
    assert!(timeline.tracks.iter().all(|t| t.kind != TrackKind::Goroutine));
}

#[test]
fn a_call_that_blocks() {
    let scene = Scene::new()
        .enter(12_000, 0, T, G, READ)
        .out(12_500, 0, T, G, SLEEPS, 0)
        .waking(15_000, 1, T, 105, 9)
        .into(15_200, 0, T, 0)
        .exit(15_300, 0, T, G, READ);
    assert_eq!(
        its(&scene),
        [
            "10000 running t101 c0 inferred",
            "12000 syscall t101 c0: read",
            "12500 syscall t101: read",
            "15000 runnable t101: thread woken, waiting for a CPU, in read",
            "15200 syscall t101 c0: read",
            "15300 running t101 c0",
        ]
    );
    let summary = scene.build().summary;
    assert_eq!((summary.syscall_ns, summary.runnable_ns, summary.running_ns), (3_100, 200, 6_700));
    assert_eq!((summary.syscalls[0].what.as_str(), summary.syscalls[0].count), ("read", 1));
    let woken = summary.woken.expect("it was woken");
    assert_eq!(
        (woken.time_ns, woken.thread, woken.goroutine, woken.by_runtime),
        (15_000, Some(105), Some(9), false)
    );
    let last: Vec<_> = summary.last.iter().map(|l| l.words.as_str()).collect();
    assert_eq!(
        last,
        [
            "read returned 5 after 3.30 µs",
            "blocked (off CPU 0), back after 2.70 µs on CPU 0",
            "woken by goroutine 9 on thread 105",
        ]
    );
}

#[test]
fn the_window_begins_inside_a_call() {
    // Only the return was recorded: the thread was in the call since before the window.
    let scene = Scene::new().into(14_000, 1, T, 0).exit(14_100, 1, T, G, READ);
    assert_eq!(
        its(&scene),
        [
            "10000 syscall t101 inferred: read",
            "14000 syscall t101 c1 inferred: read",
            "14100 running t101 c1",
        ]
    );
    let summary = scene.build().summary;
    assert_eq!((summary.syscalls[0].ns, summary.syscalls[0].count), (4_100, 1));
    // The entry is before the window, so it is not shown.
    let scene = Scene::new().enter(9_000, 0, T, G, READ).exit(11_000, 0, T, G, READ);
    assert_eq!(its(&scene), ["10000 syscall t101 c0: read", "11000 running t101 c0"]);
    let timeline = scene.build();
    assert_eq!(timeline.events.iter().filter(|e| e.time_ns < FROM).count(), 0);
    assert_eq!(timeline.summary.syscalls[0].count, 1);
}

#[test]
fn a_call_that_never_returned_in_the_window() {
    let scene = Scene::new().enter(20_500, 0, T, G, READ).out(20_600, 0, T, G, SLEEPS, 0);
    assert_eq!(
        its(&scene),
        [
            "10000 running t101 c0 inferred",
            "20000 running t101 c0",
            "20500 syscall t101 c0: read",
            "20600 syscall t101: read"
        ]
    );
    assert_eq!(scene.build().summary.syscall_ns, 0, "after the raise nothing is counted");
}

#[test]
fn a_thread_changes_goroutines_unseen() {
    // Without the runtime's records the time of the change is unknown, and neither goroutine counts as
    // running.
    let scene =
        Scene::new().enter(12_000, 0, T, 9, READ).exit(12_500, 0, T, 9, READ).enter(15_000, 0, T, G, READ);
    assert_eq!(
        its(&scene),
        [
            "10000 not_running inferred",
            "12000 not_running",
            "12500 unknown t101: thread 101 ran goroutine 9, then goroutine 7",
            "15000 syscall t101 c0: read",
            "20000 running t101 c0",
        ]
    );
    let other = lines(track(&scene.build(), TrackKind::Goroutine, 9));
    assert_eq!(
        other,
        [
            "10000 running t101 c0 inferred",
            "12000 syscall t101 c0: read",
            "12500 unknown t101: thread 101 ran goroutine 9, then goroutine 7",
            "15000 not_running",
        ]
    );
}

#[test]
fn sends_show_when_a_thread_has_changed_goroutines() {
    let send = |scene: Scene, at, goroutine| scene.slot(at, (0, T), kind::SEND, goroutine, 0, [0; 3]);
    let scene = send(send(send(Scene::new(), 12_000, 9), 18_000, 9), 18_200, G);
    assert_eq!(
        its(&scene),
        [
            "10000 not_running inferred",
            "12000 not_running",
            "18000 unknown t101: thread 101 ran goroutine 9, then goroutine 7",
            "18200 running t101 c0",
        ]
    );
    // They are no events of their own: not every send has a record.
    let events = scene.build().events;
    assert!(events.iter().all(|event| event.time_ns >= RAISE), "{events:?}");
}

#[test]
fn a_thread_without_a_goroutine_gets_one_unseen() {
    // The goroutine began to run between the idle state and its first record: inferred from the switch-in.
    let scene = Scene::new()
        .enter(11_000, 0, T, 0, FUTEX)
        .out(11_100, 0, T, 0, SLEEPS, 0)
        .into(14_000, 0, T, 0)
        .exit(14_100, 0, T, 0, FUTEX)
        .enter(16_000, 0, T, G, READ)
        .exit(16_100, 0, T, G, READ);
    assert_eq!(
        its(&scene),
        [
            "10000 not_running inferred",
            "11000 not_running",
            "14100 running t101 c0 inferred",
            "16000 syscall t101 c0: read",
            "16100 running t101 c0",
        ]
    );
    let thread = lines(track(&scene.build(), TrackKind::Thread, T.into()));
    assert_eq!(
        thread[..4],
        ["10000 running c0", "11000 syscall c0: futex", "11100 syscall: futex", "14000 syscall c0: futex"]
    );
    assert_eq!(scene.build().summary.inferred_ns, 1_900);
}

#[test]
fn another_thread_goes_on_with_it() {
    let scene = Scene::new()
        .enter(11_000, 0, 102, G, READ)
        .exit(11_500, 0, 102, G, READ)
        .enter(12_000, 0, 102, 0, FUTEX)
        .out(12_100, 0, 102, 0, SLEEPS, 0);
    assert_eq!(
        its(&scene),
        [
            "10000 running t102 c0 inferred",
            "11000 syscall t102 c0: read",
            // The thread had the goroutine until here at the latest: it was idle then.
            "11500 running t102 c0 inferred",
            "12000 running t101 inferred",
            "20000 running t101",
        ]
    );
    assert_eq!(scene.build().summary.thread_changes, 1);
}

#[test]
fn preempted_and_moved() {
    let scene = Scene::new()
        .enter(10_500, 0, T, G, READ)
        .exit(10_600, 0, T, G, READ)
        .preempted(12_000, 0, T, G, 55)
        .slot(12_500, (1, T), kind::MIGRATE, 0, 0, [0, 1, 0])
        .into(13_000, 1, T, 0);
    let timeline = scene.build();
    assert_eq!(
        lines(track(&timeline, TrackKind::Goroutine, G))[3..],
        ["12000 runnable t101: thread preempted by bash[55]", "13000 running t101 c1"]
    );
    assert_eq!((timeline.summary.preemptions, timeline.summary.migrations), (Some(1), Some(1)));
    assert_eq!(timeline.summary.runnable_ns, 1_000);
    assert_eq!(
        lines(track(&timeline, TrackKind::Cpu, 0)),
        ["10000 running t101 g7", "12000 other: bash[55] first"]
    );
    assert_eq!(
        lines(track(&timeline, TrackKind::Cpu, 1)),
        ["10000 other: idle last", "13000 running t101 g7"]
    );
    let last = timeline.summary.last;
    assert_eq!(last[1].words, "preempted on CPU 0 by bash[55], back after 1.00 µs on CPU 1");
}

#[test]
fn what_was_lost_is_not_known() {
    let scene = Scene::new()
        .enter(11_000, 0, T, G, READ)
        .out(11_100, 0, T, G, SLEEPS, 0)
        .gap(0, 12_000, 14_000, 33)
        .enter(16_000, 0, T, G, READ)
        .exit(16_500, 0, T, G, READ);
    assert_eq!(
        its(&scene),
        [
            "10000 running t101 c0 inferred",
            "11000 syscall t101 c0: read",
            "11100 syscall t101: read",
            "12000 unknown: 33 records of CPU 0 were lost",
            "14000 running t101 c0 inferred",
            "16000 syscall t101 c0: read",
            "16500 running t101 c0",
        ]
    );
    let timeline = scene.build();
    assert_eq!((timeline.lost, timeline.summary.unknown_ns), (33, 2_000));
    assert_eq!(lines(track(&timeline, TrackKind::Cpu, 0))[2], "12000 unknown: 33 records of CPU 0 were lost");
}

#[test]
fn a_gap_of_one_cpu_leaves_what_runs_on_another() {
    let scene = Scene::new()
        .enter(10_500, 1, T, G, READ)
        .exit(10_600, 1, T, G, READ)
        .gap(0, 12_000, 14_000, 0)
        .enter(16_000, 1, T, G, READ);
    assert_eq!(
        its(&scene)[1..],
        [
            "10500 syscall t101 c1: read",
            "10600 running t101 c1",
            "16000 syscall t101 c1: read",
            "20000 running t101 c1",
        ]
    );
}

#[test]
fn a_ring_that_was_overwritten_into_the_window() {
    // The first record after the gap shows that the thread was running since the gap's end, but not before.
    let scene = Scene::new().gap(0, 5_000, 13_000, 400).out(14_000, 0, T, G, SLEEPS, 0).into(15_000, 0, T, 0);
    assert_eq!(
        its(&scene),
        [
            "10000 unknown: 400 records of CPU 0 were lost",
            "13000 running t101 c0 inferred",
            "14000 waiting t101: in the kernel, reason not recorded",
            "15000 running t101 c0",
        ]
    );
}

/// The goroutine of a thread in user mode is not recorded at every moment.
#[test]
fn a_thread_that_had_the_goroutine_is_not_known_to_have_kept_it() {
    let seen = || {
        let mut scene = Scene::new().enter(11_000, 1, 102, G, READ).exit(11_100, 1, 102, G, READ);
        scene.times = (10_000, 200_000, 201_000);
        scene
    };
    let before = ["10000 running t102 c1 inferred", "11000 syscall t102 c1: read"];
    let (after, raised) = ("11100 running t102 c1 inferred", "200000 running t101");
    assert_eq!(its(&seen()), [before[0], before[1], after, raised]);
    let gap = ["50000 unknown: 9 records of CPU 0 were lost", "120000 running t101 inferred", raised];
    assert_eq!(its(&seen().gap(0, 50_000, 120_000, 9)), [&before[..], &[after], &gap].concat());
}

#[test]
fn a_gap_before_the_window_undoes_what_was_recorded_before_it() {
    let scene =
        Scene::new().enter(7_000, 0, T, G, READ).gap(0, 8_000, 9_000, 50).enter(15_000, 1, T, G, READ);
    assert_eq!(
        its(&scene),
        ["10000 running t101 c1 inferred", "15000 syscall t101 c1: read", "20000 running t101 c1"]
    );
    let timeline = scene.build();
    assert_eq!((timeline.lost, timeline.gaps.len()), (0, 0), "nothing is missing in the window");
}

#[test]
fn several_things_at_one_nanosecond_stay_in_their_order() {
    let scene = Scene::new()
        .enter(12_000, 0, T, G, READ)
        .exit(12_000, 0, T, G, READ)
        .enter(12_000, 0, T, G, READ)
        .exit(12_500, 0, T, G, READ);
    assert_eq!(its(&scene)[1..3], ["12000 syscall t101 c0: read", "12500 running t101 c0"]);
    let words: Vec<_> = scene.build().events.iter().map(|e| e.what).collect();
    use crate::incident::timeline::event::What::{SyscallEnter, SyscallExit};
    assert_eq!(words, [SyscallEnter, SyscallExit, SyscallEnter, SyscallExit]);
}

#[test]
fn samples_are_sightings_too() {
    let scene = Scene::new().sample(13_000, 1, 102, 9, &[0xa, 0xb]).sample(13_500, 1, T, G, &[0xc]);
    let timeline = scene.build();
    let sample = &track(&timeline, TrackKind::Goroutine, 9).samples[0];
    assert_eq!((sample.cpu, sample.frames.len(), sample.frames[0].function.as_str()), (1, 2, "main.fa"));
    assert_eq!(timeline.summary.samples, Some(1));
}

#[test]
fn other_processes_are_left_alone() {
    let mut scene = Scene::new().enter(12_000, 0, 900, 3, READ).enter(13_000, 0, T, G, READ);
    scene.records[0].1.tgid = 900;
    let timeline = scene.build();
    assert_eq!(timeline.events.len(), 1);
    assert!(timeline.tracks.iter().all(|t| t.id != 900));
}

#[test]
fn two_threads_on_one_cpu_means_that_a_switch_is_missing() {
    let scene = Scene::new().into(11_000, 0, 102, 0).into(13_000, 0, T, 0).out(14_000, 0, T, G, SLEEPS, 0);
    assert_eq!(
        lines(track(&scene.build(), TrackKind::Cpu, 0)),
        ["10000 other: idle last", "11000 running t102", "13000 running t101 g7", "14000 other: idle first"]
    );
}

#[test]
fn states_say_what_a_document_would() {
    let scene = Scene::new().enter(12_000, 0, T, G, READ);
    let timeline = scene.build();
    let text = serde_json::to_string(&timeline).expect("JSON");
    let again: crate::incident::timeline::Timeline = serde_json::from_str(&text).expect("a timeline");
    assert_eq!(again, timeline);
    assert_eq!(timeline.tracks[0].states[1].state, Doing::Syscall);
}
