//! Checks that the stored document with a timeline (tests/incidents/slow_read.json) is what its records
//! produce; other tests render it. `UPDATE_EXPECT=1` rewrites it.

use expect_test::expect_file;
use panicwatch_common::recorder::{PREEMPTED, kind, pair};

use super::{
    super::{Input, Names, build},
    scene::{FUTEX, Plain, READ, SLEEPS, Scene},
};
use crate::incident::{Addr, Frame, Incident, timeline::Off};

const PID: u32 = 4711;
const G: u64 = 7;
const T: u32 = 4719;
const M: u32 = 4713;
const RAISE: u64 = 5_218_443_019_277;

/// Names of the program's functions.
struct Shop;

impl Names for Shop {
    fn frames(&self, pc: u64, _exact: bool) -> Vec<Frame> {
        let (function, file, line, entry) = match pc {
            0x654940..=0x654a00 => {
                ("example.com/shop/cart.(*Cart).Total", "/src/shop/cart/cart.go", 14, 0x654940)
            }
            0x654aa0..=0x654b40 => ("main.checkout", "/src/shop/main.go", 27, 0x654aa0),
            0x655220..=0x655300 => ("main.main.func1", "/src/shop/main.go", 80, 0x655220),
            0x4a0000..=0x4a00ff => {
                ("internal/poll.(*FD).Read", "/usr/local/go/src/internal/poll/fd_unix.go", 165, 0x4a0000)
            }
            _ => return Vec::new(),
        };
        let (file, line, offset) = (Some(file.to_owned()), Some(line), pc - entry);
        vec![Frame { function: function.to_owned(), file, line, pc: Addr(pc), offset, inlined: false }]
    }
    fn kernel(&self, pc: u64) -> Option<String> {
        (pc == 0xffff_ffff_8130_4f1f).then(|| "vfs_read+0x9f".to_owned())
    }
    fn wait_reason(&self, number: u32) -> Option<&str> {
        Plain.wait_reason(number)
    }
    fn stw_reason(&self, number: u32) -> Option<&str> {
        Plain.stw_reason(number)
    }
    fn thread_name(&self, _tid: u32) -> Option<String> {
        Some("shop".to_owned())
    }
    fn syscall(&self, number: u32) -> Option<&str> {
        Plain.syscall(number)
    }
}

/// Returns the time `us` microseconds before the raise.
fn ago(us: u64) -> u64 {
    RAISE - us * 1_000
}

fn scene(end_ns: u64) -> Scene {
    let mut scene = Scene::new();
    (scene.pid, scene.thread, scene.times) = (PID, Some(T), (ago(10_000), RAISE, end_ns));
    scene.off.push(Off { source: "fault".to_owned(), reason: "left out to keep the budget".to_owned() });
    let mut scene = scene
        .run(ago(10_400), 1, T, G)
        .function(ago(10_350), (1, T), G, 0x654aa0, 0x120)
        .enter(ago(9_600), 1, T, G, READ)
        .out(ago(9_590), 1, T, G, SLEEPS, 0)
        .waking(ago(7_210), 0, T, M, 12)
        .into(ago(7_190), 1, T, 0)
        .exit(ago(7_180), 1, T, G, READ)
        .park(ago(6_900), 1, T, G)
        .enter(ago(6_880), 1, T, 0, FUTEX)
        .out(ago(6_875), 1, T, 0, SLEEPS, 812)
        .slot(ago(6_000), (0, M), kind::GC_START, 12, 0, [0; 3])
        .slot(ago(5_990), (0, M), kind::STW_BEGIN, 12, 2, [0; 3])
        .slot(ago(5_930), (0, M), kind::STW_END, 12, 0, [0; 3])
        .slot(ago(5_800), (0, M), kind::GO_CREATE, 31, 0, [0x655220, 0x655134, 12])
        .ready(ago(4_900), 0, M, G, 12)
        .waking(ago(4_890), 0, T, M, 12)
        .into(ago(4_700), 1, T, 812)
        .exit(ago(4_695), 1, T, 0, FUTEX)
        .run(ago(4_680), 1, T, G)
        .function(ago(4_600), (1, T), G, 0x654940, 0x180)
        .function(ago(4_100), (1, T), G, 0x654940, 0x180)
        .slot(ago(3_300), (0, M), kind::STW_BEGIN, 12, 1, [0; 3])
        .slot(ago(3_280), (0, M), kind::SIGNAL_SENT, 12, 23, [pair(M, PID), (-6_i64) as u64, 0])
        .slot(ago(3_275), (1, T), kind::SIGNAL_DELIVERED, G, 23, [(-6_i64) as u64, 0x47f4a0, 0])
        .slot(ago(3_270), (1, T), kind::GO_YIELD, G, 1, [0; 3])
        .slot(ago(3_200), (0, M), kind::GC_MARK_DONE, 12, 0, [0; 3])
        .slot(ago(2_950), (0, M), kind::STW_END, 12, 0, [0; 3])
        .run(ago(2_900), 1, T, G)
        .out(ago(1_600), 1, T, G, PREEMPTED, 812)
        .enter(ago(1_250), 0, M, 0, FUTEX)
        .out(ago(1_240), 0, M, 0, SLEEPS, 0)
        .slot(ago(1_200), (0, T), kind::MIGRATE, 0, 0, [1, 0, 0])
        .into(ago(1_150), 0, T, 0)
        .function(ago(40), (0, T), G, 0x654940, 0x180);
    for (us, cpu, user) in [
        (8_000_u64, 0, [0x4a0010_u64, 0x655250]),
        (4_000, 1, [0x654960, 0x654b33]),
        (900, 0, [0x65496b, 0x654b33]),
    ] {
        let (tid, goid) = if us == 8_000 { (M, 12) } else { (T, G) };
        scene = scene.sample(ago(us), cpu, tid, goid, &user);
    }
    let kernel = &mut scene.samples[0].1;
    (kernel.kernel_frames, kernel.kernel[0]) = (1, 0xffff_ffff_8130_4f1f);
    scene.gap(0, ago(10_000), ago(9_100), 212)
}

#[test]
fn the_stored_timeline_is_what_the_records_give() {
    let mut incident: Incident =
        serde_json::from_str(include_str!("../../../../tests/incidents/nil_dereference.json"))
            .expect("an incident");
    let end_ns = incident.end_ns.expect("an end");
    let mut scene = scene(end_ns);
    scene.panics = incident.panics.clone();
    scene.records.sort_by_key(|(_, slot)| slot.time_ns);
    let timeline = build(&Input {
        window_ns: 10_000_000,
        from_ns: scene.times.0,
        raise_ns: RAISE,
        to_ns: end_ns,
        records: &scene.records,
        samples: &scene.samples,
        gaps: &scene.gaps,
        off: &scene.off,
        pid: PID,
        goroutine: Some(G),
        thread: Some(T),
        cpu: Some(0),
        panics: &incident.panics,
        outcome: incident.outcome,
        end_ns: incident.end_ns,
        names: &Shop,
    });
    incident.timeline = Some(timeline);
    let text = serde_json::to_string_pretty(&incident).expect("JSON") + "\n";
    expect_file!["../../../../tests/incidents/slow_read.json"].assert_eq(&text);
}
