//! Properties that hold for any records.

use panicwatch_common::recorder::{Slot, kind};
use proptest::prelude::*;

use super::scene::{FROM, G, PID, RAISE, Scene, T, TO};
use crate::incident::timeline::{Gap, Timeline, TrackKind};

const KINDS: [u32; 25] = [
    kind::SWITCH_OUT,
    kind::SWITCH_IN,
    kind::WAKING,
    kind::MIGRATE,
    kind::THREAD_BEGIN,
    kind::THREAD_END,
    kind::SIGNAL_SENT,
    kind::SIGNAL_DELIVERED,
    kind::SYSCALL_ENTER,
    kind::SYSCALL_EXIT,
    kind::PAGE_FAULT,
    kind::SEND,
    kind::GC_START,
    kind::GC_MARK_DONE,
    kind::STW_BEGIN,
    kind::STW_END,
    kind::GC_WORKER,
    kind::GO_CREATE,
    kind::GO_PARK,
    kind::GO_READY,
    kind::GO_RUN,
    kind::GO_YIELD,
    kind::GO_END,
    kind::FUNCTION,
    999,
];

fn record() -> impl Strategy<Value = (u32, Slot)> {
    let extra = prop_oneof![0_u32..4, any::<u32>()];
    let arg = prop_oneof![0_u64..12, any::<u64>()];
    // Rarely a time far outside the window.
    let time = prop_oneof![30 => 8_000_u64..22_000, 1 => any::<u64>()];
    (0_u32..3, 0..KINDS.len(), time, 100_u32..104, 5_u64..9, extra, [arg.clone(), arg.clone(), arg]).prop_map(
        |(cpu, kind, time_ns, tid, goid, extra, args)| {
            let goid = if goid == 5 { 0 } else { goid };
            (cpu, Slot { seq: 1, time_ns, kind: KINDS[kind], tgid: PID, tid, extra, goid, args })
        },
    )
}

fn gap() -> impl Strategy<Value = Gap> {
    (0_u32..3, 8_000_u64..22_000, 0_u64..5_000, 0_u64..50).prop_map(|(cpu, from_ns, len, lost)| Gap {
        cpu,
        from_ns,
        to_ns: from_ns + len,
        lost,
    })
}

fn check(timeline: &Timeline) {
    assert!(!timeline.tracks.is_empty());
    assert_eq!((timeline.tracks[0].kind, timeline.tracks[0].id), (TrackKind::Goroutine, G));
    for track in &timeline.tracks {
        let name = format!("{:?} {}", track.kind, track.id);
        let mut at = FROM;
        for state in &track.states {
            assert_eq!(state.from_ns, at, "{name}: no hole, no overlap");
            assert!(state.to_ns > at, "{name}");
            at = state.to_ns;
        }
        assert_eq!(at, TO, "{name}");
    }
    let s = &timeline.summary;
    let sum = s.running_ns
        + s.runnable_ns
        + s.waiting_ns
        + s.syscall_ns
        + s.stopped_ns
        + s.not_running_ns
        + s.ended_ns
        + s.unknown_ns;
    assert_eq!(sum, RAISE - FROM);
    assert_eq!(s.waiting.iter().map(|w| w.ns).sum::<u64>(), s.waiting_ns);
    assert_eq!(s.syscalls.iter().map(|w| w.ns).sum::<u64>(), s.syscall_ns);
    assert!(s.inferred_ns <= s.running_ns && s.not_running_inferred_ns <= s.not_running_ns);
    assert!(timeline.events.is_sorted_by_key(|e| e.time_ns));
    assert!(timeline.events.iter().all(|e| (FROM..=TO).contains(&e.time_ns)));
}

proptest! {
    #[test]
    fn tracks_cover_the_window_once(
        mut records in prop::collection::vec(record(), 0..120),
        gaps in prop::collection::vec(gap(), 0..4),
    ) {
        records.sort_by_key(|(_, slot)| slot.time_ns);
        let mut scene = Scene::new();
        (scene.records, scene.gaps) = (records, gaps);
        let timeline = scene.build();
        check(&timeline);
        prop_assert_eq!(scene.build(), timeline, "always the same");
    }
}

#[test]
fn very_many_records_are_bounded_and_counted() {
    let mut scene = Scene::new();
    for i in 0..60_000_u64 {
        let at = FROM + i / 6;
        scene = match i % 2 {
            0 => scene.enter(at, 0, T, G, 0),
            _ => scene.exit(at, 0, T, G, 0),
        };
    }
    for i in 0..1_000 {
        scene = scene.enter(20_100, 1, 1_000 + i, 500 + u64::from(i), 1);
    }
    let timeline = scene.build();
    check(&timeline);
    assert_eq!(timeline.events.len(), 20_000);
    assert_eq!(timeline.events_left_out, 41_000);
    assert!(timeline.events.iter().any(|e| e.time_ns > RAISE), "what follows the raise has its part");
    assert!(timeline.events.iter().any(|e| e.time_ns == RAISE - 1));
    assert!(timeline.tracks.len() < 600 && timeline.tracks_left_out > 1_000, "{}", timeline.tracks_left_out);
}
