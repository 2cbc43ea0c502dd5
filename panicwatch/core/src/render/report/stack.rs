//! Renders the stack: user frames are highlighted, recursion is folded, and omitted frames are counted.

use unicode_width::UnicodeWidthStr as _;

use super::{
    story,
    words::{module, place, tone_of},
};
use crate::{
    incident::{
        Frame, Incident, Kind, escape,
        frame_class::{self, Class},
    },
    render::text::line::{Line, Page, Tone, tail},
};

/// Go omits the frames between the 50 innermost and the 50 outermost.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go> (tracebackInnerFrames)
const INNER: usize = 50;
/// Maximum number of frames per part of the stack, whatever the document has.
const MAX_FRAMES: usize = 400;
/// Maximum number of functions in a cycle that is folded.
const MAX_PERIOD: usize = 4;
/// Minimum number of repetitions of a cycle that is folded.
const MIN_ROUNDS: usize = 4;
/// Minimum width at which the offset in the function is shown, as Go does.
const OFFSET_WIDTH: usize = 100;
/// Below this width, function and file have a line each.
const ONE_LINE_WIDTH: usize = 80;

pub(super) fn render(page: &mut Page<'_>, incident: &Incident) {
    let (stack, elided) = (&incident.stack, incident.stack_elided);
    page.title("Stack, innermost first");
    if stack.is_empty() {
        page.push(Line::new().own(Tone::Note, "  none"));
        return;
    }
    let columns = Columns::of(stack, page.width());
    let site = site_index(incident);
    let inner = if elided == Some(0) { stack.len() } else { stack.len().min(INNER) };
    part(page, incident, 0..inner, &columns, site);
    if elided != Some(0) {
        let line = Line::new().own(Tone::Note, "  … ");
        let line = match elided {
            Some(elided) => line.number(Tone::Note, elided),
            None => line.own(Tone::Note, "an unknown number of"),
        };
        page.push(line.own(Tone::Note, " frames elided …"));
        part(page, incident, inner..stack.len(), &columns, site);
    }
}

/// Returns the index of the frame to highlight: the site of the first panic, if the incident is a panic, else
/// the site in the stack.
fn site_index(incident: &Incident) -> Option<usize> {
    let first =
        incident.panics.first().filter(|_| incident.kind == Kind::Panic).and_then(|p| p.site.as_ref());
    let site = first.or_else(|| story::site_of_stack(incident));
    let found = site.and_then(|site| incident.stack.iter().position(|f| f == site));
    found.or_else(|| frame_class::site(&incident.stack, module(incident)))
}

fn part(
    page: &mut Page<'_>,
    incident: &Incident,
    range: std::ops::Range<usize>,
    columns: &Columns,
    site: Option<usize>,
) {
    let mut i = range.start;
    let end = range.end.min(range.start + MAX_FRAMES);
    while i < end {
        let (period, rounds) = cycle(&incident.stack[i..end]);
        for k in i..i + period {
            frame(page, &incident.stack[k], module(incident), columns, site == Some(k));
        }
        if rounds > 1 {
            let line = Line::new().own(Tone::Note, "    ↑ ");
            let line = match period {
                1 => line.own(Tone::Note, "this frame "),
                n => line.own(Tone::Note, "these ").number(Tone::Note, n).own(Tone::Note, " frames "),
            };
            page.push(line.number(Tone::Note, rounds).own(Tone::Note, " times in a row"));
        }
        i += period * rounds;
    }
    if end < range.end {
        let line = Line::new().own(Tone::Note, "  … ").number(Tone::Note, range.end - end);
        page.push(line.own(Tone::Note, " more frames, all in the incident document"));
    }
}

/// Returns the length of the cycle with which the frames start, and how often it repeats; (1, 1) if there is
/// none worth folding.
fn cycle(frames: &[Frame]) -> (usize, usize) {
    let same = |a: &Frame, b: &Frame| (&a.function, &a.file, a.line) == (&b.function, &b.file, b.line);
    for period in 1..=MAX_PERIOD.min(frames.len()) {
        let (head, rest) = frames.split_at(period);
        let equal = |c: &&[Frame]| c.iter().zip(head).all(|(a, b)| same(a, b));
        let rounds = 1 + rest.chunks_exact(period).take_while(equal).count();
        if rounds >= MIN_ROUNDS {
            return (period, rounds);
        }
    }
    (1, 1)
}

struct Columns {
    /// Column at which file and line start; `None`: on a separate line.
    place: Option<usize>,
    width: usize,
}

impl Columns {
    fn of(stack: &[Frame], width: usize) -> Self {
        let longest = stack
            .iter()
            .take(MAX_FRAMES)
            .map(|f| escape::one_line_max(&f.function, 200).width())
            .max()
            .unwrap_or(0);
        let place = (width >= ONE_LINE_WIDTH).then(|| (longest + 4).clamp(20, width / 2));
        Self { place, width }
    }
}

fn frame(page: &mut Page<'_>, frame: &Frame, module: Option<&str>, columns: &Columns, site: bool) {
    let class = frame_class::of_frame(frame, module);
    let (tone, mark) = match class {
        _ if site => (Tone::Strong, "▶ "),
        Class::User => (Tone::Strong, "• "),
        _ => (tone_of(class), "  "),
    };
    let note = if frame.inlined { " (inlined)" } else { "" };
    let room = columns.place.map_or(columns.width, |p| p - 1) - 2;
    let function = tail(&escape::one_line_max(&frame.function, 400), room);
    let line = Line::new().own(if site { Tone::Bad } else { tone }, mark).target(tone, &function);
    let tone = if class == Class::User { Tone::Plain } else { tone };
    match columns.place {
        Some(column) => {
            let offset = format!(" +{:#x}", frame.offset);
            let with_offset = columns.width >= OFFSET_WIDTH && !frame.inlined;
            let after = if with_offset { offset.len() } else { note.len() };
            let room = columns.width.saturating_sub(column + after);
            let line = line.column(column).then(place(frame, room, tone));
            page.push(if with_offset { line.target(Tone::Dim, &offset) } else { line.own(Tone::Dim, note) });
        }
        None => {
            page.push(line);
            let room = columns.width.saturating_sub(6 + note.len());
            page.push(Line::new().column(6).then(place(frame, room, tone)).own(Tone::Dim, note));
        }
    }
}
