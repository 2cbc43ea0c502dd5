//! Tests of sources that were disabled all the time or part of it: a lack of their records must not mean
//! anything.

use panicwatch_common::recorder::{NO_SYSCALL, PREEMPTED, kind};

use super::scene::{G, READ, SLEEPS, Scene, T, its, lines, track};
use crate::{incident::timeline::TrackKind, recorder::Source};

#[test]
fn without_switches_nobody_is_said_to_run() {
    let scene = Scene::new().without(Source::Switch).enter(12_000, 0, T, G, READ).exit(13_000, 0, T, G, READ);
    let why = "context switches were not recorded all the time";
    assert_eq!(its(&scene)[0], format!("10000 unknown t101 inferred: {why}"));
    let timeline = scene.build();
    assert_eq!((timeline.summary.running_ns, timeline.summary.preemptions), (0, None));
    assert!(timeline.tracks.iter().all(|t| t.kind != TrackKind::Cpu));
}

#[test]
fn without_system_calls_no_thread_is_said_to_be_in_none() {
    // A new thread is in no call, but it may have entered one since.
    let scene = Scene::new()
        .without(Source::Syscall)
        .slot(11_000, (0, T), kind::THREAD_BEGIN, 9, 0, [55, 0, 0])
        .into(11_100, 0, T, 0)
        .out(14_000, 0, T, G, SLEEPS, 0)
        .into(15_000, 0, T, 0);
    assert_eq!(
        its(&scene)[1..],
        [
            "11100 running t101 c0 inferred",
            "14000 waiting t101: in the kernel, reason not recorded",
            "15000 running t101 c0",
        ]
    );
}

#[test]
fn a_call_counts_from_its_entry_to_its_return_only() {
    // The entry at 14000 may have been the last record before the source was disabled.
    let scene = Scene::new()
        .without(Source::Syscall)
        .enter(12_000, 0, T, G, READ)
        .exit(13_000, 0, T, G, READ)
        .enter(14_000, 0, T, G, READ)
        .out(15_000, 0, T, G, PREEMPTED, 55)
        .into(16_000, 0, T, 55);
    assert_eq!(
        its(&scene)[1..4],
        [
            "12000 syscall t101 c0: read",
            "13000 running t101 c0",
            "15000 runnable t101: thread preempted by bash[55]"
        ]
    );
    assert_eq!(scene.build().summary.syscall_ns, 1_000);
}

#[test]
fn what_the_scheduler_said_may_not_hold_any_more() {
    let scene = Scene::new().without(Source::Goroutine).run(11_000, 0, T, G).park(12_000, 0, T, G);
    let states = its(&scene);
    assert!(states.iter().all(|state| !state.contains("waiting")), "{states:?}");
    assert_eq!(scene.build().summary.yields, None);
}

#[test]
fn a_world_that_may_have_been_started_unseen() {
    let scene = Scene::new().without(Source::Gc).slot(12_000, (1, 102), kind::STW_BEGIN, 9, 1, [0; 3]);
    assert_eq!(lines(track(&scene.build(), TrackKind::Gc, 0)), ["10000 unknown: no GC records"]);
}

#[test]
fn a_signals_handler_ends_by_a_call_without_a_number() {
    const RT_SIGRETURN: u32 = 15;
    let scene = Scene::new().enter(12_000, 0, T, G, RT_SIGRETURN).exit(12_100, 0, T, G, NO_SYSCALL);
    assert_eq!(its(&scene)[1..3], ["12000 syscall t101 c0: rt_sigreturn", "12100 running t101 c0"]);
    assert_eq!(scene.build().summary.last[0].words, "returned from the signal handler after 100 ns");
}

#[test]
fn losses_of_the_cpu_in_a_row_are_one_step() {
    let mut scene = Scene::new().enter(10_500, 0, T, G, READ).exit(10_600, 0, T, G, READ);
    for i in 0..20 {
        scene = scene.out(11_000 + i * 300, 0, T, G, PREEMPTED, 55).into(11_100 + i * 300, 0, T, 55);
    }
    let last: Vec<_> = scene.build().summary.last.into_iter().map(|step| step.words).collect();
    assert_eq!(
        last,
        [
            "read returned 5 after 100 ns",
            "preempted on CPU 0 by bash[55], 20 times in a row, 2.00 µs in total"
        ]
    );
}

#[test]
fn a_thread_that_ran_unseen_goroutines() {
    // Idle, running for a long time, idle again, without a record of any goroutine.
    let mut scene = Scene::new();
    scene.times = (1_000_000, 2_000_000, 2_100_000);
    let scene = scene
        .out(1_100_000, 0, T, 0, SLEEPS, 0)
        .into(1_200_000, 0, T, 0)
        .out(1_500_000, 0, T, 0, SLEEPS, 0)
        .into(1_900_000, 0, T, 0);
    let states = its(&scene);
    assert_eq!(
        states,
        [
            "1000000 not_running inferred",
            "1100000 not_running",
            "1200000 unknown: a thread was running, its goroutines were not recorded",
            "1500000 not_running",
            "1900000 running t101 c0 inferred",
            "2000000 running t101 c0",
        ]
    );
    let thread = lines(track(&scene.build(), TrackKind::Thread, T.into()));
    assert_eq!(thread[2], "1200000 running c0: the Go scheduler at both ends");
}

#[test]
fn between_two_sightings_another_may_have_had_its_turn() {
    let mut scene = Scene::new();
    scene.times = (1_000_000, 2_000_000, 2_100_000);
    let scene = scene
        .enter(1_100_000, 0, T, G, READ)
        .out(1_101_000, 0, T, G, SLEEPS, 0)
        .into(1_400_000, 0, T, 0)
        .exit(1_500_000, 0, T, G, READ)
        .enter(1_800_000, 0, T, G, READ);
    // While the thread is in a call or switched out, it certainly has the same goroutine.
    assert_eq!(
        its(&scene)[1..6],
        [
            "1100000 syscall t101 c0: read",
            "1101000 syscall t101: read",
            "1400000 syscall t101 c0: read",
            "1500000 running t101 c0 inferred",
            "1800000 syscall t101 c0: read",
        ]
    );
}
