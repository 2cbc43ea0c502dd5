//! Recorder settings: a level, sources that are left out of it, and the length of the window.

use std::{fmt, str::FromStr, time::Duration};

use panicwatch_common::{counted::WINDOW_NS, recorder::SAMPLE_GAP_NS};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Source, budget::Limits};
use crate::go::pattern::Pattern;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing is recorded, and there are no timelines.
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

impl Level {
    /// Returns the sources of the level.
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
    Source::Send,
    Source::Sample,
    Source::Wakeup,
    Source::Switch,
];

/// Setting of a bound on the overhead of recording.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum OverheadBudget {
    /// The default bound with [`Level::Default`]; no bound with any other level, which is recorded in full.
    #[default]
    Auto,
    /// The overhead has no bound.
    Off,
    /// A percentage, more than 0 and at most 100.
    Percent(f64),
}

impl OverheadBudget {
    /// Reports whether the percentage, if any, is in the valid range.
    pub fn is_possible(self) -> bool {
        !matches!(self, OverheadBudget::Percent(percent) if !(percent > 0.0 && percent <= 100.0))
    }

    fn or(self, level: Level, default: f64) -> Option<f64> {
        match self {
            OverheadBudget::Auto => (level == Level::Default).then_some(default),
            OverheadBudget::Off => None,
            OverheadBudget::Percent(percent) => Some(percent),
        }
    }
}

impl fmt::Display for OverheadBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OverheadBudget::Auto => f.write_str("auto"),
            OverheadBudget::Off => f.write_str("off"),
            OverheadBudget::Percent(percent) => percent.fmt(f),
        }
    }
}

impl FromStr for OverheadBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<OverheadBudget, String> {
        match text {
            "auto" => Ok(OverheadBudget::Auto),
            "off" => Ok(OverheadBudget::Off),
            _ => match text.parse() {
                Ok(percent) if OverheadBudget::Percent(percent).is_possible() => {
                    Ok(OverheadBudget::Percent(percent))
                }
                _ => Err("write a percentage, more than 0 and at most 100, or off, or auto".to_owned()),
            },
        }
    }
}

impl Serialize for OverheadBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OverheadBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OverheadBudget, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            // The range is checked together with the other settings, so that all errors are reported.
            Written::Number(percent) => Ok(OverheadBudget::Percent(percent)),
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Default target budget, percent of the watched processes' CPU time.
const BUDGET_PERCENT: f64 = 1.0;
/// Default host budget, percent of the machine's CPU capacity.
const HOST_BUDGET_PERCENT: f64 = 0.5;
/// Default limit of each core, percent.
const CORE_LIMIT_PERCENT: f64 = 5.0;

/// Settings of the flight recorder.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a timeline before a panic.
    pub window: Duration,
    /// How much is recorded.
    pub level: Level,
    /// Sources that are left out of the level.
    pub without: Vec<Source>,
    /// Patterns of the functions whose entries are recorded.
    pub functions: Vec<Pattern>,
    /// Bound on the overhead in watched processes: percent of their CPU time.
    pub budget: OverheadBudget,
    /// Bound on the overhead in all other processes: percent of the machine's CPU capacity.
    pub host_budget: OverheadBudget,
    /// Bound on the overhead in watched processes on each core, whatever their budget allows: percent.
    pub core_limit: OverheadBudget,
    /// Panics of one binary that are captured per second, averaged over some seconds; further ones are only
    /// counted. 0: no limit.
    pub captures_per_second: u32,
    /// Longest time that one capture may take in the target; the rest is not copied. See
    /// [`check_capture_time`].
    pub capture_time: Duration,
}

/// Default of [`Options::capture_time`]: the largest capture, eight megabytes of stack, took 1.0 to 1.5 ms.
pub const CAPTURE_TIME: Duration = Duration::from_millis(5);
/// The shortest value of [`Options::capture_time`].
const MIN_CAPTURE_TIME: Duration = Duration::from_micros(1);
/// The longest value of [`Options::capture_time`]; it fits 32 bits of nanoseconds.
const MAX_CAPTURE_TIME: Duration = Duration::from_secs(4);

/// Checks a value of [`Options::capture_time`].
///
/// # Errors
/// The range, when `time` is outside it.
pub fn check_capture_time(time: Duration) -> Result<Duration, String> {
    if (MIN_CAPTURE_TIME..=MAX_CAPTURE_TIME).contains(&time) {
        return Ok(time);
    }
    Err("the time limit of a capture is between 1us and 4s".to_owned())
}

impl Default for Options {
    fn default() -> Options {
        Options {
            window: Duration::from_millis(10),
            level: Level::Default,
            without: Vec::new(),
            functions: Vec::new(),
            budget: OverheadBudget::Auto,
            host_budget: OverheadBudget::Auto,
            core_limit: OverheadBudget::Auto,
            captures_per_second: 200,
            capture_time: CAPTURE_TIME,
        }
    }
}

/// Slots in a CPU's ring: at a hundred thousand records per second they reach 160 ms back.
const SLOTS: u64 = 16_384;
/// Time that these slots must cover, nanoseconds: user space may be a tenth of a second late.
const REACH_NS: u64 = 110_000_000;
/// Most slots in a CPU's ring: 64 MB.
const MAX_SLOTS: u64 = 1 << 20;

impl Options {
    /// Returns settings with which nothing is recorded.
    pub fn off() -> Options {
        Options { level: Level::Off, ..Options::default() }
    }

    /// Returns the limits of the overhead on a machine with `cores` cores.
    pub fn limits(&self, cores: u32) -> Limits {
        // A user who turns the target budget off does not want another limit in its place.
        let core_limit = match (self.budget, self.core_limit) {
            (OverheadBudget::Off, OverheadBudget::Auto) => OverheadBudget::Off,
            (_, limit) => limit,
        };
        Limits {
            target_percent: self.budget.or(self.level, BUDGET_PERCENT),
            core_percent: core_limit.or(self.level, CORE_LIMIT_PERCENT),
            host_percent: self.host_budget.or(self.level, HOST_BUDGET_PERCENT),
            cores,
        }
    }

    /// Reports whether the level must be recorded in full: a source that cannot be recorded is then an error.
    pub fn is_exact(&self) -> bool {
        !matches!(self.level, Level::Off | Level::Default)
    }

    /// Returns the enabled sources.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources = self.level.sources();
        if !self.functions.is_empty() && self.level != Level::Off {
            sources.push(Source::Function);
        }
        sources.retain(|source| !self.without.contains(source));
        sources
    }

    /// Returns the number of panics of one binary that are captured in a window of [`WINDOW_NS`].
    pub fn captures_per_window(&self) -> u32 {
        let seconds = WINDOW_NS / 1_000_000_000;
        u32::try_from(u64::from(self.captures_per_second) * seconds).unwrap_or(u32::MAX)
    }

    /// [`Options::capture_time`] in nanoseconds.
    pub fn capture_ns(&self) -> u32 {
        u32::try_from(self.capture_time.as_nanos()).unwrap_or(u32::MAX)
    }

    /// Returns the number of slots in a CPU's ring, a power of two; more for a longer window.
    pub fn slots(&self) -> u32 {
        let window = u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX);
        let reach = window.saturating_add(REACH_NS - 10_000_000);
        let wanted = u128::from(SLOTS) * u128::from(reach) / u128::from(REACH_NS);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).clamp(SLOTS, MAX_SLOTS);
        u32::try_from(wanted.next_power_of_two()).unwrap_or(1 << 20)
    }

    /// Returns the number of samples in a CPU's ring, a power of two.
    pub fn samples(&self) -> u32 {
        let window = self.window.as_millis() as u64 + 200;
        let wanted = (window * 1_000_000 / SAMPLE_GAP_NS).clamp(128, 8192);
        u32::try_from(wanted.next_power_of_two()).unwrap_or(8192)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn time_limits_of_captures_have_a_range() {
        for (time, is_valid) in [
            (Duration::ZERO, false),
            (Duration::from_nanos(999), false),
            (MIN_CAPTURE_TIME, true),
            (MAX_CAPTURE_TIME, true),
            (MAX_CAPTURE_TIME + Duration::from_nanos(1), false),
        ] {
            assert_eq!(check_capture_time(time).is_ok(), is_valid, "{time:?}");
        }
        let longest = Options { capture_time: MAX_CAPTURE_TIME, ..Options::default() };
        assert_eq!(longest.capture_ns(), 4_000_000_000);
    }

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
    fn the_default_level_has_budgets_and_every_other_level_is_recorded_in_full() {
        let limits = |level, budget: &str, host: &str| {
            let (budget, host_budget) = (budget.parse().unwrap(), host.parse().unwrap());
            let limits = Options { level, budget, host_budget, ..Options::default() }.limits(2);
            (limits.target_percent, limits.host_percent, limits.core_percent)
        };
        assert_eq!(limits(Level::Default, "auto", "auto"), (Some(1.0), Some(0.5), Some(5.0)));
        assert_eq!(limits(Level::Full, "auto", "auto"), (None, None, None));
        // An explicit budget applies to any level, and then it is the only limit.
        assert_eq!(limits(Level::Full, "3", "auto"), (Some(3.0), None, None));
        assert_eq!(limits(Level::Default, "off", "off"), (None, None, None));
        assert_eq!(limits(Level::Default, "2.5", "off"), (Some(2.5), None, Some(5.0)));
    }

    #[test]
    fn budgets_are_percentages_or_words() {
        for wrong in ["0", "-1", "101", "NaN", "inf", "", "none"] {
            assert!(wrong.parse::<OverheadBudget>().is_err(), "{wrong}");
        }
        let read = |text: &str| toml::from_str::<BTreeMap<String, OverheadBudget>>(text).ok();
        let all = read("a = 1\nb = 0.5\nc = \"off\"\nd = \"auto\"\ne = \"2\"\n").unwrap();
        let expected = [1.0, 0.5].map(OverheadBudget::Percent);
        assert_eq!((all["a"], all["b"], all["c"]), (expected[0], expected[1], OverheadBudget::Off));
        assert_eq!((all["d"], all["e"]), (OverheadBudget::Auto, OverheadBudget::Percent(2.0)));
        assert!(read("a = true\n").is_none() && read("a = \"0\"\n").is_none());
        assert!(!read("a = 0\n").unwrap()["a"].is_possible());
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
