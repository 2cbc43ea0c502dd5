//! Lines of styled text, and the page they are written to.
//!
//! This module knows tones, widths and line breaks, but no incidents. [`Line::target`] is the only way to add
//! foreign text.

use std::fmt::{Display, Write as _};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Style;
use crate::incident::escape;

/// Role of a piece of text; the mapping from tone to color is defined once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text, in the terminal's own color.
    Plain,
    /// The user's own code, and other important text.
    Strong,
    /// Standard library, runtime, addresses.
    Dim,
    /// Fatal outcomes and errors.
    Bad,
    /// Recovery and success.
    Good,
    /// Missing or unknown information.
    Note,
    /// Titles of the sections of a report.
    Title,
}

impl Tone {
    /// Returns the code of the color. Only the terminal's own sixteen colors are used, which are readable on
    /// light and dark backgrounds.
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Bad => "1;31",
            Tone::Good => "32",
            Tone::Note => "33",
            Tone::Title => "1;36",
        }
    }
}

/// A line, or a part of one.
#[derive(Debug, Clone, Default)]
pub struct Line {
    spans: Vec<(Tone, String)>,
}

impl Line {
    /// Begins an empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends panicwatch's own text.
    pub fn own(self, tone: Tone, text: &'static str) -> Self {
        self.span(tone, text.to_owned())
    }

    /// Appends a number, time or address, which cannot contain foreign text.
    pub fn number(self, tone: Tone, value: impl Display + Number) -> Self {
        self.span(tone, value.to_string())
    }

    /// Appends text of the watched program, escaped.
    pub fn target(self, tone: Tone, text: &str) -> Self {
        self.span(tone, escape::one_line(text))
    }

    /// Appends text of the watched program, escaped and truncated on the left to `max` columns.
    pub fn target_tail(self, tone: Tone, text: &str, max: usize) -> Self {
        self.span(tone, tail(&escape::one_line(text), max))
    }

    /// Appends one character of a drawing; consecutive characters of one tone form one span.
    pub fn glyph(mut self, tone: Tone, glyph: char) -> Self {
        self.add(tone, glyph);
        self
    }

    /// Appends another line's text.
    pub fn then(mut self, other: Line) -> Self {
        self.spans.extend(other.spans);
        self
    }

    /// Appends spaces up to `column`, at least one after existing text.
    pub fn column(self, column: usize) -> Self {
        let width = self.width();
        let fill = if width == 0 { column } else { column.saturating_sub(width).max(1) };
        self.span(Tone::Plain, " ".repeat(fill))
    }

    /// Appends a horizontal rule up to `column`.
    pub fn rule_to(self, tone: Tone, column: usize) -> Self {
        let left = column.saturating_sub(self.width());
        self.span(tone, "━".repeat(left))
    }

    /// Columns it takes.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(_, s)| s.width()).sum()
    }

    /// Reports whether nothing is written on it.
    pub fn is_empty(&self) -> bool {
        self.spans.iter().all(|(_, s)| s.is_empty())
    }

    fn span(mut self, tone: Tone, text: String) -> Self {
        self.spans.push((tone, text));
        self
    }

    /// Breaks the text into lines, the first of at most `first` columns, the others of `width`: at spaces
    /// where possible.
    fn wrap(&self, first: usize, width: usize) -> Vec<Line> {
        let (mut rows, mut room, width) = (vec![Line::new()], first.max(1), width.max(1));
        for word in self.words() {
            let needs = word.solid_width();
            if needs > room && needs <= width {
                rows.push(Line::new());
                room = width;
            }
            for (tone, text) in word.spans {
                for c in text.chars() {
                    let w = c.width().unwrap_or(0);
                    if w > room {
                        // A space at the start of a continuation line is dropped.
                        if c == ' ' {
                            continue;
                        }
                        rows.push(Line::new());
                        room = width;
                    }
                    room = room.saturating_sub(w);
                    if let Some(row) = rows.last_mut() {
                        row.add(tone, c);
                    }
                }
            }
        }
        rows
    }

    /// Returns the words of the text, each with the spaces that follow it; words are not broken if they fit
    /// on a line.
    fn words(&self) -> Vec<Line> {
        let mut words = vec![Line::new()];
        let mut after_blank = false;
        for (tone, text) in &self.spans {
            for c in text.chars() {
                if after_blank && c != ' ' {
                    words.push(Line::new());
                }
                after_blank = c == ' ';
                if let Some(word) = words.last_mut() {
                    word.add(*tone, c);
                }
            }
        }
        words
    }

    fn add(&mut self, tone: Tone, c: char) {
        match self.spans.last_mut() {
            Some((t, text)) if *t == tone => text.push(c),
            _ => self.spans.push((tone, c.to_string())),
        }
    }

    /// Returns the width without trailing spaces.
    fn solid_width(&self) -> usize {
        let blanks =
            self.spans.iter().rev().flat_map(|(_, s)| s.chars().rev()).take_while(|c| *c == ' ').count();
        self.width() - blanks
    }
}

/// Types accepted by [`Line::number`]: those that cannot contain foreign text.
pub trait Number {}
impl Number for u64 {}
impl Number for u32 {}
impl Number for i32 {}
impl Number for i64 {}
impl Number for usize {}
impl Number for crate::incident::Addr {}

/// Returns the end of `text`, at most `max` columns wide, starting at a `/` of a path if at least half of it
/// remains.
pub fn tail(text: &str, max: usize) -> String {
    if text.width() <= max {
        return text.to_owned();
    }
    let mut from = text.len();
    let mut used = 1;
    for (i, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > max {
            break;
        }
        from = i;
    }
    let cut = &text[from..];
    let nice = cut.find('/').filter(|i| cut[*i..].width() * 2 >= cut.width()).map_or(cut, |i| &cut[i..]);
    format!("…{nice}")
}

/// A report under construction.
pub struct Page<'a> {
    style: &'a Style,
    out: String,
}

impl<'a> Page<'a> {
    /// Begins a page without lines.
    pub fn new(style: &'a Style) -> Self {
        Self { style, out: String::new() }
    }

    /// Columns of the terminal.
    pub fn width(&self) -> usize {
        self.style.width.max(40)
    }

    /// Writes one line, truncated at the width of the page.
    pub fn push(&mut self, line: Line) {
        let width = self.width();
        let mut room = width - usize::from(line.width() > width);
        let cut = line.width() > width;
        let mut blanks = 0;
        for (tone, text) in &line.spans {
            let kept = head(text, room);
            room -= kept.width();
            // Trailing spaces are dropped, because they would wrap in a narrower terminal.
            let body = kept.trim_end_matches(' ');
            if !body.is_empty() {
                self.out.push_str(&" ".repeat(std::mem::take(&mut blanks)));
                self.paint(*tone, body);
            }
            blanks += kept.len() - body.len();
        }
        if cut {
            self.out.push_str(&" ".repeat(blanks));
            self.out.push('…');
        }
        self.out.push('\n');
    }

    /// Writes `line` on as many rows as needed, at most `rows`; all but the first are indented by `indent`
    /// spaces.
    pub fn push_wrapped(&mut self, line: &Line, indent: usize, rows: usize) {
        let width = self.width();
        let indent = indent.min(width / 2);
        let all = line.wrap(width, width - indent);
        let left = all.len().saturating_sub(rows);
        for (i, row) in all.into_iter().take(rows).enumerate() {
            let start = if i == 0 { Line::new() } else { Line::new().column(indent) };
            self.push(start.then(row));
        }
        if left > 0 {
            let note = Line::new().column(indent).own(Tone::Note, "… truncated, ").number(Tone::Note, left);
            self.push(note.own(Tone::Note, if left == 1 { " more line" } else { " more lines" }));
        }
    }

    /// Adds an empty line.
    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// Adds a section title of our own words, behind an empty line.
    pub fn title(&mut self, text: &'static str) {
        self.title_line(Line::new().own(Tone::Title, text));
    }

    /// Adds a section title, behind an empty line.
    pub fn title_line(&mut self, line: Line) {
        self.blank();
        self.push(line);
    }

    /// The page's text.
    pub fn finish(self) -> String {
        self.out
    }

    fn paint(&mut self, tone: Tone, text: &str) {
        let code = tone.code();
        let _ = if self.style.color && !code.is_empty() {
            write!(self.out, "\x1b[{code}m{text}\x1b[0m")
        } else {
            write!(self.out, "{text}")
        };
    }
}

fn head(text: &str, max: usize) -> &str {
    let mut used = 0;
    for (i, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > max {
            return &text[..i];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shortened_from_the_left() {
        assert_eq!(tail("/usr/local/go/src/net/http/server.go:2294", 25), "…/net/http/server.go:2294");
        assert_eq!(tail("/a/b.go:1", 24), "/a/b.go:1");
        assert_eq!(tail("abcdefghij", 4), "…hij");
        assert_eq!(tail("日本語日本語", 5), "…本語");
    }

    #[test]
    fn long_words_are_broken_and_counted() {
        let style = Style::new(false, 40);
        let mut page = Page::new(&style);
        page.push_wrapped(&Line::new().target(Tone::Plain, &format!("key: {}", "x".repeat(200))), 4, 3);
        let text = page.finish();
        assert!(text.lines().all(|l| l.width() <= 40), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
