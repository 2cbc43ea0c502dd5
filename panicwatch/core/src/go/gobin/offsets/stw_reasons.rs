//! Texts of the `runtime.stwReason` numbers: why the world is stopped.
//!
//! From stwReasonStrings of <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go>, the same from
//! 1.21 to 1.27.

use super::Columns;

/// The texts of each release; empty for Go 1.19, where `stopTheWorldWithSema` has no reason number.
pub(super) const COLUMNS: Columns<&[&str]> = [&[], GO1_21, GO1_21, GO1_21, GO1_21, GO1_21, GO1_21, GO1_21];

static GO1_21: &[&str] = &[
    "unknown",
    "GC mark termination",
    "GC sweep termination",
    "write heap dump",
    "goroutine profile",
    "goroutine profile cleanup",
    "all goroutines stack trace",
    "read mem stats",
    "AllThreadsSyscall",
    "GOMAXPROCS",
    "start trace",
    "stop trace",
    "CountPagesInUse (test)",
    "ReadMetricsSlow (test)",
    "ReadMemStatsSlow (test)",
    "PageCachePagesLeaked (test)",
    "ResetDebugLog (test)",
];
