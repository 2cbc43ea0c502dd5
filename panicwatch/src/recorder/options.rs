//! What is recorded: a level, sources taken away from it, and for how long back.

use std::time::Duration;

use panicwatch_common::{counted::WINDOW_NS, recorder::SAMPLE_GAP_NS};

use super::Source;
use crate::trace::pattern::Pattern;

/// How much is recorded.
#[cfg_attr(feature = "host", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    Off,
    /// What the kernel tells at a low price, and the collector's phases; the budget keeps the cost down.
    #[default]
    Default,
    /// All that the kernel tells, system calls included.
    Kernel,
    /// And what Go's runtime does with goroutines.
    Runtime,
    /// Everything.
    Full,
}

impl Level {
    /// What it listens to.
    pub fn sources(self) -> Vec<Source> {
        let with = |more: &[Source]| [DEFAULT, more].concat();
        match self {
            Level::Off => Vec::new(),
            Level::Default => DEFAULT.to_vec(),
            Level::Kernel => with(&[Source::Syscall]),
            Level::Runtime => with(&[Source::Syscall, Source::Goroutine]),
            Level::Full => with(&[Source::Syscall, Source::Goroutine, Source::Assist]),
        }
    }
}

const DEFAULT: &[Source] = &[
    Source::Gc,
    Source::Migrate,
    Source::Signal,
    Source::Fault,
    Source::Sample,
    Source::Wakeup,
    Source::Switch,
];

/// The recorder's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// How far before a panic a timeline reaches.
    pub window: Duration,
    /// How much is recorded.
    pub level: Level,
    /// Sources that are left out all the same.
    pub without: Vec<Source>,
    /// Functions whose entries are recorded.
    pub functions: Vec<Pattern>,
    /// What recording may cost: percent of the watched processes' CPU time.
    pub budget_percent: f64,
    /// The most that is spent of each core's time, whatever the budget says: percent.
    pub core_limit_percent: f64,
    /// Panics of one binary that are captured a second, over some seconds; what is beyond is counted. 0: all are.
    pub captures_per_second: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            window: Duration::from_millis(10),
            level: Level::Default,
            without: Vec::new(),
            functions: Vec::new(),
            budget_percent: 1.0,
            core_limit_percent: 5.0,
            captures_per_second: 200,
        }
    }
}

/// Slots of a CPU's ring: at a hundred thousand records a second they reach 160 ms back.
const SLOTS: u64 = 16_384;
/// The time for which that was chosen, nanoseconds: user space may be a tenth of a second late.
const REACH_NS: u64 = 110_000_000;
/// No ring is larger: 64 MB a CPU.
const MAX_SLOTS: u64 = 1 << 20;

impl Options {
    /// Nothing is recorded.
    pub fn off() -> Options {
        Options { level: Level::Off, ..Options::default() }
    }

    /// What is listened to.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources = self.level.sources();
        if !self.functions.is_empty() && self.level != Level::Off {
            sources.push(Source::Function);
        }
        sources.retain(|source| !self.without.contains(source));
        sources
    }

    /// Panics of one binary that are captured in a window of [`WINDOW_NS`].
    pub fn captures_per_window(&self) -> u32 {
        let seconds = WINDOW_NS / 1_000_000_000;
        u32::try_from(u64::from(self.captures_per_second) * seconds).unwrap_or(u32::MAX)
    }

    /// Slots of a CPU's ring, a power of two; more for a longer window.
    pub fn slots(&self) -> u32 {
        let window = u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX);
        let reach = window.saturating_add(REACH_NS - 10_000_000);
        let wanted = u128::from(SLOTS) * u128::from(reach) / u128::from(REACH_NS);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).clamp(SLOTS, MAX_SLOTS);
        u32::try_from(wanted.next_power_of_two()).unwrap_or(1 << 20)
    }

    /// Samples of a CPU's ring, a power of two.
    pub fn samples(&self) -> u32 {
        let window = self.window.as_millis() as u64 + 200;
        let wanted = (window * 1_000_000 / SAMPLE_GAP_NS).clamp(128, 8192);
        u32::try_from(wanted.next_power_of_two()).unwrap_or(8192)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_left_out_of_any_level() {
        let options =
            Options { level: Level::Full, without: vec![Source::Syscall, Source::Gc], ..Options::default() };
        let sources = options.sources();
        assert!(!sources.contains(&Source::Syscall) && !sources.contains(&Source::Gc));
        assert!(sources.contains(&Source::Goroutine) && sources.contains(&Source::Switch));
        assert_eq!(Options::off().sources(), []);
    }

    #[test]
    fn rings_grow_with_the_window_up_to_a_limit() {
        let slots = |ms| Options { window: Duration::from_millis(ms), ..Options::default() }.slots();
        assert_eq!(slots(10), 16_384);
        assert_eq!(slots(1), 16_384);
        assert!(slots(1000) >= 100_000);
        assert_eq!(slots(1 << 40), 1 << 20);
    }
}
