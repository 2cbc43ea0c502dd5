//! Text in the format of `perf script`: for each sample a header line, its frames below, and a blank line.
//!
//! Events without a stack are written as comments: parsers would count them as samples with empty stacks. The
//! layout is that of perf's default fields, which FlameGraph's stackcollapse-perf.pl, speedscope and others
//! parse: `comm pid/tid [cpu] seconds.microseconds: period event:` and `\taddress symbol+offset (object)`.
//! <https://github.com/torvalds/linux/blob/v6.12/tools/perf/builtin-script.c>,
//! <https://github.com/brendangregg/FlameGraph/blob/v1.0/stackcollapse-perf.pl>

use std::fmt::Write as _;

use crate::incident::{
    Addr, Frame, Incident, escape,
    timeline::{Stack, Timeline, event::What},
};

/// Each sample counts as one, because its real period does not matter to the parser.
const PERIOD: u64 = 1;

/// Returns the content of the file: samples with their stacks, and events, in order of time.
pub fn perf_script(incident: &Incident, timeline: &Timeline) -> String {
    let (comm, pid) = (word(&super::program(incident)), incident.process.pid);
    let object = word(incident.process.exe.as_deref().unwrap_or("[unknown]"));
    let mut entries: Vec<(u64, String)> = Vec::new();
    for sample in timeline.tracks.iter().flat_map(|track| &track.samples) {
        let head = head(&comm, pid, Some(sample.thread), Some(sample.cpu), sample.time_ns);
        let mut text = format!("{head} {PERIOD:>10} cpu-clock:\n");
        stack(sample, &object, &mut text);
        text.push('\n');
        entries.push((sample.time_ns, text));
    }
    for event in &timeline.events {
        let mut text = String::new();
        let goroutine = event.goroutine.map_or_else(String::new, |id| format!(" goroutine {id}"));
        let head = head(&comm, pid, event.thread, event.cpu, event.time_ns);
        let _ =
            writeln!(text, "# {head}{goroutine} {}: {}", name(event.what), escape::one_line(&event.words));
        // A raise has the incident's stack.
        if event.what == What::Raise && event.time_ns == timeline.raise_ns && !incident.stack.is_empty() {
            let _ = writeln!(text, "{head} {PERIOD:>10} panicwatch-raise:");
            incident.stack.iter().for_each(|frame| user(frame, &object, &mut text));
            text.push('\n');
        }
        entries.push((event.time_ns, text));
    }
    entries.sort_by_key(|(time, _)| *time);
    entries.into_iter().map(|(_, text)| text).collect()
}

fn head(comm: &str, pid: u32, tid: Option<u32>, cpu: Option<u32>, at: u64) -> String {
    let mut text = format!("{comm} {pid}/{}", tid.unwrap_or(pid));
    if let Some(cpu) = cpu {
        let _ = write!(text, " [{cpu:03}]");
    }
    // perf rounds down to microseconds.
    let _ = write!(text, " {}.{:06}:", at / 1_000_000_000, at % 1_000_000_000 / 1_000);
    text
}

/// Returns the name of the event kind in the document.
fn name(what: What) -> String {
    serde_json::to_value(what).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Replaces blanks: parsers split the fields before the time at blanks.
fn word(text: &str) -> String {
    let text: String =
        escape::one_line_max(text, 500).chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    if text.is_empty() { "?".to_owned() } else { text }
}

fn stack(sample: &Stack, object: &str, out: &mut String) {
    for frame in &sample.kernel {
        let symbol = frame.symbol.as_deref().map_or_else(|| "[unknown]".to_owned(), word);
        line(frame.pc, &symbol, "[kernel.kallsyms]", out);
    }
    sample.frames.iter().for_each(|frame| user(frame, object, out));
}

fn user(frame: &Frame, object: &str, out: &mut String) {
    if frame.inlined {
        // Like perf writes inlined calls.
        return line(frame.pc, &word(&frame.function), "inlined", out);
    }
    let symbol = match frame.function.starts_with("0x") {
        true => "[unknown]".to_owned(),
        false => format!("{}+{:#x}", word(&frame.function), frame.offset),
    };
    line(frame.pc, &symbol, object, out);
}

fn line(pc: Addr, symbol: &str, object: &str, out: &mut String) {
    let _ = writeln!(out, "\t{:>16x} {symbol} ({object})", pc.0);
}
