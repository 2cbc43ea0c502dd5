//! Text for people: how wide and coloured it is, its lines, and times in it. Must not know what is written.

pub mod line;

use self::line::Number;

/// How to write for the terminal (or file) at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour: a terminal, and NO_COLOR not set.
    pub color: bool,
    /// Columns; taken as at least 40.
    pub width: usize,
}

impl Style {
    /// A style; `width` is brought into the range the report can do with.
    pub fn new(color: bool, width: usize) -> Self {
        Self { color, width: width.clamp(40, 400) }
    }
}

impl Default for Style {
    /// For a file: 100 columns, no colour.
    fn default() -> Self {
        Self::new(false, 100)
    }
}

/// Nanoseconds as people read them: three digits and a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nanos(pub u64);

impl Number for Nanos {}

impl std::fmt::Display for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ns = self.0;
        let (unit, name) = match ns {
            0..1_000 => return f.pad(&format!("{ns} ns")),
            1_000..1_000_000 => (1e3, "µs"),
            1_000_000..1_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let value = ns as f64 / unit;
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        f.pad(&format!("{value:.digits$} {name}"))
    }
}
