//! Panics beyond the rate at which they are captured: counted by process and place.

/// Length of a rate's window, nanoseconds.
pub const WINDOW_NS: u64 = 5_000_000_000;

/// How many panics of one binary were captured in the present window.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// When the window began, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
    /// Panics since then.
    pub taken: u64,
    /// Panics that were counted only, ever; while it is 0 no goroutine need be looked up.
    pub counted: u64,
}

const _: () = assert!(size_of::<Rate>() == 24);

/// Where a panic was raised that was counted only.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Process.
    pub tgid: u32,
    /// Row of its binary.
    pub binary: u32,
    /// Return address of gopanic; 0 when the table had no room for the place.
    pub pc: u64,
    /// Return address of the function that called gopanic, for a run-time error that of the user's code.
    pub caller: u64,
    /// The instruction under the probe: with it the address means something in a program that was moved.
    pub ip: u64,
}

const _: () = assert!(size_of::<Place>() == 32);

/// A goroutine of a process.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goroutine {
    /// Process.
    pub tgid: u64,
    /// goid.
    pub goid: u64,
}

const _: () = assert!(size_of::<Goroutine>() == 16);
