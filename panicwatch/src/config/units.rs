//! Sizes and durations as users write them: `"100MiB"`, `"10ms"`, `"30d"`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, written as `"100MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

/// A duration, written as `"10ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of time in nanoseconds, longest first.
const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Parses a number with a unit, and returns it in the smallest unit.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), &text[split..]);
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let factor = match (unit, units.iter().find(|(name, _)| *name == unit)) {
        (_, Some((_, factor))) => *factor,
        // Zero needs no unit.
        ("", None) if number == "0" => 1,
        _ => return Err(format!("{text:?} has no known unit; use {}", names())),
    };
    let bad = || format!("{text:?} is not a number with a unit ({})", names());
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"));
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    let value = number * factor as f64;
    if !(0.0..1e19).contains(&value) {
        return Err(bad());
    }
    Ok(value.round() as u64)
}

/// Formats `value` in the largest unit of which it is a whole multiple.
fn show(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (unit, factor) = fits.or(units.last()).copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, &SIZES, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), &TIMES, f)
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Bytes, String> {
        parse(text, &SIZES).map(Bytes)
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Span, String> {
        parse(text, &TIMES).map(|ns| Span(Duration::from_nanos(ns)))
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}
as_text!(Bytes);
as_text!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for (text, bytes) in [("100MiB", 100 << 20), ("1GiB", 1 << 30), ("0B", 0), ("1537B", 1537)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (text, ns) in [("10ms", 10_000_000), ("30d", 2_592_000_000_000_000), ("90s", 90_000_000_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_nanos(ns))), "{text}");
            assert_eq!(Span(Duration::from_nanos(ns)).to_string(), text);
        }
        assert_eq!("1.5s".parse(), Ok(Span(Duration::from_millis(1500))));
        assert_eq!("0".parse(), Ok(Bytes(0)));
    }

    #[test]
    fn refused() {
        for text in ["10", "ten ms", "10 parsecs", "-1s", "", "99999999999999999999GiB", "NaNs", "infs"] {
            assert!(text.parse::<Bytes>().is_err() && text.parse::<Span>().is_err(), "{text}");
        }
    }
}
