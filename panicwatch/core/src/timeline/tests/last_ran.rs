//! Tests of threads whose only records are switch-outs with the goroutine that ran last, and of goroutines
//! recorded as wakers.

use panicwatch_common::recorder::{NO_SYSCALL, kind, pair};

use super::scene::{G, PID, SLEEPS, Scene, T, its, lines, track};
use crate::incident::timeline::{TrackKind, event::What};

/// Another thread of the process.
const OTHER: u32 = 102;
const H: u64 = 9;

/// A thread that is switched out in the Go scheduler at 1.1 ms after H ran, runs from 1.2 ms to `to`, and is
/// switched out again; the raise is at 2 ms.
fn turn(to: u64, last: u64, stops: u8) -> Scene {
    let mut scene = Scene::new();
    scene.times = (1_000_000, 2_000_000, 2_100_000);
    scene
        .out(1_050_000, 1, T, 0, SLEEPS, 0)
        .rests(1_100_000, OTHER, H, 4)
        .into(1_200_000, 0, OTHER, 0)
        .rests(to, OTHER, last, stops)
        .into(1_900_000, 1, T, 0)
}

#[test]
fn the_goroutine_that_ran_last_had_the_turn() {
    let scene = turn(1_500_000, H, 5);
    assert_eq!(
        its(&scene)[1..4],
        ["1100000 not_running", "1200000 not_running inferred", "1500000 not_running"],
        "it may have had a short turn beside the other goroutine"
    );
    assert_eq!(
        lines(track(&scene.build(), TrackKind::Goroutine, H))[..4],
        [
            "1000000 not_running inferred",
            "1100000 not_running",
            "1200000 running t102 c0 inferred",
            "1500000 not_running"
        ]
    );
    let summary = scene.build().summary;
    assert_eq!((summary.unknown_ns, summary.not_running_inferred_ns), (0, 400_000));
}

#[test]
fn a_short_turn_has_a_goroutine_too() {
    let scene = turn(1_220_000, G, 200);
    assert_eq!(
        its(&scene)[1..],
        [
            "1100000 not_running",
            "1200000 running t102 c0 inferred",
            "1220000 not_running",
            "1900000 running t101 c1 inferred",
            "2000000 running t101 c1"
        ]
    );
}

#[test]
fn a_turn_in_which_no_goroutine_ran() {
    // The same goroutine ran last, and it has not stopped running since: no goroutine ran.
    let scene = turn(1_220_000, H, 4);
    assert_eq!(
        its(&scene)[1..],
        ["1100000 not_running", "1900000 running t101 c1 inferred", "2000000 running t101 c1"]
    );
    // In a long interval it may have stopped 256 times.
    assert_eq!(its(&turn(1_500_000, H, 4))[2], "1200000 not_running inferred");
}

#[test]
fn a_first_rest_says_nothing_of_the_turn() {
    // When the last goroutine ran is unknown.
    let mut scene = Scene::new();
    scene.times = (1_000_000, 2_000_000, 2_100_000);
    let scene = scene
        .out(1_050_000, 1, T, 0, SLEEPS, 0)
        .out(1_100_000, 0, OTHER, 0, SLEEPS, 0)
        .into(1_200_000, 0, OTHER, 0)
        .rests(1_500_000, OTHER, G, 5)
        .into(1_900_000, 1, T, 0);
    assert_eq!(its(&scene)[2], "1200000 unknown: a thread was running, its goroutines were not recorded");
    // The same holds for the first switch-out after a gap.
    let scene = turn(1_500_000, G, 5).gap(0, 1_300_000, 1_400_000, 1);
    assert_eq!(its(&scene).last().map(String::as_str), Some("2000000 running t101 c1"));
    assert!(its(&scene).iter().all(|state| !state.contains("t102")), "{:?}", its(&scene));
}

#[test]
fn a_goroutine_is_followed_by_the_one_that_ran_last() {
    let mut scene = Scene::new();
    scene.times = (1_000_000, 2_000_000, 2_100_000);
    let scene = scene
        .out(1_050_000, 1, T, 0, SLEEPS, 0)
        .rests(1_100_000, OTHER, H, 4)
        .into(1_200_000, 0, OTHER, 0)
        .preempted(1_300_000, 0, OTHER, G, 55)
        .into(1_400_000, 0, OTHER, 55)
        .rests(1_500_000, OTHER, H, 5)
        .into(1_900_000, 1, T, 0);
    let states = its(&scene);
    assert_eq!(states[2], "1200000 running t102 c0 inferred");
    assert_eq!(states[4], "1400000 unknown t102: thread 102 ran goroutine 7, then goroutine 9");
    assert_eq!(states[5], "1500000 not_running");
}

#[test]
fn a_rest_is_no_sighting_of_the_goroutine() {
    let timeline = turn(1_500_000, G, 5).build();
    let rest = timeline
        .events
        .iter()
        .find(|e| e.time_ns == 1_500_000 && e.what == What::SwitchOut)
        .expect("an event");
    assert_eq!((rest.goroutine, rest.other_goroutine), (None, Some(G)));
    assert_eq!(rest.words, "blocked (off CPU 0)");
}

#[test]
fn a_waker_is_seen_with_its_goroutine() {
    let scene = Scene::new().into(12_000, 1, T, 0).slot(
        13_000,
        (1, OTHER),
        kind::WAKING,
        0,
        NO_SYSCALL,
        [pair(T, PID), H, 0],
    );
    assert_eq!(
        its(&scene)[1..3],
        ["12000 not_running inferred", "13000 unknown t101: thread 101 ran goroutine 9, then goroutine 7"]
    );
    // A waker in another process has no goroutine of this one.
    let scene = Scene::new().into(12_000, 1, T, 0).waking(13_000, 1, OTHER, T, H);
    assert_eq!(its(&scene)[1], "12000 running t101 c1 inferred");
}
