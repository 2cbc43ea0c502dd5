//! Exports of the stored incident, parsed as other tools parse them.

use crate::{
    incident::Incident,
    render::{export::perfetto::tests as reader, folded, perf_script, perfetto},
};

fn incident() -> Incident {
    serde_json::from_str(include_str!("../../../../tests/incidents/slow_read.json")).expect("an incident")
}

#[test]
fn perfetto_reads_it() {
    let incident = incident();
    let bytes = perfetto(&incident, incident.timeline.as_ref().expect("a timeline"));
    let slices: Vec<String> = reader::slices(&bytes).into_values().flatten().collect();
    for wanted in [
        "5218433419277-5218433429277 read",
        "5218436119277-5218438119277 chan receive",
        "5218439719277-5218440069277 GC mark termination",
        "5218443019277-5218445429277 panic: runtime error: invalid memory address or nil pointer dereference",
    ] {
        assert!(slices.iter().any(|slice| slice == wanted), "{wanted} is not in {slices:#?}");
    }
    let Some(leaves) = reader::leaves(&bytes) else { return };
    for wanted in [
        ".packet.track_descriptor.name = goroutine 7 (panicking)",
        ".packet.track_descriptor.name = CPU 1",
        ".packet.track_descriptor.thread.tid = 4719",
        ".packet.track_event.name = made runnable by goroutine 12",
        ".packet.track_event.name = wakes thread 4719",
        ".packet.track_event.debug_annotations.string_value = /src/shop/cart/cart.go",
        // 2025-07-09 03:12:44.108211907 minus the ten milliseconds of the window before the raise.
        ".packet.clock_snapshot.clocks.timestamp = 1752030764098211907",
    ] {
        assert!(leaves.iter().any(|leaf| leaf == wanted), "{wanted} is not in {leaves:#?}");
    }
    assert_eq!(leaves.iter().filter(|leaf| leaf.starts_with(".packet.track_event.flow_ids")).count(), 4);
}

/// Parses as stackcollapse-perf.pl and speedscope do: a header line, frames that begin with blanks, an empty
/// line.
/// <https://github.com/brendangregg/FlameGraph/blob/v1.0/stackcollapse-perf.pl>
#[test]
fn readers_of_perf_script_find_the_samples() {
    let incident = incident();
    let text = perf_script(&incident, incident.timeline.as_ref().expect("a timeline"));
    let plain: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let samples: Vec<Vec<&str>> =
        plain.split_terminator("\n\n").map(|sample| sample.lines().collect()).collect();
    assert_eq!(samples.len(), 4, "{plain}");
    for sample in &samples {
        let (head, frames) = sample.split_first().expect("a header");
        let fields: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(fields[0], "shop");
        assert!(fields[1].split('/').all(|id| id.parse::<u32>().is_ok()), "{head}");
        assert!(
            head.ends_with(": 1 cpu-clock:")
                || head.ends_with(" panicwatch-raise:")
                || head.contains("cpu-clock:")
        );
        assert!(!frames.is_empty());
        for frame in frames {
            let mut fields = frame.split_whitespace();
            assert!(frame.starts_with('\t'), "{frame:?}");
            assert!(u64::from_str_radix(fields.next().expect("an address"), 16).is_ok(), "{frame:?}");
            assert!(frame.ends_with(')'), "{frame:?}");
        }
    }
    assert!(samples[0][1].contains("vfs_read+0x9f ([kernel.kallsyms])"), "{plain}");
}

#[test]
fn stacks_fold() {
    let incident = incident();
    let mut timeline = incident.timeline.clone().expect("a timeline");
    assert_eq!(
        folded(&incident, &timeline),
        "shop;goroutine 12;main.main.func1;internal/poll.(*FD).Read;vfs_read_[k] 1\n\
         shop;goroutine 7;main.checkout;example.com/shop/cart.(*Cart).Total 2\n"
    );
    // Without samples: the calls with their self time in microseconds. A call that is open at the end lasts
    // until then.
    timeline.tracks.iter_mut().for_each(|track| track.samples.clear());
    assert_eq!(
        folded(&incident, &timeline),
        "shop;goroutine 7;main.checkout 5400\n\
         shop;goroutine 7;main.checkout;example.com/shop/cart.(*Cart).Total 7010\n"
    );
}

#[test]
fn names_do_not_break_lines() {
    let mut incident = incident();
    incident.process.exe = Some("/a/b;c \n d".to_owned());
    let mut timeline = incident.timeline.clone().expect("a timeline");
    for sample in timeline.tracks.iter_mut().flat_map(|track| &mut track.samples) {
        sample.frames[0].function = "x;y\n\tz 5\u{202e}".to_owned();
    }
    let text = folded(&incident, &timeline);
    assert!(text.starts_with("b:c \\n d;goroutine 12;"), "{text}");
    assert!(text.lines().all(|line| line.ends_with(" 1") || line.ends_with(" 2")), "{text}");
    let script = perf_script(&incident, &timeline);
    assert!(
        script
            .lines()
            .all(|l| l.is_empty() || l.starts_with(['\t', '#']) || l.starts_with("b;c_\\n_d 4711/"))
    );
}
