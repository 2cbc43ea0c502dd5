//! Panics beyond the capture rate, which are only counted, by process and call site.

/// Length of a rate window, nanoseconds.
pub const WINDOW_NS: u64 = 5_000_000_000;

/// Panic rate of one binary, against which the capture limit is checked.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// Start of the window, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
    /// Panics since the start of the window, captured or not.
    pub taken: u64,
    /// Total number of panics that were only counted; while it is 0, no goroutine needs to be looked up.
    pub counted: u64,
}

const _: () = assert!(size_of::<Rate>() == 24);

/// Site of a panic that was only counted.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Process ID, as user space sees it.
    pub tgid: u32,
    /// Row of the process's binary in `BINARIES`.
    pub binary: u32,
    /// Return address of gopanic; 0 when the map had no room for the site.
    pub pc: u64,
    /// Return address of the function that called gopanic; for a run-time error, this is in the user's code.
    pub caller: u64,
    /// Run-time address of the probed instruction, from which user space derives the load bias.
    pub ip: u64,
}

const _: () = assert!(size_of::<Place>() == 32);

/// Key of a goroutine: its id within a process.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goroutine {
    /// Process ID, as user space sees it.
    pub tgid: u64,
    /// goid of the goroutine; 0: of none.
    pub goid: u64,
}

const _: () = assert!(size_of::<Goroutine>() == 16);
