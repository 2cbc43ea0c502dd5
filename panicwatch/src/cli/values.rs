//! Values of options as clap reads and explains them: their comments are the help. What they mean is the
//! library's.

use clap::ValueEnum;

use crate::{recorder::Level, render::Format};

/// [`Format`] as a command-line value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatValue {
    /// The text report.
    Text,
    /// The incident document.
    Json,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// Folded stacks, for flame graphs.
    Folded,
    /// The output format of perf script.
    PerfScript,
    /// A self-contained page.
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

/// [`Level`] as a command-line value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LevelValue {
    /// Record nothing.
    Off,
    /// Scheduling, page faults, signals, samples and GC phases, within the overhead budgets.
    #[default]
    Default,
    /// Everything that the kernel reports, including system calls.
    Kernel,
    /// The same as kernel, and the goroutine events of Go's runtime.
    Runtime,
    /// Everything, including mark assists.
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
