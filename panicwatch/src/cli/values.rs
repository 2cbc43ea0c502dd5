//! Values of options as clap reads and explains them: their comments are the help. What they mean is the library's.

use clap::ValueEnum;

use crate::{recorder::Level, render::Format};

/// See [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatValue {
    /// A report for people.
    Text,
    /// The document.
    Json,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// Folded stacks, for flame graphs.
    Folded,
    /// What `perf script` prints.
    PerfScript,
    /// The page's view of it, as one file.
    Html,
    /// OpenTelemetry's JSON: a log record and a trace.
    Otlp,
}

impl From<FormatValue> for Format {
    fn from(value: FormatValue) -> Self {
        match value {
            FormatValue::Text => Format::Text,
            FormatValue::Json => Format::Json,
            FormatValue::Perfetto => Format::Perfetto,
            FormatValue::Folded => Format::Folded,
            FormatValue::PerfScript => Format::PerfScript,
            FormatValue::Html => Format::Html,
            FormatValue::Otlp => Format::Otlp,
        }
    }
}

/// See [`Level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LevelValue {
    /// Nothing.
    Off,
    /// Scheduling, page faults, signals, samples and the collector's phases, within the overhead budgets.
    #[default]
    Default,
    /// All that the kernel reports, system calls included.
    Kernel,
    /// And what Go's runtime does with goroutines.
    Runtime,
    /// Everything.
    Full,
}

impl From<LevelValue> for Level {
    fn from(value: LevelValue) -> Self {
        match value {
            LevelValue::Off => Level::Off,
            LevelValue::Default => Level::Default,
            LevelValue::Kernel => Level::Kernel,
            LevelValue::Runtime => Level::Runtime,
            LevelValue::Full => Level::Full,
        }
    }
}
