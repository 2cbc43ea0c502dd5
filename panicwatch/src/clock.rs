//! The clocks: events carry CLOCK_MONOTONIC (Go's nanotime), people want wall time.

use jiff::Timestamp;

/// Nanoseconds of a clock now.
fn now(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call, and the clocks asked for always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

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

/// Measures now.
pub fn measure() -> Clock {
    Clock { offset_ns: now(libc::CLOCK_REALTIME) - now(libc::CLOCK_MONOTONIC) }
}

/// CLOCK_MONOTONIC now, nanoseconds.
pub fn monotonic_ns() -> u64 {
    u64::try_from(now(libc::CLOCK_MONOTONIC)).unwrap_or(0)
}

/// CPU time that the calling thread has used, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    u64::try_from(now(libc::CLOCK_THREAD_CPUTIME_ID)).unwrap_or(0)
}

/// CPU time that process `pid` has used, user and system, nanoseconds; `None` when it is gone.
pub fn process_cpu_ns(pid: u32) -> Option<u64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both write to variables that outlive the calls; the results are checked.
    let known = unsafe {
        libc::clock_getcpuclockid(libc::pid_t::try_from(pid).ok()?, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    let ns = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    known.then(|| u64::try_from(ns).ok())?
}

/// RFC 3339 of a CLOCK_BOOTTIME time, which is what /proc counts processes' starts in.
pub fn boot_time_to_rfc3339(since_boot_ns: i128) -> Option<String> {
    rfc3339(now(libc::CLOCK_REALTIME) - now(libc::CLOCK_BOOTTIME) + since_boot_ns)
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
