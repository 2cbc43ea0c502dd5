//! What is recorded: a level, sources taken away from it, and for how long back.

use std::{fmt, str::FromStr, time::Duration};

use panicwatch_common::{counted::WINDOW_NS, recorder::SAMPLE_GAP_NS};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Source, budget::Limits};
use crate::trace::pattern::Pattern;

/// How much is recorded.
#[cfg_attr(feature = "host", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
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

/// A bound on what recording costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum OverheadBudget {
    /// The default with [`Level::Default`]; none with any other level, which is recorded in full.
    #[default]
    Auto,
    /// None.
    Off,
    /// So many percent, more than 0 and at most 100.
    Percent(f64),
}

impl OverheadBudget {
    /// Reports whether a percentage is one that can be kept.
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
            // Its range is checked with everything else that may be wrong, so that all of it is reported.
            Written::Number(percent) => Ok(OverheadBudget::Percent(percent)),
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// The default target budget, percent of the watched processes' CPU time.
const BUDGET_PERCENT: f64 = 1.0;
/// The default host budget, percent of the machine's CPU capacity.
const HOST_BUDGET_PERCENT: f64 = 0.5;
/// The default limit of each core, percent.
const CORE_LIMIT_PERCENT: f64 = 5.0;

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
    /// What watched processes may pay: percent of their CPU time.
    pub budget: OverheadBudget,
    /// What everybody else may pay: percent of the machine's CPU capacity.
    pub host_budget: OverheadBudget,
    /// What watched processes may pay of each core, whatever their budget allows: percent.
    pub core_limit: OverheadBudget,
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
            budget: OverheadBudget::Auto,
            host_budget: OverheadBudget::Auto,
            core_limit: OverheadBudget::Auto,
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

    /// What recording may cost on a machine of so many cores.
    pub fn limits(&self, cores: u32) -> Limits {
        // Who turns the target budget off wants no other limit in its place.
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

    /// The level is recorded in full: a source of it that cannot be recorded is an error.
    pub fn is_exact(&self) -> bool {
        !matches!(self.level, Level::Off | Level::Default)
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
    use std::collections::BTreeMap;

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
    fn the_default_level_has_budgets_and_every_other_level_is_recorded_in_full() {
        let limits = |level, budget: &str, host: &str| {
            let (budget, host_budget) = (budget.parse().unwrap(), host.parse().unwrap());
            let limits = Options { level, budget, host_budget, ..Options::default() }.limits(2);
            (limits.target_percent, limits.host_percent, limits.core_percent)
        };
        assert_eq!(limits(Level::Default, "auto", "auto"), (Some(1.0), Some(0.5), Some(5.0)));
        assert_eq!(limits(Level::Full, "auto", "auto"), (None, None, None));
        // A budget that is asked for holds all the same, and alone.
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
