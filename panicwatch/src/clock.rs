//! Clocks: events carry CLOCK_MONOTONIC (Go's nanotime), reports show wall time.

use panicwatch_core::clock::rfc3339;

pub use panicwatch_core::clock::Clock;

/// Returns the current time of `clock` in nanoseconds.
fn now(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call, and the callers pass only clocks that always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Measures the offset between the two clocks now.
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
