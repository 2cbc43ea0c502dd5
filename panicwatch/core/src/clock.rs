//! Times of events (CLOCK_MONOTONIC, Go's nanotime) as people want them. Reads no clock.

use jiff::Timestamp;

/// How far wall time is ahead of CLOCK_MONOTONIC, measured at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds.
    pub offset_ns: i128,
}

impl Clock {
    /// RFC 3339 UTC with nanoseconds, of a CLOCK_MONOTONIC time.
    pub fn rfc3339(self, monotonic_ns: u64) -> String {
        rfc3339(i128::from(monotonic_ns) + self.offset_ns).unwrap_or_default()
    }

    /// Milliseconds since 1970 of a CLOCK_MONOTONIC time.
    pub fn unix_ms(self, monotonic_ns: u64) -> u64 {
        u64::try_from((i128::from(monotonic_ns) + self.offset_ns) / 1_000_000).unwrap_or(0)
    }
}

/// RFC 3339 UTC with nanoseconds, of nanoseconds since 1970.
pub fn rfc3339(unix_ns: i128) -> Option<String> {
    Timestamp::from_nanosecond(unix_ns).ok().map(|time| format!("{time:.9}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_digits_always() {
        let clock = Clock { offset_ns: 1_700_000_000_000_000_000 };
        assert_eq!(clock.rfc3339(5), "2023-11-14T22:13:20.000000005Z");
        assert_eq!(clock.rfc3339(0), "2023-11-14T22:13:20.000000000Z");
    }
}
