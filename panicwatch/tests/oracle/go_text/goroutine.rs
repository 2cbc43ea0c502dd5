//! Parses one goroutine: its header, its frames, and its creator.

use std::collections::BTreeMap;

use super::frame::{self, FrameText};

/// The line `created by F in goroutine N` and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreatedBy {
    /// The function and the position of its go statement.
    pub(crate) frame: FrameText,
    /// goid of the creator (Go 1.21 and later).
    pub(crate) parent: Option<u64>,
}

/// A goroutine of the traceback.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GoroutineText {
    /// goid in the header line.
    pub(crate) id: u64,
    /// `running`, `syscall`, or the wait reason.
    pub(crate) status: String,
    /// Waiting time in minutes, from `N minutes`.
    pub(crate) minutes: Option<u64>,
    /// Whether the header has `locked to thread`.
    pub(crate) locked: bool,
    /// Profiler labels (Go 1.26 and later).
    pub(crate) labels: BTreeMap<String, String>,
    /// Frames, innermost first.
    pub(crate) frames: Vec<FrameText>,
    /// After how many of `frames` frames were elided, and how many (`None` up to Go 1.20, which does not
    /// print the number).
    pub(crate) elided: Option<(usize, Option<u64>)>,
    /// Function that started it.
    pub(crate) created_by: Option<CreatedBy>,
    /// goid and frames of each ancestor, printed with GODEBUG=tracebackancestors.
    pub(crate) ancestors: Vec<(u64, Vec<FrameText>)>,
}

/// Reports whether the line is a goroutine's header.
pub(super) fn is_header(line: &str) -> bool {
    parse_header(line).is_some()
}

/// Parses the goroutine that begins with `header`; returns it and the lines after it.
pub(super) fn parse<'a, 'b>(header: &str, lines: &'b [&'a str]) -> Option<(GoroutineText, &'b [&'a str])> {
    let mut goroutine = parse_header(header)?;
    let mut rest = lines;
    while let Some((line, tail)) = rest.split_first() {
        if line.is_empty() || is_header(line) || line.starts_with("exit status ") {
            break;
        }
        rest = if let Some(id) = ancestor(line) {
            goroutine.ancestors.push((id, Vec::new()));
            tail
        } else {
            entry(&mut goroutine, line, tail)
        };
    }
    Some((goroutine, rest))
}

/// Parses frames up to an empty line.
pub(super) fn frames<'a, 'b>(lines: &'b [&'a str]) -> (Vec<FrameText>, &'b [&'a str]) {
    let end = lines.iter().position(|l| l.is_empty()).unwrap_or(lines.len());
    let (block, rest) = lines.split_at(end);
    (block.windows(2).filter_map(|w| frame::parse(w[0], w[1])).collect(), rest)
}

fn entry<'a, 'b>(goroutine: &mut GoroutineText, line: &str, tail: &'b [&'a str]) -> &'b [&'a str] {
    if let Some(elided) = elided(line) {
        goroutine.elided.get_or_insert((goroutine.frames.len(), elided));
        return tail;
    }
    let Some((position, after)) = tail.split_first() else { return tail };
    if let Some(creator) = line.strip_prefix("created by ") {
        if let Some(created_by) = parse_creator(creator, position) {
            // Ancestors have creators of their own; the goroutine's own is printed first.
            goroutine.created_by.get_or_insert(created_by);
            return after;
        }
    } else if let Some(frame) = frame::parse(line, position) {
        match goroutine.ancestors.last_mut() {
            Some((_, frames)) => frames.push(frame),
            None => goroutine.frames.push(frame),
        }
        return after;
    }
    // Remarks such as "goroutine running on other thread; stack unavailable", and dumps of a damaged stack.
    tail
}

fn elided(line: &str) -> Option<Option<u64>> {
    let inner = line.strip_prefix("...")?.strip_suffix(" frames elided...")?;
    Some(if inner == "additional" { None } else { inner.parse().ok() })
}

fn ancestor(line: &str) -> Option<u64> {
    line.strip_prefix("[originating from goroutine ")?.strip_suffix("]:")?.parse().ok()
}

fn parse_creator(text: &str, position: &str) -> Option<CreatedBy> {
    let mut frame = frame::parse_position(position)?;
    let (function, parent) = match text.rsplit_once(" in goroutine ") {
        Some((function, id)) => (function, Some(id.parse().ok()?)),
        None => (text, None),
    };
    frame.function = function.to_owned();
    Some(CreatedBy { frame, parent })
}

/// Parses `goroutine N [gp=0x… m=… mp=0x…] [status, …]…:`.
fn parse_header(line: &str) -> Option<GoroutineText> {
    let rest = line.strip_prefix("goroutine ")?.strip_suffix(':')?;
    let (id, rest) = rest.split_once(' ')?;
    let mut goroutine = GoroutineText { id: id.parse().ok()?, ..GoroutineText::default() };
    let (identity, rest) = rest.split_once('[')?;
    if identity.split_whitespace().any(|w| !["gp=", "m=", "mp="].iter().any(|p| w.starts_with(p))) {
        return None;
    }
    // Go 1.26 prints labels inside the brackets, Go 1.27 after them.
    let (inner, labels) = match rest.find(" labels:{") {
        Some(at) => (&rest[..at], rest[at + " labels:".len()..].strip_suffix(']')?),
        None => {
            let (inner, labels) = rest.rsplit_once(']').filter(|(_, l)| !l.contains('}')).or_else(|| {
                let at = rest.find("] {")?;
                Some((&rest[..at], &rest[at + 2..]))
            })?;
            (inner, labels)
        }
    };
    goroutine.labels = parse_labels(labels)?;
    let mut parts = inner.split(", ");
    let status = parts.next()?;
    goroutine.status = status.strip_suffix(" (scan)").unwrap_or(status).to_owned();
    for part in parts {
        if part == "locked to thread" {
            goroutine.locked = true;
        } else if let Some(minutes) = part.strip_suffix(" minutes") {
            goroutine.minutes = minutes.parse().ok();
        }
    }
    Some(goroutine)
}

/// Parses `{"k": "v", …}`: quoted in Go 1.26, only where needed in Go 1.27.
fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    if text.is_empty() {
        return Some(BTreeMap::new());
    }
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (key, tail) = label_word(rest, ": ")?;
        let (value, tail) = label_word(tail.strip_prefix(": ")?, ", ")?;
        labels.insert(key, value);
        rest = tail.strip_prefix(", ").unwrap_or(tail);
    }
    Some(labels)
}

fn label_word<'a>(text: &'a str, until: &str) -> Option<(String, &'a str)> {
    if !text.starts_with('"') {
        let end = text.find(until).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    }
    let mut words = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let word = words.next()?.ok()?;
    Some((word, &text[words.byte_offset()..]))
}
